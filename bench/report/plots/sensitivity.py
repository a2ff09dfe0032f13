"""How much the tuned dials matter: held-out score of every setting that a tune tried, over each dial, one panel a dial.

Read from `tuning.json`, which `run_suite.py tune` leaves beside the plan. Scores come from held-out training images, never from the
validation split of the table.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.style import STYLE, TEXT_WIDTH_INCHES, log_axis, new_figure

_PANEL_HEIGHT_INCHES = 2.3
_LOG_FROM_RATIO = 5.0


def sensitivity_numbers(path: Path, families: Mapping[str, str]) -> pd.DataFrame:
    """Return one line a row, setting and dial; settings without a score (diverged, missing) are kept with their status.

    Args:
        path: `tuning.json`; where there is none, there are no numbers.
        families: Family per label of the plan's rows; rows of the tune that the plan lacks are left out.

    Returns:
        Columns label, family, dial, value, score, status, chosen (bool).
    """
    if not path.exists():
        return pd.DataFrame()
    outcome = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        {
            "label": row["label"],
            "family": families[row["label"]],
            "dial": dial,
            "value": value,
            "score": setting["score"],
            "status": setting["status"],
            "chosen": row["chosen"] is not None and row["chosen"]["index"] == setting["index"],
        }
        for row in outcome["rows"]
        if row["label"] in families
        for setting in row["settings"]
        for dial, value in setting["values"].items()
    ]
    numbers = pd.DataFrame(lines)
    return numbers if len(numbers) and numbers["score"].notna().any() else pd.DataFrame()


def draw_sensitivity(numbers: pd.DataFrame, styles: Mapping[str, dict], *, title: str) -> Figure:
    """Draw the scores over each dial; a ring marks the setting that was chosen, a cross at the bottom one without a score.

    Points are joined where one dial alone was tuned: of several, neighbours on one differ in the others.

    Args:
        numbers: As `sensitivity_numbers` returns it, one score or more.
        styles: As `bench.report.style.family_styles` returns it.
        title: Title of the figure.
    """
    dials = list(dict.fromkeys(numbers["dial"]))
    columns = min(len(dials), 3)
    lines = -(-len(dials) // columns)
    with mpl.rc_context(STYLE):
        figure = new_figure(TEXT_WIDTH_INCHES, _PANEL_HEIGHT_INCHES * lines + 0.9)
        grid = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
        bottom = numbers["score"].min() - 0.06 * max(np.ptp(numbers["score"].dropna()), 1e-3)
        for axes, dial in zip(grid, dials, strict=False):
            part = numbers[numbers["dial"] == dial]
            for (_, family), own in part.groupby(["label", "family"], sort=False):
                own, style = own.sort_values("value"), styles[family]
                known, lost, best = own[own["score"].notna()], own[own["score"].isna()], own[own["chosen"]]
                look = {"color": style["color"], "marker": style["marker"], "linestyle": style["linestyle"] if len(dials) == 1 else "none"}
                axes.plot(known["value"], known["score"], **look, markersize=3.5, linewidth=0.8)
                axes.plot(best["value"], best["score"], "o", color=style["color"], markerfacecolor="none", markersize=8)
                axes.plot(lost["value"], np.full(len(lost), bottom), "x", color=style["color"], markersize=4)
            values = part["value"].astype(float)
            if values.min() > 0 and values.max() / values.min() >= _LOG_FROM_RATIO:
                log_axis(axes, values)
            axes.set(xlabel=dial.replace("_", " ").replace(".", " "), ylabel="held-out score ↑" if axes in grid[::columns] else "")
        for axes in grid[len(dials) :]:
            axes.remove()
        figure.suptitle(f"{title}: what tuning tried, scored on held-out training images", fontsize=8)
        handles = [
            Line2D(
                [], [], color=styles[family]["color"], marker=styles[family]["marker"], linestyle=styles[family]["linestyle"], label=family
            )
            for family in dict.fromkeys(numbers["family"])
        ]
        handles.append(Line2D([], [], color="0.3", marker="o", markerfacecolor="none", linestyle="none", markersize=8, label="chosen"))
        if numbers["score"].isna().any():
            handles.append(
                Line2D([], [], color="0.3", marker="x", linestyle="none", markersize=4, label="no score (diverged, stopped, missing)")
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure
