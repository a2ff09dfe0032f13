"""A printed table as LaTeX (booktabs), in ASCII alone."""

import numpy as np

from bench.report.footnotes import MINUS
from bench.report.tables import DAGGER, DASH, LEFT, MainTable

ROWS_A_PAGE = 45
_LATEX = {
    "±": r"$\pm$", MINUS: "$-$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δm": r"$\Delta_m$", DASH: "--", "°": r"$^{\circ}$",
    "“": "``", "”": "''", "ρ": r"$\rho$", "α": r"$\alpha$", "λ": r"$\lambda$", DAGGER: r"$^{\dagger}$",
    "–": "--", "×": r"$\times$", "≤": r"$\leq$",
}  # fmt: skip


def to_latex(table: MainTable, *, label: str) -> str:
    """Return a `table*` float, or a `longtable` where the rows would not fit on a page; needs the packages named in its first line.

    Args:
        table: The table.
        label: LaTeX label of the float.
    """
    styler = table.cells.style.format(escape="latex").format_index(escape="latex", axis="columns").hide(axis="index")
    styler = styler.apply(lambda _: np.where(table.bold, "textbf: --rwrap;", ""), axis=None)
    recalled = table.cells.map(lambda text: text.endswith(DAGGER)).to_numpy()
    styler = styler.apply(lambda _: np.where(recalled, "textcolor{gray}: --rwrap;itshape: ;", ""), axis=None)
    align = "".join("l" if head in LEFT else "r" for head in table.cells.columns)
    lines = styler.to_latex(hrules=True, column_format=align).splitlines()
    first = next(number for number, line in enumerate(lines) if line == r"\midrule") + 1
    for position in reversed(range(1, len(table.groups))):
        if table.groups[position] != table.groups[position - 1]:
            lines.insert(first + position, r"\addlinespace")
    notes = [_escape(note) + r"\par" for note in table.footnotes]
    caption, mark = rf"\caption{{{_escape(table.title)}}}", rf"\label{{{label}}}"
    if len(table.cells) > ROWS_A_PAGE:
        head = lines[lines.index(r"\toprule") : lines.index(r"\midrule") + 1]
        body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
        parts = [
            "% needs \\usepackage{booktabs,longtable,xcolor}",
            r"{\tiny\setlength{\tabcolsep}{1.5pt}",
            rf"\begin{{longtable}}{{{align}}}",
            caption + mark + r"\\",
            *head,
            r"\endhead",
            *body,
            r"\bottomrule",
            r"\end{longtable}}",
            r"{\footnotesize",
            *notes,
            "}",
        ]
    else:
        parts = [
            "% needs \\usepackage{booktabs,graphicx,xcolor}",
            r"\begin{table*}",
            r"\centering",
            caption,
            mark,
            r"\resizebox{\textwidth}{!}{%",
            *lines,
            "}",
            r"\par\smallskip",
            r"\begin{minipage}{\textwidth}\footnotesize",
            *notes,
            r"\end{minipage}",
            r"\end{table*}",
        ]
    return _symbols("\n".join(parts)) + "\n"


def _escape(text: str) -> str:
    """Escape the characters that LaTeX reads as commands."""
    special = {character: "\\" + character for character in "&%$#_{}"} | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    return text.translate(str.maketrans(special))


def _symbols(text: str) -> str:
    """Replace the signs that old LaTeX engines cannot read."""
    for sign, command in _LATEX.items():
        text = text.replace(sign, command)
    return text
