"""Training curves: each task's unweighted training loss over the epochs, drawn with seaborn.

One thin line a trial; of more trials than the eye can follow, one line a family with the band from the lowest to the highest trial.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from bench.report.style import STYLE, TEXT_WIDTH_INCHES, legend_columns, log_axis, make_room, present_families, set_title
from bench.tasks import TASKS

_PANEL_HEIGHT_INCHES = 1.9
_LEGEND_COLUMNS = 4
_LINES_AT_MOST = 60
"""Trials that are drawn one by one."""

_DASHES = {"-": "", "--": (4, 2), ":": (1, 1.5), "-.": (4, 1.5, 1, 1.5)}
"""How seaborn spells matplotlib's line styles."""


def loss_numbers(plan: Mapping, records: Sequence[Mapping], rows: pd.DataFrame) -> pd.DataFrame:
    """Return what the figure shows: one row a trial, task and epoch, of the trials that ended well.

    Returns:
        Columns row, family, run_id, seed, task, epoch, loss (mean over the epoch's steps, without the task's weight).
    """
    label_of = {run_id: row["label"] for row in plan["rows"] for run_id in row["run_ids"]}
    family_of = dict(zip(rows["label"], rows["family"], strict=True))
    lines = [
        {
            "row": label_of[record["run_id"]],
            "family": family_of[label_of[record["run_id"]]],
            "run_id": record["run_id"],
            "seed": record["seed"],
            "task": task,
            "epoch": epoch["epoch"],
            "loss": loss,
        }
        for record in records
        if record["status"] == "ok" and record["run_id"] in label_of
        for epoch in record["history"]
        for task, loss in epoch["losses"].items()
    ]
    return pd.DataFrame(lines, columns=["row", "family", "run_id", "seed", "task", "epoch", "loss"])


def draw_training_curves(numbers: pd.DataFrame, styles: Mapping[str, dict], *, title: str) -> Figure:
    """Draw one panel a task; a family keeps the colour and the dashes that it has in the other figures.

    Args:
        numbers: As `loss_numbers` returns it.
        styles: Per family `color` and `linestyle`.
        title: Over the figure.
    """
    import seaborn

    tasks = [task for task in TASKS if task in set(numbers["task"])]
    families = present_families(styles, numbers["family"])
    singly = numbers["run_id"].nunique() <= _LINES_AT_MOST
    palette = {family: styles[family]["color"] for family in families}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(TEXT_WIDTH_INCHES, _PANEL_HEIGHT_INCHES + 1.0), layout="constrained")
        for i, (axes, task) in enumerate(zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True)):
            own = numbers[numbers["task"] == task]
            common = {
                "x": "epoch",
                "y": "loss",
                "hue": "family",
                "hue_order": families,
                "palette": palette,
                "ax": axes,
            }
            if own["epoch"].nunique() == 1:
                common["marker"] = "."  # a line needs two points
            common |= {"style": "family", "style_order": families, "dashes": [_DASHES[styles[family]["linestyle"]] for family in families]}
            common |= {"units": "run_id", "estimator": None} if singly else {"estimator": "mean", "errorbar": ("pi", 100), "n_boot": 0}
            seaborn.lineplot(own, **common, legend=i == 0, linewidth=0.8, alpha=0.75)
            axes.set(title=TASKS[task].title, xlabel="Epoch", ylabel="Training loss, log" if i == 0 else "")
            if own["loss"].min() > 0:
                log_axis(axes, own["loss"], "y")  # else the first epoch's fall flattens what follows
            axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5, integer=True, min_n_ticks=1))
            if i == 0:
                handles, labels = axes.get_legend_handles_labels()
                axes.get_legend().remove()
        set_title(figure, f"{title}: training loss, {'one line a trial' if singly else 'mean and range of a family'}")
        columns = legend_columns(labels, _LEGEND_COLUMNS)
        make_room(figure, -(-len(labels) // columns))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure
