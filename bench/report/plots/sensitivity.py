"""Sensitivity curves: the held-out score of every setting that a tune tried, over the learning rate and the dials tuned beside it.

One panel a method family and dial. A method whose curve is flat is forgiving; one whose best lies at the end of its curve was not searched
far enough. Points of a row are joined where one dial alone was tuned: where several were, neighbours differ in the others as well.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.report.style import STYLE, TEXT_WIDTH_INCHES, new_figure, set_title

_COLUMNS = 4
_PANEL_HEIGHT_INCHES = 1.45
_SHOWN_BELOW_BEST = 60.0
"""Scores further below the best of their row, in points, are drawn at the lower end of the panel."""

_MARKERS = ("o", "s", "^", "D", "v", "p", "h", "<", ">")
_TITLES = {"peak_lr": "Learning rate"}
_COLUMN_NAMES = ("row", "family", "row_dial", "dial", "log", "value", "score", "below_best", "status", "scored_at_epoch", "chosen")


def sensitivity_numbers(path: Path, families: Mapping[str, str]) -> pd.DataFrame:
    """Return what the figure shows: one line a row, tuned dial and setting.

    Args:
        path: `tuning.json`.
        families: Family per label of the plan's rows; rows of the tune that the plan lacks are left out.

    Returns:
        Columns row, family, row_dial (the row's own dial, which was not tuned, or missing), dial, log (whether its range is logarithmic),
        value, score (on held-out images), below_best (score minus that of the row's choice), status, scored_at_epoch, chosen. Empty where
        there is no file, or no score in it.
    """
    if not path.exists():
        return pd.DataFrame()
    entries = [entry for entry in json.loads(path.read_text(encoding="utf-8"))["rows"] if entry["label"] in families]
    lines = []
    for entry in entries:
        chosen, method = entry["chosen"], entry["method"]
        common = {"row": entry["label"], "family": families[entry["label"]], "row_dial": method["dial_value"]}
        for dial, interval in entry["space"].items():
            for setting in entry["settings"]:
                score = setting["score"]
                below = None if score is None or chosen is None else score - chosen["score"]
                line = common | {"dial": dial, "log": interval["log"], "value": setting["values"][dial], "score": score}
                line |= {"below_best": below, "status": setting["status"], "scored_at_epoch": setting["scored_at_epoch"]}
                lines.append(line | {"chosen": chosen is not None and setting["index"] == chosen["index"]})
    numbers = pd.DataFrame(lines, columns=list(_COLUMN_NAMES))
    return numbers if numbers["score"].notna().any() else pd.DataFrame()


def draw_sensitivity(numbers: pd.DataFrame, styles: Mapping[str, dict], *, title: str) -> Figure:
    """Draw the curves; the chosen settings are stars, settings stopped early hollow, those without a score crosses at the bottom. Those far
    below their row's best are triangles there, hollow where they were stopped early: each setting has one mark, besides the star.

    Args:
        numbers: As `sensitivity_numbers` returns it, one line or more.
        styles: Per family `color`.
        title: Over the figure.
    """
    panels = sorted(dict.fromkeys(zip(numbers["family"], numbers["dial"], strict=True)), key=lambda panel: panel[1] != "peak_lr")
    lines = -(-len(panels) // _COLUMNS)
    with mpl.rc_context(STYLE):
        figure = new_figure(TEXT_WIDTH_INCHES, 0.75 + _PANEL_HEIGHT_INCHES * lines)
        grid = figure.subplots(lines, _COLUMNS, squeeze=False, sharey=True).ravel()
        bottom = max(float(numbers["below_best"].fillna(0).min()), -_SHOWN_BELOW_BEST)
        for axes, (family, dial) in zip(grid, panels, strict=False):
            own = numbers[(numbers["family"] == family) & (numbers["dial"] == dial)]
            own = own.assign(alone=own["row"].map(numbers.groupby("row")["dial"].nunique()) == 1)
            color = styles[family]["color"] if family in styles else "0.3"
            _draw_panel(axes, own, color, bottom)
            axes.set_title(family, fontsize=7)
            axes.set_xlabel(_TITLES.get(dial, dial.capitalize()))
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        figure.supylabel("Held-out score − the choice's\n(≈ Δm points) ↑", fontsize=8)
        set_title(figure, f"{title}: sensitivity to what was tuned")
        figure.legend(handles=_legend(numbers), loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_panel(axes: Axes, own: pd.DataFrame, color: str, bottom: float) -> None:
    """Draw one family's rows over one dial."""
    rows = list(dict.fromkeys(own["row"]))
    for i, row in enumerate(rows):
        points = own[own["row"] == row].sort_values("value")
        shown = points["below_best"].astype(float).clip(lower=bottom).fillna(bottom)
        below, lost = points["below_best"].astype(float) < bottom, points["score"].isna()
        finished, stopped = points["status"] == "ok", (points["status"] == "stopped") & ~lost
        line, marker = "-" if points["alone"].all() else "none", _MARKERS[i % len(_MARKERS)]
        look = {"color": color, "markersize": 3, "linewidth": 0.7, "alpha": 1 - 0.55 * i / max(len(rows), 2)}
        seen = np.flatnonzero(~below[finished]).tolist()  # each point has one mark
        axes.plot(points["value"][finished], shown[finished], marker=marker, linestyle=line, **look, markevery=seen, label=_short(points))
        hollow = {"markerfacecolor": "white", "linestyle": "none"}
        axes.plot(points["value"][stopped & ~below], shown[stopped & ~below], marker=marker, **look | hollow)
        axes.plot(points["value"][lost], shown[lost], "x", color="0.3", markersize=4, linestyle="none")
        for which, fill in ((below & ~stopped, {}), (below & stopped, hollow)):
            axes.plot(points["value"][which], shown[which], "v", **{"color": color, "markersize": 5, "linestyle": "none"} | fill)
        best = points[points["chosen"]]
        axes.plot(
            best["value"], np.zeros(len(best)), "*", color=color, markeredgecolor="black", markeredgewidth=0.4, markersize=7, zorder=4
        )
    if own["log"].all():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.xaxis.set_major_formatter(FuncFormatter(_power))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.08, y=0.1)
    if len(rows) > 1:
        axes.legend(fontsize=5.5, frameon=False, handlelength=1.2, borderpad=0.1, labelspacing=0.2)


def _power(value: float, _: int) -> str:
    """Return a tick's label: 0.3, 3, or 3e-4 where zeros would fill the panel."""
    return f"{value:g}" if value >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


def _short(points: pd.DataFrame) -> str:
    """Name a row among those of its family: by its own dial where it has one."""
    value = points["row_dial"].iloc[0]
    return points["row"].iloc[0] if pd.isna(value) else f"{value:g}"


def _legend(numbers: pd.DataFrame) -> list[Line2D]:
    """Return the entries that explain the signs in use."""
    grey = {"color": "0.3", "linestyle": "none"}
    handles = [Line2D([], [], marker="*", markersize=7, label="chosen", **grey)]
    handles.append(Line2D([], [], marker="o", markersize=3, label="trained to the end", **grey))
    if (numbers["status"] == "stopped").any():
        handles.append(Line2D([], [], marker="o", markersize=3, markerfacecolor="white", label="stopped early, scored there", **grey))
    if (numbers["below_best"] < -_SHOWN_BELOW_BEST).any():
        handles.append(Line2D([], [], marker="v", markersize=5, label=f"more than {_SHOWN_BELOW_BEST:g} below", **grey))
    if numbers["score"].isna().any():
        handles.append(Line2D([], [], marker="x", markersize=4, label="diverged or failed", **grey))
    return handles
