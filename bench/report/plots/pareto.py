"""Pareto plots: a cost (log) against delta_m, with intervals both ways, the front, and published points where they can be compared."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.pareto import AXES, Axis, pareto_front
from bench.report.plots.labels import place_labels
from bench.report.style import (
    STYLE,
    TEXT_WIDTH_INCHES,
    draw_intervals,
    interval_note,
    keep_in_view,
    leave_margin,
    legend_columns,
    log_axis,
    make_room,
    new_figure,
    set_title,
)

LABELS_AT_MOST = 48
"""Points that get a label; with more of them, only rows on the front do."""

FRONT_LABELS, FRONT_LABELS_SMALL = 24, 8
"""How many of these, in a plot of the text's width and in one of half of it."""


FAMILIES_AT_MOST = 12
"""Families that the legend of several small plots tells apart; where they are more, the points bear names."""


COSTS: Mapping[str, Axis] = {
    "params": AXES["params"],
    "params_without_decoders": Axis(column="trainable_params_without_decoders", scale=1e6, title="Trainable without decoders (M)"),
    **AXES,
}
"""Axes of plots by short name."""


def pareto_numbers(rows: pd.DataFrame, *, cost: str, scale: float) -> pd.DataFrame:
    """Return what a Pareto plot shows.

    Args:
        rows: As `bench.report.stats.row_frame` returns it.
        cost: A count's column, or a measured cost without `_mean`.
        scale: What the cost is divided by.

    Returns:
        Columns label, family, dial, dial_value, cost, cost_low, cost_high, delta_m, delta_m_std, delta_m_low, delta_m_high, n, on_front
        (by the means); rows without delta_m or without a positive cost are left out.
    """
    exact = cost in rows
    numbers = rows[["label", "family", "dial", "dial_value"]].copy()
    numbers["cost"] = rows[cost if exact else f"{cost}_mean"].astype("Float64").to_numpy(dtype=float, na_value=np.nan) / scale
    for end in ("low", "high"):
        numbers[f"cost_{end}"] = np.nan if exact else rows[f"{cost}_{end}"] / scale
    numbers["delta_m"], numbers["n"] = rows["delta_m_mean"], rows["delta_m_n"]
    for part in ("std", "low", "high"):
        numbers[f"delta_m_{part}"] = rows[f"delta_m_{part}"]
    known = (numbers["cost"] > 0) & numbers["delta_m"].notna()
    numbers["on_front"] = pareto_front(numbers["cost"].where(known), numbers["delta_m"])
    return numbers[known].reset_index(drop=True)


def draw_pareto(
    numbers: pd.DataFrame,
    styles: Mapping[str, dict],
    *,
    cost_title: str,
    reference_label: str,
    title: str,
    published: pd.DataFrame | None = None,
) -> Figure:
    """Draw cost (log) against delta_m; dominated rows are faded, published ones hollow.

    Args:
        numbers: As `pareto_numbers` returns it, one row or more.
        styles: As `bench.report.style.family_styles` returns it.
        cost_title: Label of the horizontal axis, with unit.
        reference_label: Row that has a delta_m of zero.
        title: Title of the figure.
        published: Published points, columns label, cost and delta_m; None where the suite cannot be compared with them.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(TEXT_WIDTH_INCHES, 4.2)
        axes = figure.add_subplot()
        axes.set(title=title)
        _draw_points(axes, numbers, styles, cost_title, published)
        arrows = _draw_intervals([(axes, numbers)], styles)
        across = numbers["cost_low"].notna().any()
        handles = [_front_handle(), *_reading_aids(numbers, reference_label, published, arrows=arrows, across=across)]
        if len(numbers) > LABELS_AT_MOST:  # points without names
            handles = [*_family_handles(numbers, styles), *handles]
        columns = legend_columns([str(handle.get_label()) for handle in handles], most=3)
        make_room(figure, -(-len(handles) // columns))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, columnspacing=1.2)
        _label_points(figure, [(axes, numbers)], styles, published)
    return figure


def draw_pareto_grid(parts: Mapping[str, pd.DataFrame], styles: Mapping[str, dict], *, reference_label: str, title: str) -> Figure:
    """Draw one small Pareto plot a cost axis, two beside each other.

    Args:
        parts: Numbers as `pareto_numbers` returns them, by key of `COSTS`; none of them empty.
        styles: As `bench.report.style.family_styles` returns it.
        reference_label: Row that has a delta_m of zero.
        title: Title of the figure.
    """
    with mpl.rc_context(STYLE):
        lines = -(-len(parts) // 2)
        figure = new_figure(TEXT_WIDTH_INCHES, 2.7 * lines + 0.9)
        grid = figure.subplots(lines, 2, squeeze=False, sharey=True).flat
        pairs = []
        for axes, (key, numbers) in zip(grid, parts.items(), strict=False):
            _draw_points(axes, numbers, styles, COSTS[key].title, None)
            pairs.append((axes, numbers))
        for axes in list(grid)[len(parts) :]:
            axes.remove()
        dials = any(numbers["dial_value"].notna().any() for numbers in parts.values())
        set_title(figure, title, *(["Numbers: value of the method's dial"] if dials else []))
        numbers, arrows = max(parts.values(), key=len), _draw_intervals(pairs, styles)
        across = any(own["cost_low"].notna().any() for own in parts.values())
        aids = _reading_aids(numbers, reference_label, None, arrows=arrows, across=across)
        names = len(styles) > FAMILIES_AT_MOST
        handles = [*([] if names else _family_handles(numbers, styles)), _front_handle(), *aids]
        columns = legend_columns([str(handle.get_label()) for handle in handles], most=3)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, columnspacing=1.2)
        _label_points(figure, pairs, styles, None, names=names, most=FRONT_LABELS_SMALL)
    return figure


def _draw_points(axes: Axes, numbers: pd.DataFrame, styles: Mapping[str, dict], cost_title: str, published: pd.DataFrame | None) -> None:
    """Draw all that lies inside of one pair of axes but the labels."""
    axes.set(xlabel=f"{cost_title}, log ↓", ylabel="Δm (%) ↑")
    axes.axhline(0, color="0.4", linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    few = len(numbers) <= LABELS_AT_MOST
    for family, own in numbers.groupby("family", sort=False):
        _draw_family(axes, own, styles[family], joined=few)
    costs = list(numbers["cost"])
    if published is not None:
        axes.plot(published["cost"], published["delta_m"], "o", color="0.35", markerfacecolor="white", markersize=4.5, zorder=3.5)
        costs += list(published["cost"])
    log_axis(axes, costs)
    axes.margins(x=0.08, y=0.1)
    for which, name in (("x", "cost"), ("y", "delta_m")):  # room for the intervals, as far as `keep_in_view` lets them
        widest = [numbers[f"{name}_low"].min(), numbers[f"{name}_high"].max()]
        limits = [*getattr(axes, f"get_{which}lim")(), *(end for end in widest if np.isfinite(end) and (which == "y" or end > 0))]
        getattr(axes, f"set_{which}lim")(min(limits), max(limits))
    scores = [0.0, *numbers["delta_m"], *([] if published is None else published["delta_m"])]
    keep_in_view(axes, scores, "y", spans=0.6)
    keep_in_view(axes, costs, "x", spans=0.25)
    for which, name in (("x", "cost"), ("y", "delta_m")):
        leave_margin(axes, [*numbers[f"{name}_low"], *numbers[f"{name}_high"]], which)
    _draw_front(axes, numbers)


def _draw_intervals(pairs: list, styles: Mapping[str, dict]) -> bool:
    """Draw the intervals once no axis moves any more, for axes may share theirs; return whether any runs out of the frame."""
    return any(
        [
            draw_intervals(axes, _intervals(numbers, styles, which, everywhere=len(numbers) <= LABELS_AT_MOST), which)
            for axes, numbers in pairs
            for which in ("x", "y")
        ]
    )


def _intervals(numbers: pd.DataFrame, styles: Mapping[str, dict], which: str, *, everywhere: bool) -> list:
    """Return the intervals along one axis as `draw_intervals` takes them; where there are too many points, the front's alone."""
    lines = []
    for point in numbers[numbers["on_front"] | everywhere].itertuples():
        look = {"color": styles[point.family]["color"], "alpha": 0.5 if point.on_front else 0.22}
        ends = (point.delta_m, point.cost_low, point.cost_high) if which == "x" else (point.cost, point.delta_m_low, point.delta_m_high)
        lines.append((*ends, look))
    return lines


def _draw_family(axes: Axes, own: pd.DataFrame, style: Mapping, *, joined: bool) -> None:
    """Draw one family's points and joining line."""
    own = own.sort_values("cost")
    if joined and own["dial_value"].nunique() > 1:  # a sweep: rows that differ in something else are no curve
        axes.plot(own["cost"], own["delta_m"], color=style["color"], linewidth=0.8, linestyle=style["linestyle"], alpha=0.45, zorder=2)
    for point in own.itertuples():
        alpha = 1.0 if point.on_front else 0.38
        size = 8 if style["marker"] == "*" else 5
        axes.plot(
            point.cost, point.delta_m, style["marker"], color=style["color"], markeredgewidth=0, markersize=size, alpha=alpha, zorder=4
        )


def _draw_front(axes: Axes, numbers: pd.DataFrame) -> None:
    """Draw the front as steps: at a cost, the best delta_m that no more than this cost gave."""
    front = numbers[numbers["on_front"]].sort_values("cost")
    right = axes.get_xlim()[1]
    cost, score = np.repeat([*front["cost"], right], 2), np.repeat(front["delta_m"], 2)
    axes.plot(cost[1:-1], score, zorder=1.5, color="0.25", linewidth=1.0, linestyle=(0, (4, 2)))
    axes.set_xlim(right=right)


def _front_handle() -> Line2D:
    return Line2D([], [], label="Pareto front", color="0.25", linewidth=1.0, linestyle=(0, (4, 2)))


def _reading_aids(
    numbers: pd.DataFrame, reference_label: str, published: pd.DataFrame | None, *, arrows: bool, across: bool
) -> list[Line2D]:
    """Return the legend entries that explain the signs in use; `across`: whether costs have intervals."""
    handles = [Line2D([], [], color="0.4", linewidth=0.8, linestyle=(0, (1, 2)), label=f"Δm = 0: {reference_label}")]
    if not numbers["on_front"].all():
        handles.append(
            Line2D(
                [],
                [],
                color="0.3",
                marker="o",
                markeredgewidth=0,
                linestyle="none",
                markersize=5,
                alpha=0.38,
                label="faded: dominated",
            )
        )
    if numbers["delta_m_low"].notna().any():
        handles.append(
            Line2D(
                [],
                [],
                color="0.3",
                marker="|",
                linestyle="none",
                markersize=7,
                label=f"lines: {interval_note(numbers['n'])}{'; arrow: it goes on' if arrows else ''}",
            )
        )
    if across:
        look = {"marker": "_", "linestyle": "none", "markersize": 7}
        handles.append(Line2D([], [], color="0.3", label="across: 95 % interval of a measured cost", **look))
    if published is not None:
        look = {"marker": "o", "markerfacecolor": "white", "linestyle": "none", "markersize": 4.5}
        handles.append(Line2D([], [], color="0.35", label="hollow: published, another code base", **look))
    return handles


def _family_handles(numbers: pd.DataFrame, styles: Mapping[str, dict]) -> list[Line2D]:
    """Return a legend entry a family."""
    families = list(dict.fromkeys(numbers["family"]))
    looks = [{"color": styles[family]["color"], "marker": styles[family]["marker"]} for family in families]
    return [
        Line2D([], [], linestyle="none", markeredgewidth=0, markersize=5, label=family, **look)
        for family, look in zip(families, looks, strict=True)
    ]


def _label_points(
    figure: Figure,
    pairs: list,
    styles: Mapping[str, dict],
    published: pd.DataFrame | None,
    *,
    names: bool = True,
    most: int = FRONT_LABELS,
) -> None:
    """Name each family at its point of the highest cost, and write the dial's value beside the others; without names the values alone."""
    limits = [axes.get_ylim() for axes, _ in pairs]
    figure.canvas.draw()  # the layout must be final
    figure.set_layout_engine("none")
    for (axes, numbers), limit in zip(pairs, limits, strict=True):
        axes.set_ylim(limit)
        shown = point_labels(numbers, names=names, most=most)
        shown["color"] = [styles[family]["color"] for family in shown["family"]]
        if published is not None:
            shown = pd.concat([shown, published.assign(text=published["label"], color="#595959")], ignore_index=True)
        place_labels(
            axes, x=list(shown["cost"]), y=list(shown["delta_m"]), texts=list(shown["text"]), colors=list(shown["color"]), size=6.5
        )


def point_labels(numbers: pd.DataFrame, *, names: bool = True, most: int = FRONT_LABELS) -> pd.DataFrame:
    """Return the points that get a label, with its `text`: the row's label once a family, else the value of the dial.

    Without names, points of a family that was swept bear the value of its dial, the others nothing. Of many points, `most` of the front's.
    """
    if not names:
        swept = numbers.groupby("family")["dial_value"].transform("nunique") > 1
        shown = numbers[swept & (numbers["on_front"] | (len(numbers) <= LABELS_AT_MOST))].copy()
        return shown.assign(text=[f"{value:g}" for value in shown["dial_value"]])
    shown = numbers.copy()
    if len(numbers) > LABELS_AT_MOST:  # of a long front, points all along it
        front = numbers[numbers["on_front"]].sort_values("cost", kind="stable")
        shown = front.iloc[np.unique(np.linspace(0, len(front) - 1, min(most, len(front))).round().astype(int))].sort_index()
    named = set(shown.groupby("family")["cost"].idxmax())
    alone = shown["dial_value"].isna() | shown.index.isin(named)
    shown["text"] = [row.label if whole else f"{row.dial_value:g}" for row, whole in zip(shown.itertuples(), alone, strict=True)]
    return shown
