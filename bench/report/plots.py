"""Figures from the row frame: Pareto fronts (cost against delta_m) and curves over a method's dial, each as PNG, PDF and CSV.

Sized for the text width of a two-column paper. A method family keeps one colour and one marker; families without a dial (baselines) are
grey. The figures read in grey print and with any colour vision. The files hold no dates: the same records give the same bytes.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from bench.report.labels import place_labels
from bench.report.stats import metric_column, pareto_front
from bench.tasks import TASKS

TEXT_WIDTH_INCHES = 7.0
STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "axes.formatter.useoffset": False,
    "font.family": "DejaVu Sans", "pdf.fonttype": 42, "ps.fonttype": 42, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "0.92", "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.linewidth": 0.6, "svg.hashsalt": "report",
}  # fmt: skip
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31")  # Okabe and Ito, without black and yellow
_GREYS = ("0.0", "0.35", "0.55", "0.7")
_MARKERS, _GREY_MARKERS = ("o", "s", "^", "D", "v", "p", "h", "<", ">"), ("*", "P", "X", "d")
_DASHES = ("-", "--", ":", "-.")


def family_styles(rows: pd.DataFrame) -> dict[str, dict]:
    """Give each family its colour and marker, in the order of the rows.

    Returns:
        Per family `color`, `marker` and `linestyle`; families without a dial are grey.
    """
    styles: dict[str, dict] = {}
    with_dial = rows.groupby("family", sort=False)["dial"].first().notna()
    for families, colors, markers in (
        (with_dial[with_dial].index, _PALETTE, _MARKERS),
        (with_dial[~with_dial].index, _GREYS, _GREY_MARKERS),
    ):
        for position, family in enumerate(families):
            styles[family] = {
                "color": colors[position % len(colors)],
                "marker": markers[position % len(markers)],
                "linestyle": _DASHES[position % len(_DASHES)],
            }
    return styles


def family_name(own: pd.DataFrame) -> str:
    """Name a family in a legend: its only row's label, or its title with the dial that its points are labelled with."""
    if len(own) == 1:
        return own["label"].iloc[0]
    return own["family"].iloc[0] + (f" (labels: {own['dial'].iloc[0]})" if pd.notna(own["dial"].iloc[0]) else "")


def pareto_numbers(rows: pd.DataFrame, *, cost: str, scale: float) -> pd.DataFrame:
    """Return what a Pareto plot shows.

    Args:
        rows: As `bench.report.stats.row_frame` returns it.
        cost: A count's column, or a measured cost without `_mean`.
        scale: What the cost is divided by.

    Returns:
        Columns label, family, dial, dial_value, cost, cost_std, delta_m, delta_m_std, n, on_front; rows without delta_m or cost are left
        out.
    """
    exact = cost in rows
    numbers = rows[["label", "family", "dial", "dial_value"]].copy()
    numbers["cost"] = rows[cost if exact else f"{cost}_mean"].astype("Float64").to_numpy(dtype=float, na_value=np.nan) / scale
    numbers["cost_std"] = np.nan if exact else rows[f"{cost}_std"] / scale
    numbers["delta_m"], numbers["delta_m_std"], numbers["n"] = rows["delta_m_mean"], rows["delta_m_std"], rows["delta_m_n"]
    numbers["on_front"] = pareto_front(numbers["cost"], numbers["delta_m"])
    return numbers.dropna(subset=["cost", "delta_m"]).reset_index(drop=True)


def draw_pareto(numbers: pd.DataFrame, styles: Mapping[str, dict], *, cost_title: str, reference_label: str, title: str) -> Figure:
    """Draw cost (log) against delta_m with the front, spreads and one line a family; hollow markers are dominated.

    Args:
        numbers: As `pareto_numbers` returns it, one row or more.
        styles: As `family_styles` returns it.
        cost_title: Label of the horizontal axis, with unit.
        reference_label: Row that has a delta_m of zero.
        title: Title of the figure.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(TEXT_WIDTH_INCHES, 4.3), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set(xscale="log", xlabel=cost_title, ylabel="Δm (%) ↑", title=title)
        axes.axhline(0, color="0.4", linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
        handles = [_draw_family(axes, own, styles[family]) for family, own in numbers.groupby("family", sort=False)]
        axes.margins(x=0.08, y=0.1)
        _log_ticks(axes, numbers["cost"])
        handles += [_draw_front(axes, numbers), *_reading_aids(numbers, reference_label)]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, columnspacing=1.2)
        _label_dials(figure, axes, numbers, styles)
    return figure


def _draw_family(axes: Axes, own: pd.DataFrame, style: Mapping) -> Line2D:
    """Draw one family's points, spreads and joining line; return its legend entry."""
    own = own.sort_values("cost")
    if len(own) > 1:
        axes.plot(own["cost"], own["delta_m"], color=style["color"], linewidth=0.8, alpha=0.5, zorder=2)
    for point in own.itertuples():
        alpha = 1.0 if point.on_front else 0.55
        spread = {"xerr": _spread(point.cost_std), "yerr": _spread(point.delta_m_std)}
        axes.errorbar(point.cost, point.delta_m, **spread, fmt="none", ecolor=style["color"], elinewidth=0.8, alpha=alpha * 0.7, zorder=3)
        look = {"color": style["color"], "markerfacecolor": style["color"] if point.on_front else "white", "markeredgewidth": 1.0}
        axes.plot(point.cost, point.delta_m, style["marker"], **look, markersize=8 if style["marker"] == "*" else 5, alpha=alpha, zorder=4)
    return Line2D([], [], color=style["color"], marker=style["marker"], linestyle="none", markersize=6, label=family_name(own))


def _spread(value: float) -> float | None:
    return None if np.isnan(value) or value == 0 else value


def _draw_front(axes: Axes, numbers: pd.DataFrame) -> Line2D:
    """Draw the front as steps: at a cost, the best delta_m that no more than this cost gave."""
    front = numbers[numbers["on_front"]].sort_values("cost")
    right = axes.get_xlim()[1]
    style = {"color": "0.25", "linewidth": 1.0, "linestyle": (0, (4, 2))}
    cost, score = np.repeat([*front["cost"], right], 2), np.repeat(front["delta_m"], 2)
    axes.plot(cost[1:-1], score, zorder=1.5, **style)
    axes.set_xlim(right=right)
    return Line2D([], [], label="Pareto front", **style)


def _reading_aids(numbers: pd.DataFrame, reference_label: str) -> list[Line2D]:
    """Return the legend entries that explain the signs in use."""
    handles = [Line2D([], [], color="0.4", linewidth=0.8, linestyle=(0, (1, 2)), label=f"Δm = 0: {reference_label}")]
    if not numbers["on_front"].all():
        look = {"color": "0.3", "marker": "o", "markerfacecolor": "white", "linestyle": "none", "markersize": 5, "alpha": 0.6}
        handles.append(Line2D([], [], label="hollow: dominated", **look))
    if (numbers[["cost_std", "delta_m_std"]] > 0).any(axis=None):
        handles.append(Line2D([], [], color="0.3", marker="|", linestyle="none", markersize=7, label="bars: ± std over seeds"))
    return handles


def _label_dials(figure: Figure, axes: Axes, numbers: pd.DataFrame, styles: Mapping[str, dict]) -> None:
    """Write the dial's value beside the points of families with several."""
    several = numbers.groupby("family")["label"].transform("size") > 1
    shown = numbers[several & numbers["dial_value"].notna()]
    figure.canvas.draw()  # the layout must be final
    figure.set_layout_engine("none")
    place_labels(
        axes,
        x=list(shown["cost"]),
        y=list(shown["delta_m"]),
        texts=[f"{value:g}" for value in shown["dial_value"]],
        colors=[styles[family]["color"] for family in shown["family"]],
        size=7,
    )


def _log_ticks(axes: Axes, values: pd.Series) -> None:
    """Label a log axis with plain numbers, also where it spans less than a decade."""
    span = values.max() / values.min()
    axes.xaxis.set_major_locator(MaxNLocator(6) if span < 6 else LogLocator(subs=(1, 2, 3, 5, 7) if span < 30 else (1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def curve_numbers(rows: pd.DataFrame, *, tasks: Sequence[str]) -> pd.DataFrame:
    """Return what the rank curves show, one line a point: families whose dial took two values or more, and the baselines without a dial.

    Returns:
        Columns panel (a task or "delta_m"), family, label, dial, dial_value, mean, std, n, trainable_params; a baseline's dial is missing.
    """
    values = rows[rows["seeds_complete"] > 0].groupby("family")["dial_value"].nunique()
    wanted = rows[rows["family"].isin(values[values > 1].index) | rows["dial"].isna()]
    if not wanted["dial"].notna().any():
        return pd.DataFrame()
    lines = []
    for panel, quantity in [(task, metric_column(task)) for task in tasks] + [("delta_m", "delta_m")]:
        part = wanted[["family", "label", "dial", "dial_value", "trainable_params"]].assign(panel=panel)
        lines.append(part.assign(mean=wanted[f"{quantity}_mean"], std=wanted[f"{quantity}_std"], n=wanted[f"{quantity}_n"]))
    return pd.concat(lines, ignore_index=True).dropna(subset=["mean"])


def draw_rank_curves(numbers: pd.DataFrame, styles: Mapping[str, dict], *, title: str) -> Figure:
    """Draw small multiples: a column a task and delta_m, a line of panels a dial (rank, reduction, ...), baselines as horizontal lines.

    Args:
        numbers: As `curve_numbers` returns it, one row or more.
        styles: As `family_styles` returns it.
        title: Title of the figure.
    """
    panels = list(dict.fromkeys(numbers["panel"]))
    dials = list(dict.fromkeys(numbers["dial"].dropna()))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(TEXT_WIDTH_INCHES, 1.0 + 1.45 * len(dials)), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(dials), len(panels), squeeze=False, sharey="col")
        for line, dial in enumerate(dials):
            for axes, panel in zip(grid[line], panels, strict=True):
                own = numbers[numbers["panel"] == panel]
                _draw_baselines(axes, own[own["dial"].isna()], styles)
                _draw_curves(axes, own[own["dial"] == dial], styles)
                axes.set_xlabel(dial)
                if line == 0:
                    axes.set_title(_panel_title(panel))
        figure.suptitle(title, fontsize=8)
        figure.legend(handles=_curve_handles(numbers, styles), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _panel_title(panel: str) -> str:
    if panel == "delta_m":
        return "Δm\n(%) ↑"
    task = TASKS[panel]
    return f"{task.title}\n{task.metric_title} ({task.unit}) {'↑' if task.higher_is_better else '↓'}"


def _draw_baselines(axes: Axes, own: pd.DataFrame, styles: Mapping[str, dict]) -> None:
    """Draw rows without a dial as horizontal lines with a band of one standard deviation."""
    for point in own.itertuples():
        style = styles[point.family]
        axes.axhline(point.mean, color=style["color"], linestyle=style["linestyle"], linewidth=0.9, zorder=1)
        if _spread(point.std) is not None:
            axes.axhspan(point.mean - point.std, point.mean + point.std, color=style["color"], alpha=0.1, linewidth=0, zorder=0.5)


def _draw_curves(axes: Axes, own: pd.DataFrame, styles: Mapping[str, dict]) -> None:
    """Draw each family's metric over its dial with bars of one standard deviation; more parameters lie to the right."""
    for family, points in own.groupby("family", sort=False):
        points, style = points.sort_values("dial_value"), styles[family]
        look = {"color": style["color"], "marker": style["marker"], "markersize": 4, "linewidth": 1.0, "elinewidth": 0.8}
        axes.errorbar(points["dial_value"].astype(float), points["mean"], yerr=points["std"].fillna(0), **look, zorder=3)
    ticks = sorted(own["dial_value"].astype(float).unique())
    if ticks and ticks[0] > 0:
        axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.15)
    by_value = own.groupby("dial_value")["trainable_params"].mean()
    if len(by_value) > 1 and by_value.iloc[0] > by_value.iloc[-1]:
        axes.invert_xaxis()


def _curve_handles(numbers: pd.DataFrame, styles: Mapping[str, dict]) -> list[Line2D]:
    """Return the legend entries: families with a dial by marker, baselines by line style."""
    handles = []
    for family, own in numbers.groupby("family", sort=False):
        style, baseline = styles[family], own["dial"].isna().all()
        look = {"linestyle": style["linestyle"]} if baseline else {"marker": style["marker"], "markersize": 4}
        handles.append(Line2D([], [], color=style["color"], label=own["label"].iloc[0] if baseline else family, **look))
    return handles


def render(figure: Figure) -> dict[str, bytes]:
    """Return a figure as the bytes of a PNG (200 dpi) and a PDF (fonts embedded), without dates."""
    files = {}
    with mpl.rc_context(STYLE):
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Creator": None, "Producer": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
            files[kind] = buffer.getvalue()
    return files
