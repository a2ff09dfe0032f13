"""The main table as a paper prints it, written as CSV (raw numbers) and Markdown, and shown in a terminal (rich); `latex` and
`table_html` write it for a paper and a browser.

A cell that ends in a dagger holds a number that was only recalled: it is printed in grey italics.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from bench.report.footnotes import MINUS
from bench.report.stats import HELD_OUT, metric_column
from bench.tasks import TASKS

DASH, DAGGER = "\N{EM DASH}", "\N{DAGGER}"
MIB = 2**20
LEFT = ("Method", "Seeds", "Evidence", "Quantity", "Inside")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One numeric column of the printed table.

    Attributes:
        head: Column head with unit and arrow.
        mean: Column of the row frame that holds the number.
        spread: Quantity whose `_low` and `_high` columns hold its interval, or None where seeds cannot differ.
        tied: Column of the row frame that marks the best and what is not told apart from it; None: the best at the digits shown, of times
            all whose simultaneous interval reaches the best one's.
        scale: What the number is divided by.
        decimals: Digits after the point; None: as many as the smallest number needs for three significant ones, at most three.
        higher_is_better: Direction.
        signed: Show a plus sign.
        compact: Shown in a narrow terminal too.
    """

    head: str
    mean: str
    spread: str | None = None
    tied: str | None = None
    scale: float = 1.0
    decimals: int | None = None
    higher_is_better: bool = False
    signed: bool = False
    compact: bool = False


@dataclass(frozen=True, kw_only=True)
class MainTable:
    """The printed table: what stands in each cell, what is bold, and what a reader must know.

    Attributes:
        title: Title, which says so where results are incomplete.
        cells: Text per cell, one line a row; columns Method, Seeds and the numeric ones.
        bold: Bool per cell.
        groups: (rows,) name of each line's group, for the gaps between them: a family, or empty for the baselines.
        footnotes: Sentences below the table.
        compact: Names of the columns that a narrow terminal shows.
    """

    title: str
    cells: pd.DataFrame
    bold: pd.DataFrame
    groups: Sequence[str]
    footnotes: Sequence[str] = field(default_factory=tuple)
    compact: Sequence[str] = field(default_factory=tuple)


def columns(tasks: Sequence[str], rows: pd.DataFrame) -> list[Column]:
    """Return the numeric columns for tasks, in printed order; second columns by other rules only where the row frame holds them."""
    of_task = [
        Column(
            head=f"{TASKS[task].title} {TASKS[task].metric_title} {'↑' if TASKS[task].higher_is_better else '↓'}",
            mean=f"{metric_column(task)}_mean",
            spread=metric_column(task),
            tied=f"{metric_column(task)}_tied_best",
            decimals=2,
            higher_is_better=TASKS[task].higher_is_better,
            compact=True,
        )
        for task in tasks
    ]
    change = {"decimals": 2, "higher_is_better": True, "signed": True}
    others = {
        f"delta_m{HELD_OUT}": "Δm, epoch chosen on held-out (%) ↑",
        "delta_m_published_reference": "Δm against published references (%) ↑",
    }
    return [
        Column(head="Trainable (M) ↓", mean="trainable_params", scale=1e6, compact=True),
        Column(head="w/o decoders (M) ↓", mean="trainable_params_without_decoders", scale=1e6),
        *of_task,
        Column(head="Δm (%) ↑", mean="delta_m_mean", spread="delta_m", tied="delta_m_tied_best", compact=True, **change),
        *(Column(head=head, mean=f"{name}_mean", spread=name, **change) for name, head in others.items() if f"{name}_mean" in rows),
        Column(head="Step memory (MiB) ↓", mean="step_memory_bytes_mean", spread="step_memory_bytes", scale=MIB, compact=True),
        Column(head="GFLOPs / image ↓", mean="flops_per_image_mean", scale=1e9),
        Column(head="GFLOPs merged ↓", mean="merged_flops_per_image_mean", scale=1e9),
        Column(head="Inference (ms) ↓", mean="inference_seconds_mean", spread="inference_seconds", scale=1e-3),
        Column(head="Inference merged (ms) ↓", mean="merged_inference_seconds_mean", spread="merged_inference_seconds", scale=1e-3),
        Column(head="Step (ms) ↓", mean="step_seconds_mean", spread="step_seconds", scale=1e-3),
    ]


def main_table(rows: pd.DataFrame, *, tasks: Sequence[str], title: str, footnotes: Sequence[str] = ()) -> MainTable:
    """Format the row frame as a paper prints it.

    Args:
        rows: As `bench.report.stats.row_frame` returns it.
        tasks: Tasks that get a column.
        title: Title of the table.
        footnotes: As `bench.report.footnotes.footnotes` returns them.
    """
    cells = pd.DataFrame(
        {
            "Method": rows["label"],
            "Seeds": [_seeds(row) for row in rows.itertuples()],
            "One path": rows["single_path"].map({True: "yes", False: "no"}).fillna(DASH),
        }
    )
    bold = pd.DataFrame(False, index=cells.index, columns=cells.columns)
    shown = columns(tasks, rows)
    for column in shown:
        cells[column.head], bold[column.head] = _format(rows, column)
        if column.mean == "delta_m_mean":
            cells["Rank"] = [_rank(row) for row in rows.itertuples()]
            bold["Rank"] = False
    return MainTable(
        title=title,
        cells=cells,
        bold=bold,
        groups=list(rows["family"].where(rows["dial"].notna(), "")),
        footnotes=tuple(footnotes),
        compact=tuple(column.head for column in shown if column.compact),
    )


def _seeds(row: tuple) -> str:
    """Return "2", or "1/2: " and what the others lack."""
    if row.seeds_complete == row.seeds_planned:
        return str(row.seeds_complete)
    return f"{row.seeds_complete}/{row.seeds_planned}: {row.missing}"


def _rank(row: tuple) -> str:
    """Return the ranks that chance leaves open, such as "2–5"."""
    if pd.isna(row.rank_low):
        return DASH
    return str(row.rank_low) if row.rank_low == row.rank_high else f"{row.rank_low}–{row.rank_high}"


def _format(rows: pd.DataFrame, column: Column) -> tuple[list[str], np.ndarray]:
    """Return the texts of a column, and which of them are its best: by test where there is one, else at the digits shown."""
    mean = rows[column.mean].astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan) / column.scale
    ends = np.full((2, len(mean)), np.nan)
    if column.spread is not None:
        ends = rows[[f"{column.spread}_low", f"{column.spread}_high"]].to_numpy(dtype=np.float64).T / column.scale
    decimals = _decimals(mean) if column.decimals is None else column.decimals
    if column.decimals is None and not (np.nan_to_num(ends[1] - ends[0]).round(decimals) > 0).any():
        ends = np.full((2, len(mean)), np.nan)  # a cost that seeds agree on
    texts = [_number(value, low, high, decimals, signed=column.signed) for value, low, high in zip(mean, *ends, strict=True)]
    rounded = mean.round(decimals)
    known = ~np.isnan(rounded)
    if not known.any():
        return texts, known
    tested = column.tied is not None and (rows[column.tied.replace("_tied_best", "_resampled")] != "nothing").all()
    if tested:
        best = rows[column.tied].to_numpy(dtype=bool)
        return texts, best & (not best[known].all())
    best = rounded == (np.nanmax(rounded) if column.higher_is_better else np.nanmin(rounded))
    if f"{column.spread}_joint_low" in rows:
        low, high = (rows[f"{column.spread}_joint_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        best = low <= np.nanmin(high)
    return texts, best & (best.sum() <= len(best) / 2)


def _decimals(values: np.ndarray) -> int:
    """Return the digits after the point that give the smallest positive value three significant ones, within 0 and 3."""
    positive = values[values > 0]
    return 3 if not len(positive) else int(np.clip(2 - np.floor(np.log10(positive.min())), 0, 3))


def _number(mean: float, low: float, high: float, decimals: int, *, signed: bool) -> str:
    """Format a mean with its interval where there is one: half of it where both sides are alike at the digits shown, else its ends."""
    if np.isnan(mean):
        return DASH
    shown = with_sign(mean, decimals, plus=signed)
    if np.isnan(low):
        return shown
    below, above = (f"{side:.{decimals}f}" for side in (mean - low, high - mean))
    if below == above or abs((mean - low) - (high - mean)) < 10**-decimals:
        return f"{shown} ± {(high - low) / 2:.{decimals}f}"
    return f"{shown} [{with_sign(low, decimals, plus=signed)}, {with_sign(high, decimals, plus=signed)}]"


def with_sign(value: float, decimals: int, *, plus: bool) -> str:
    """Format a number with a true minus sign; what rounds to zero has no sign."""
    size = f"{abs(value):.{decimals}f}"
    return ("" if float(size) == 0 else MINUS if value < 0 else "+" if plus else "") + size


def to_csv(rows: pd.DataFrame) -> str:
    """Return the raw numbers: one line a row, mean, std, n and interval in columns of their own, what is not known left empty."""
    return rows.to_csv(index=False, lineterminator="\n")


def to_markdown(table: MainTable) -> str:
    """Return title, table and footnotes as Markdown (GitHub flavour)."""
    escaped = table.cells.map(lambda text: text.replace("|", r"\|"))
    marked = escaped.where(~table.bold, "**" + escaped + "**").map(lambda text: f"*{text}*" if text.endswith(DAGGER) else text)
    align = ["left" if head in LEFT else "right" for head in marked.columns]
    body = marked.to_markdown(index=False, disable_numparse=True, colalign=align)
    return f"# {table.title}\n\n{body}\n\n" + "".join(f"- {note}\n" for note in table.footnotes)


def to_rich(table: MainTable, *, width: int = 200) -> Table:
    """Return the table for a terminal.

    Args:
        table: The table.
        width: Columns of the terminal; below 180 only the main columns are shown, below 120 without the spread.
    """
    heads = list(table.cells.columns) if width >= 180 else ["Method", *table.compact]
    incomplete = table.cells["Seeds"].str.contains("/")
    notes = [f"{label}: {seeds}" for label, seeds in zip(table.cells["Method"][incomplete], table.cells["Seeds"][incomplete], strict=True)]
    caption = Text("\n".join(notes)) if notes else None
    narrow = width < 120
    shown = Table(
        title=Text(table.title), caption=caption, caption_justify="left", box=SIMPLE_HEAD, collapse_padding=narrow, pad_edge=not narrow
    )
    for head in heads:
        shown.add_column(head.replace(" ", "\n"), justify="left" if head in LEFT else "right")
    for position, line in table.cells[heads].iterrows():
        texts = [
            text.split(" ±")[0].split(" [")[0] if narrow and head != "Method" else text for head, text in zip(heads, line, strict=True)
        ]
        styles = ["bold" if mark else "" for mark in table.bold.loc[position, heads]]
        ends = position + 1 < len(table.groups) and table.groups[position] != table.groups[position + 1]
        shown.add_row(*(Text(text, style=style) for text, style in zip(texts, styles, strict=True)), end_section=ends)
    return shown


def printed_parts(heads: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Split the columns into two tables that a sheet of paper holds at a size that can be read: results and costs, both with the method."""
    scores = tuple(task.title for task in TASKS.values())
    results = [place for place, head in enumerate(heads) if head in ("Seeds", "Rank") or head.startswith((*scores, "Δm"))]
    costs = [place for place in range(1, len(heads)) if place not in results]
    if all(heads[place] in ("Seeds", "Rank") for place in results):  # a table of another kind
        return [("", list(range(len(heads))))]
    return [(title, [0, *places]) for title, places in (("Results", results), ("Costs", costs)) if places]
