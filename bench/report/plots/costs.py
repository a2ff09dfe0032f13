"""What the memory of a training step consists of: weights, gradients, optimiser state, activations, stacked, one bar a row."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bench.report.pareto import MIB
from bench.report.plots.tasks import selection_note, shown_labels
from bench.report.style import STYLE, TEXT_WIDTH_INCHES, new_figure, set_title

PARTS = {
    "weights": ("Weights", "#4d4d4d", ""),
    "gradients": ("Gradients", "#0072b2", "////"),
    "optimizer_state": ("Optimiser state", "#e69f00", ""),
    "saved_activations": ("Activations saved for the backward pass", "#9fd3c7", "...."),
}
"""Part of the record's `cost.step_memory_bytes` -> legend, colour, hatch."""


def memory_numbers(plan: Mapping, records: Sequence[Mapping]) -> pd.DataFrame:
    """Return the mean over seeds of each part; a row of one model a task counts its largest model, for they train one after another.

    Returns:
        One line a row with an "ok" record: label, the parts, total, and peak_allocated (missing where no CUDA allocator measured it), MiB.
    """
    by_id = {record["run_id"]: record for record in records if record["status"] == "ok"}
    lines = []
    for row in plan["rows"]:
        largest: dict[int, Mapping] = {}
        for record in (by_id[run_id] for run_id in row["run_ids"] if run_id in by_id):
            best = largest.get(record["seed"])
            if best is None or record["cost"]["step_memory_bytes"]["total"] > best["cost"]["step_memory_bytes"]["total"]:
                largest[record["seed"]] = record
        if largest:
            costs = [record["cost"] for record in largest.values()]
            line = {part: np.mean([cost["step_memory_bytes"][part] for cost in costs]) / MIB for part in (*PARTS, "total")}
            peaks = [cost["peak_allocated_bytes"] for cost in costs]
            line["peak_allocated"] = np.nan if None in peaks else np.mean(peaks) / MIB
            lines.append({"label": row["label"]} | line)
    return pd.DataFrame(lines)


def draw_memory(numbers: pd.DataFrame, rows: pd.DataFrame, *, title: str) -> Figure:
    """Draw one stacked bar a row; a diamond marks the peak that the CUDA allocator measured.

    Args:
        numbers: As `memory_numbers` returns it, one line or more.
        rows: As `bench.report.stats.row_frame` returns it, for the order.
        title: Title of the figure.
    """
    labels = shown_labels(rows, list(numbers["label"]))
    own = numbers.set_index("label").loc[labels]
    with mpl.rc_context(STYLE):
        figure = new_figure(TEXT_WIDTH_INCHES, max(2.0, 1.1 + 0.17 * len(labels)))
        axes = figure.add_subplot()
        at, left = np.arange(len(labels)), np.zeros(len(labels))
        for part, (name, color, hatch) in PARTS.items():
            axes.barh(at, own[part], left=left, color=color, hatch=hatch, edgecolor="white", linewidth=0.4, height=0.72, label=name)
            left = left + own[part].to_numpy()
        for place, total in zip(at, own["total"], strict=True):
            axes.text(total, place, f" {total:.3g}" if total < 1000 else f" {total:.0f}", va="center", fontsize=6.5)
        if own["peak_allocated"].notna().any():
            axes.plot(
                own["peak_allocated"], at, "D", color="black", markerfacecolor="white", markersize=4, label="Peak of the CUDA allocator"
            )
        axes.set_yticks(at, labels, fontsize=6.5)
        axes.set(ylim=(len(labels) - 0.4, -0.6), xlabel="Memory of a training step (MiB)")
        axes.margins(x=0.08)
        axes.grid(axis="y", visible=False)
        set_title(figure, f"{title}: what a training step holds{selection_note(len(labels), len(numbers))}")
        figure.legend(loc="outside lower center", ncols=5, frameon=False, columnspacing=1.2)
    return figure
