"""What training does to each task: change of every row against single-task training, as bars and as the task-interference matrix.

Change: 100 * s * (row - counterpart) / counterpart of a task's headline metric, s = -1 where lower is better, so that positive is better.
Bars use one counterpart, the reference row of delta_m. The matrix asks what sharing one model does to a task: a multi-task row is compared
with the row of the same configuration that trains one model a task where the suite has one, else with the reference.

The interval of a change joins both rows' 95 % intervals as independent: half widths add in quadrature.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.report.intervals import half_width
from bench.report.stats import metric_column
from bench.report.style import (
    STYLE,
    TEXT_WIDTH_INCHES,
    bar_look,
    draw_intervals,
    interval_note,
    keep_in_view,
    leave_margin,
    legend_columns,
    new_figure,
    present_families,
    set_title,
)
from bench.tasks import TASKS

ROWS_AT_MOST = 40
"""Rows that a figure holds; of more, the best of each family and then the next best by delta_m are shown."""

FAMILIES_AT_MOST = 12
"""Families that a legend of bars names."""


def change_numbers(rows: pd.DataFrame, *, tasks: Sequence[str]) -> pd.DataFrame:
    """Return each row's change per task against the reference row of delta_m.

    Returns:
        Columns label, family, kind, task, against, change, low, high (percent; low and high missing with one seed); empty where the
        reference has no complete seed.
    """
    reference = rows[rows["is_reference"] & (rows["seeds_complete"] > 0)]
    if reference.empty:
        return pd.DataFrame()
    lines = [_change(row, reference.iloc[0], task) for _, row in rows.iterrows() if not row["is_reference"] for task in tasks]
    return pd.DataFrame([line for line in lines if line is not None])


def interference_numbers(rows: pd.DataFrame, cells: Mapping[str, str], *, tasks: Sequence[str]) -> pd.DataFrame:
    """Return what sharing does to each task: every multi-task row against its single-task counterpart.

    Args:
        rows: As `bench.report.stats.row_frame` returns it.
        cells: Cell id per label: two rows of one cell are one configuration.
        tasks: Tasks to compare.

    Returns:
        Columns as `change_numbers`, `own` (bool): the counterpart is the same configuration, one model a task; and `told_apart`: what the
        test of the table, corrected for all pairs of the column, says of the two; missing without a test.
    """
    complete = rows[rows["seeds_complete"] > 0]
    singles = complete[complete["kind"] == "single_task"]
    by_cell = {cells[row["label"]]: row for _, row in singles.iterrows()}
    reference = singles[singles["is_reference"]]
    lines = []
    for _, row in complete[complete["kind"] == "multi_task"].iterrows():
        own = by_cell.get(cells[row["label"]])
        counterpart = own if own is not None else (reference.iloc[0] if len(reference) else None)
        if counterpart is not None:
            changes = {task: _change(row, counterpart, task) for task in tasks}
            lines += [
                change | {"own": own is not None, "told_apart": row[f"{metric_column(task)}_apart_from_single"]}
                for task, change in changes.items()
                if change is not None
            ]
    return pd.DataFrame(lines)


def _change(row: pd.Series, counterpart: pd.Series, task: str) -> dict | None:
    """Return one change with its interval, None where one of the two has no value or the counterpart's is zero."""
    quantity = metric_column(task)
    mean, base = row[f"{quantity}_mean"], counterpart[f"{quantity}_mean"]
    if pd.isna(mean) or pd.isna(base) or base == 0:
        return None
    change = 100 * (1 if TASKS[task].higher_is_better else -1) * (mean - base) / base
    half = [half_width(part[f"{quantity}_std"], part[f"{quantity}_n"]) for part in (row, counterpart)]
    width = 100 * np.hypot(*half) / abs(base)
    names = {"label": row["label"], "family": row["family"], "kind": row["kind"], "task": task, "against": counterpart["label"]}
    return names | {"change": change, "low": change - width, "high": change + width}


def shown_labels(rows: pd.DataFrame, labels: Sequence[str], limit: int = ROWS_AT_MOST) -> list[str]:
    """Choose the rows that a figure of limited height shows: the best of each family, then the next best by delta_m; in their order."""
    own = rows[rows["label"].isin(set(labels))]
    if len(own) <= limit:
        return list(own["label"])
    ranked = own.sort_values("delta_m_mean", ascending=False, na_position="last", kind="stable")
    first = ranked.drop_duplicates("family").index[:limit]
    rest = ranked.index.difference(first, sort=False)[: limit - len(first)]
    return list(own.loc[sorted([*first, *rest])]["label"])


def selection_note(shown: int, present: int) -> str:
    """Say in a title which rows are left out, or nothing."""
    return "" if shown == present else f"\n{shown} of {present} rows: the best of each family, then the next best; all are in the CSV"


def draw_task_bars(numbers: pd.DataFrame, rows: pd.DataFrame, styles: Mapping[str, dict], *, title: str) -> Figure:
    """Draw one panel a task, one bar a row, with 95 % intervals.

    Args:
        numbers: As `change_numbers` returns it, one line or more.
        rows: As `bench.report.stats.row_frame` returns it, for the order.
        styles: As `bench.report.style.family_styles` returns it.
        title: Title of the figure.
    """
    tasks, present = list(dict.fromkeys(numbers["task"])), list(dict.fromkeys(numbers["label"]))
    labels = shown_labels(rows, present)
    with mpl.rc_context(STYLE):
        figure = new_figure(TEXT_WIDTH_INCHES, max(2.2, 1.3 + 0.17 * len(labels)))
        grid = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
        arrows = False
        for axes, task in zip(grid, tasks, strict=True):
            own = numbers[numbers["task"] == task].set_index("label").reindex(labels)
            at = np.arange(len(labels))
            for family, bars in own.assign(at=at).dropna(subset="change").groupby("family", sort=False):
                axes.barh(bars["at"], bars["change"], height=0.72, alpha=0.85, **bar_look(styles[family]))
            for place in at[own["change"].isna().to_numpy()]:
                axes.text(0, place, " no value", va="center", fontsize=6, color="0.4")
            axes.axvline(0, color="0.2", linewidth=0.7)
            axes.set_xlim(*(_room(own) if own["change"].notna().any() else (-1, 1)))
            keep_in_view(axes, [0.0, *own["change"].dropna()], "x", spans=0.75)
            leave_margin(axes, [*own["low"].astype(float), *own["high"].astype(float)], "x")
            lines = zip(at, own["low"].astype(float), own["high"].astype(float), [{"color": "0.25", "alpha": 0.8}] * len(at), strict=True)
            arrows |= draw_intervals(axes, lines, "x")
            axes.set(title=f"{TASKS[task].title}\n{TASKS[task].metric_title}", xlabel="change (%)")
            axes.grid(axis="y", visible=False)
        grid[0].set_yticks(np.arange(len(labels)), labels, fontsize=6.5)
        grid[0].set_ylim(len(labels) - 0.4, -0.6)
        note = selection_note(len(labels), len(present))
        shown = present_families(styles, numbers.loc[numbers["label"].isin(labels), "family"])
        if len(shown) <= FAMILIES_AT_MOST:  # of more, the rows' names alone say which bar is whose
            handles = [Patch(**bar_look(styles[family]), alpha=0.85, label=family) for family in shown]
            figure.legend(handles=handles, loc="outside lower center", ncols=legend_columns(shown), frameon=False, columnspacing=1.2)
        said = (
            f"Change against {numbers['against'].iloc[0]}, positive is better; lines: {interval_note(rows['seeds_complete'])}, both rows'"
        )
        set_title(figure, title, f"{said}{', arrow: it goes on' if arrows else ''}{note}")
    return figure


def _room(own: pd.DataFrame) -> tuple[float, float]:
    """Return limits that hold bars and intervals, with a margin."""
    ends = own[["change", "low", "high"]].to_numpy(dtype=float)
    low, high = min(np.nanmin(ends), 0.0), max(np.nanmax(ends), 0.0)
    return low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9


def draw_interference(numbers: pd.DataFrame, rows: pd.DataFrame, *, title: str) -> Figure:
    """Draw the task-interference matrix: a line a multi-task row, a column a task; bold where the corrected test tells both apart.

    Args:
        numbers: As `interference_numbers` returns it, one line or more.
        rows: As `bench.report.stats.row_frame` returns it, for the order.
        title: Title of the figure.
    """
    import seaborn

    tasks, present = list(dict.fromkeys(numbers["task"])), list(dict.fromkeys(numbers["label"]))
    labels = shown_labels(rows, present)
    table = {name: numbers.pivot(index="label", columns="task", values=name).reindex(labels)[tasks] for name in ("change", "told_apart")}
    own = dict(zip(numbers["label"], numbers["own"], strict=True))
    apart = table["told_apart"].eq(True).to_numpy()
    largest = float(np.nanmax(np.abs(table["change"].to_numpy(dtype=float)))) or 1.0
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        figure = new_figure(min(TEXT_WIDTH_INCHES, 4.0 + 0.6 * len(tasks)), max(2.2, 1.05 + 0.19 * len(labels)))
        axes = figure.add_subplot()
        values = table["change"].astype(float)
        texts = values.map(_signed)
        seaborn.heatmap(
            values, ax=axes, cmap="PuOr_r", norm=TwoSlopeNorm(0, -largest, largest), annot=texts, fmt="", annot_kws={"fontsize": 6.5},
            linewidths=0.5, cbar_kws={"label": "change (%), positive is better", "shrink": min(1.0, 6 / max(len(labels), 6) + 0.4)},
        )  # fmt: skip
        for text, bold in zip(axes.texts, apart[values.notna().to_numpy()].flat, strict=True):
            text.set_fontweight("bold" if bold else "normal")
        axes.set_yticks(np.arange(len(labels)) + 0.5, [label + ("" if own[label] else " *") for label in labels], rotation=0, fontsize=6.5)
        axes.set_xticks(np.arange(len(tasks)) + 0.5, [TASKS[task].title for task in tasks], rotation=0)
        axes.set(xlabel="", ylabel="")
        lines = [title, f"Task interference: one model for all tasks against one a task{selection_note(len(labels), len(present))}"]
        lines.append(test_note(numbers, rows))
        if (reference := next((line.against for line in numbers.itertuples() if not line.own), None)) is not None:
            lines.append(f"* against {reference}")
        figure.set_figheight(figure.get_figheight() + 0.12 * len(lines))
        set_title(figure, *lines, size=7)
    return figure


def test_note(numbers: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Say what bold means in the matrix.

    Args:
        numbers: As `interference_numbers` returns it.
        rows: As `bench.report.stats.row_frame` returns it, for what the tests resample.
    """
    if numbers["told_apart"].isna().all():
        return "nothing is bold: there is no test"
    counted = dict.fromkeys(rows[f"{metric_column(task)}_resampled"].iloc[0] for task in dict.fromkeys(numbers["task"]))
    chance = " or ".join(counted)
    return f"bold: told apart at 5 % by the table's paired tests\n(chance counted: {chance}; Holm over all pairs of rows of a task)"


def _signed(value: float) -> str:
    """Format a change to one digit; what rounds to zero has no sign, what is not known is empty."""
    if pd.isna(value):
        return ""
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")
