"""Curves over a method's dial: every task and delta_m against rank, reduction, ..., with 95 % bands."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from bench.report.stats import metric_column
from bench.report.style import STYLE, TEXT_WIDTH_INCHES, interval_note, keep_in_view, legend_columns, make_room, new_figure, set_title
from bench.tasks import TASKS

FAMILIES_AT_MOST = 10
"""Baselines that are drawn as lines, and families that have bands in one panel; more of them would hide the curves."""

POINTS_AT_MOST = 60
"""In one panel; the families of a dial with more of them are spread over further lines of panels."""

LINES_AT_MOST = 7
"""Lines of panels on a page, if every dial and the longest sweep allow it."""

TICKS, MARKERS = 5, 14
"""How many of a panel's dial values get a tick, and of a curve's points a marker, at most."""


def curve_numbers(rows: pd.DataFrame, *, tasks: Sequence[str]) -> pd.DataFrame:
    """Return what the rank curves show, one line a point: families whose dial took two values or more, and the baselines without a dial.

    Returns:
        Columns panel (a task or "delta_m"), family, label, dial, dial_value, mean, std, low, high, n, trainable_params; a baseline has no
        dial.
    """
    values = rows[rows["seeds_complete"] > 0].groupby("family")["dial_value"].nunique()
    wanted = rows[rows["family"].isin(values[values > 1].index) | rows["dial"].isna()]
    if not wanted["dial"].notna().any():
        return pd.DataFrame()
    lines = []
    for panel, quantity in [(task, metric_column(task)) for task in tasks] + [("delta_m", "delta_m")]:
        part = wanted[["family", "label", "dial", "dial_value", "trainable_params"]].assign(panel=panel)
        lines.append(part.assign(**{name: wanted[f"{quantity}_{name}"] for name in ("mean", "std", "low", "high", "n")}))
    return pd.concat(lines, ignore_index=True).dropna(subset=["mean"])


def draw_rank_curves(numbers: pd.DataFrame, styles: Mapping[str, dict], *, title: str) -> Figure:
    """Draw small multiples: a column a task and delta_m, a line of panels a dial (rank, reduction, ...), baselines as horizontal lines.

    A dial with many points has several lines of panels, of some families each.

    Args:
        numbers: As `curve_numbers` returns it, one row or more.
        styles: As `bench.report.style.family_styles` returns it.
        title: Title of the figure.
    """
    panels = list(dict.fromkeys(numbers["panel"]))
    lines = panel_lines(numbers)
    with mpl.rc_context(STYLE):
        figure = new_figure(TEXT_WIDTH_INCHES, 1.1 + 1.5 * len(lines))
        grid = figure.subplots(len(lines), len(panels), squeeze=False, sharey="col")
        for line, (dial, families) in zip(grid, lines, strict=True):
            for axes, panel in zip(line, panels, strict=True):
                own = numbers[numbers["panel"] == panel]
                _draw_baselines(axes, own[own["dial"].isna()], styles)
                _draw_curves(axes, own[(own["dial"] == dial) & own["family"].isin(families)], styles)
                axes.set_xlabel(dial.replace("_", " "))
        for axes, panel in zip(grid[0], panels, strict=True):
            axes.set_title(panel_title(panel))
        set_title(figure, f"{title}; bands: {interval_note(numbers['n'])}, cut at the frame")
        handles = _curve_handles(numbers, styles)
        columns = legend_columns([handle.get_label() for handle in handles])
        make_room(figure, -(-len(handles) // columns))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def panel_lines(numbers: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return the dial and the families of each line of panels: one line a dial, more of them where its points would hide each other.

    Args:
        numbers: As `curve_numbers` returns it.
    """
    own = numbers[(numbers["panel"] == numbers["panel"].iloc[0]) & numbers["dial"].notna()]
    room = max(POINTS_AT_MOST, -(-len(own) // LINES_AT_MOST))
    lines = []
    for dial, points in own.groupby("dial", sort=False):
        filled = np.inf
        for family, count in points.groupby("family", sort=False).size().items():
            if filled + count > room:
                lines.append((dial, []))
                filled = 0
            lines[-1][1].append(family)
            filled += count
    return lines


def panel_title(panel: str) -> str:
    """Return the title of a task's panel, or delta_m's, with unit and direction."""
    if panel == "delta_m":
        return "Δm\n(%) ↑"
    task = TASKS[panel]
    return f"{task.title}\n{task.metric_title} ({task.unit}) {'↑' if task.higher_is_better else '↓'}"


def _baselines(own: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(own["family"]))[:FAMILIES_AT_MOST]


def _draw_baselines(axes: Axes, own: pd.DataFrame, styles: Mapping[str, dict]) -> None:
    """Draw rows without a dial as horizontal lines; bands are left to the curves."""
    for point in own[own["family"].isin(_baselines(own))].itertuples():
        style = styles[point.family]
        axes.axhline(point.mean, color=style["color"], linestyle=style["linestyle"], linewidth=0.9, zorder=1)


def _draw_curves(axes: Axes, own: pd.DataFrame, styles: Mapping[str, dict]) -> None:
    """Draw each family's metric over its dial with its band; more parameters lie to the right."""
    for family, points in own.groupby("family", sort=False):
        points, style = points.sort_values("dial_value"), styles[family]
        at = points["dial_value"].astype(float)
        marked = _apart(list(at), MARKERS)
        axes.plot(
            at, points["mean"], color=style["color"], marker=style["marker"], linestyle=style["linestyle"], markersize=3.5, linewidth=1.0,
            markevery=[place for place, value in enumerate(at) if value in marked],
        )  # fmt: skip
        if own["family"].nunique() <= FAMILIES_AT_MOST:
            low, high = (points[end].astype(float) for end in ("low", "high"))
            axes.fill_between(at, low, high, color=style["color"], alpha=0.09, linewidth=0, zorder=0.5)
            for end in (low, high):  # edges tell bands apart where they lie over each other
                axes.plot(at, end, color=style["color"], linewidth=0.5, alpha=0.6, linestyle=style["linestyle"], zorder=0.6, scaley=False)
    ticks = sorted(own["dial_value"].astype(float).unique())
    if ticks and ticks[0] > 0:
        axes.set_xscale("log", base=2)
    shown = _apart(ticks, TICKS)
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.15)
    drawn = [float(value) for line in axes.lines if line.get_zorder() >= 1 for value in np.atleast_1d(line.get_ydata())]
    keep_in_view(axes, drawn, "y", spans=1.0)
    by_value = own.groupby("dial_value")["trainable_params"].mean()
    if len(by_value) > 1 and by_value.iloc[0] > by_value.iloc[-1]:
        axes.invert_xaxis()


def _apart(values: list[float], most: int) -> list[float]:
    """Return all of `most` ascending values of a dial or fewer, else those that lie apart on the axis, ends included."""
    if len(values) <= most or values[0] <= 0:
        return values[:: max(1, -(-len(values) // most))]
    step, shown = (values[-1] / values[0]) ** (1 / (most - 1)), [values[-1]]
    for value in reversed(values[:-1]):
        if shown[-1] / value >= 0.999 * step:
            shown.append(value)
    return shown[::-1]


def _curve_handles(numbers: pd.DataFrame, styles: Mapping[str, dict]) -> list[Line2D]:
    """Return the legend entries: families with a dial by marker and dash, baselines by dash."""
    handles = []
    shown = _baselines(numbers[numbers["dial"].isna()])
    for family, own in numbers.groupby("family", sort=False):
        style, baseline = styles[family], own["dial"].isna().all()
        if baseline and family not in shown:
            continue
        look = {} if baseline else {"marker": style["marker"], "markersize": 3.5}
        label = own["label"].iloc[0] if baseline else family
        handles.append(Line2D([], [], color=style["color"], linestyle=style["linestyle"], label=label, **look))
    return handles
