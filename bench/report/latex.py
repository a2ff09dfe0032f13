"""A printed table as LaTeX (booktabs), in ASCII alone."""

import re

import numpy as np

from bench.report.footnotes import MINUS
from bench.report.tables import DAGGER, DASH, LEFT, MainTable, printed_parts

ROWS_A_PAGE = 45
FLOATS_AT_ONCE = 12
"""After so many floats a page ends, so that they are printed: TeX refuses to hold more than eighteen back."""

CHARACTERS_A_LINE = 145
"""How many characters of 7 pt the width of a two-column paper holds, gaps between columns counted as two."""
CONVENTION = "Trainable:"
"""How the footnote begins that goes into the caption."""
_LATEX = {
    "±": r"$\pm$", MINUS: "$-$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δm": r"$\Delta_m$", DASH: "--", "°": r"$^{\circ}$",
    "“": "``", "”": "''", "ρ": r"$\rho$", "α": r"$\alpha$", "λ": r"$\lambda$", DAGGER: r"$^{\dagger}$",
    "–": "--", "×": r"$\times$", "≤": r"$\leq$",
}  # fmt: skip


def to_latex(table: MainTable, *, label: str) -> str:
    """Return `table*` floats, which one- and two-column documents know; needs the packages named in its first line.

    What would be too wide to be read stands in several blocks, one under the other, results before costs, each with the first column;
    more rows than a page holds stand in several floats, each with the heads.

    Args:
        table: The table.
        label: LaTeX label of the float.
    """
    convention = [note for note in table.footnotes if note.startswith(CONVENTION)]
    caption = rf"\caption{{{_escape('. '.join([table.title, *convention]))}}}"
    notes = [_escape(note) + r"\par" for note in table.footnotes if note not in convention]
    starts = range(0, max(len(table.cells), 1), ROWS_A_PAGE)
    pages = [[_tabular(table, places, slice(start, start + ROWS_A_PAGE)) for start in starts] for places in _blocks(table)]
    return _symbols("\n".join(_floats(pages, caption, label, notes, rows=len(table.cells)))) + "\n"


def _blocks(table: MainTable) -> list[list[int]]:
    """Split the columns, results before costs, into blocks of at most `CHARACTERS_A_LINE`, each with the first column."""
    heads = list(table.cells.columns)
    wide = [max(len(head), *table.cells.iloc[:, place].map(len)) + 2 for place, head in enumerate(heads)]
    blocks = []
    for _, (_, *places) in printed_parts(heads):
        line = [0]
        for place in places:
            if len(line) > 1 and sum(wide[other] for other in line) + wide[place] > CHARACTERS_A_LINE:
                blocks.append(line)
                line = [0]
            line.append(place)
        blocks.append(line)
    return blocks


def _tabular(table: MainTable, places: list[int], rows: slice) -> list[str]:
    """Return the lines of a tabular of some columns and rows."""
    cells, bold, groups = table.cells.iloc[rows, places], table.bold.iloc[rows, places], table.groups[rows]
    styler = cells.style.format(escape="latex").format_index(escape="latex", axis="columns").hide(axis="index")
    styler = styler.apply(lambda _: np.where(bold, "textbf: --rwrap;", ""), axis=None)
    recalled = cells.map(lambda text: text.endswith(DAGGER)).to_numpy()
    styler = styler.apply(lambda _: np.where(recalled, "textcolor{gray}: --rwrap;itshape: ;", ""), axis=None)
    align = "".join("l" if head in LEFT else "r" for head in cells.columns)
    lines = styler.to_latex(hrules=True, column_format=align).splitlines()
    first = lines.index(r"\midrule") + 1
    for position in reversed(range(1, len(groups))):
        if groups[position] != groups[position - 1]:
            lines.insert(first + position, r"\addlinespace")
    return lines


def _floats(pages: list[list[list[str]]], caption: str, label: str, notes: list[str], *, rows: int) -> list[str]:
    """Return one float, or several where all would not fit on a page; smaller only where the page is narrower than a two-column one.

    Args:
        pages: Per block of columns its tabulars, one a page of rows.
        caption, label: Of the first float; the others say that they continue it.
        notes: Lines of the footnotes.
        rows: How many the table has.
    """
    together = (
        [[page for block in pages for page in block]] if rows * len(pages) <= ROWS_A_PAGE else [[page] for block in pages for page in block]
    )
    parts = ["% needs \\usepackage{booktabs,graphicx,xcolor}"]
    for number, own in enumerate(together):
        again = r"\addtocounter{table}{-1}\caption{continued}"
        parts += [r"\clearpage"] if number and number % FLOATS_AT_ONCE == 0 else []
        parts += [r"\begin{table*}", r"\centering", caption + rf"\label{{{label}}}" if number == 0 else again]
        parts += [r"\scriptsize\setlength{\tabcolsep}{3pt}"]
        for lines in own:
            fit = r"\ifdim\wd0>\textwidth\resizebox{\textwidth}{!}{\usebox0}\else\usebox0\fi"
            parts += [r"\setbox0=\hbox{%", *lines, "}", fit, r"\par\smallskip"]
        parts += [r"\end{table*}"]
    # in the running text, where they may break: a float that holds them all would be higher than a page
    return [*parts, rf"{{\par\scriptsize\sloppy\noindent Notes to Table~\ref{{{label}}}:\par", *notes, r"\par}"] if notes else parts


def _escape(text: str) -> str:
    """Escape the characters that LaTeX reads as commands; what stands in backticks becomes typewriter, its dashes kept apart."""
    special = {character: "\\" + character for character in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    escaped = text.translate(str.maketrans(special))
    return re.sub(r"`([^`]*)`", lambda match: rf"\texttt{{{match[1].replace('--', '-{}-')}}}", escaped)


def _symbols(text: str) -> str:
    """Replace the signs that old LaTeX engines cannot read."""
    for sign, command in _LATEX.items():
        text = text.replace(sign, command)
    return text
