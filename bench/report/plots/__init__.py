"""The figures of a report, each as PNG, PDF and the plotted numbers as CSV; a figure that cannot be drawn says why.

One file a figure: `pareto`, `rank_curves`, `tasks` (bars and interference), `costs`, `training_curves`, `panels`; `labels` finds room for
text, `published` the points of papers. `bench.report.style` is what they share.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bench.report.family import with_titles
from bench.report.panels import Panel, load_panels
from bench.report.plots.costs import draw_memory, memory_numbers
from bench.report.plots.panels import METHODS_AT_MOST, draw_panels, labelled_places, panel_numbers
from bench.report.plots.pareto import COSTS, draw_pareto, draw_pareto_grid, pareto_numbers
from bench.report.plots.published import published_points
from bench.report.plots.rank_curves import curve_numbers, draw_rank_curves
from bench.report.plots.sensitivity import draw_sensitivity, sensitivity_numbers
from bench.report.plots.tasks import change_numbers, draw_interference, draw_task_bars, interference_numbers, shown_labels
from bench.report.plots.training_curves import draw_training_curves, loss_numbers
from bench.report.seeds import why_no_delta_m
from bench.report.stats import plan_tasks, reference_position
from bench.report.style import family_styles, interval_note, render
from bench.tasks import TASKS

GRID = ("stored", "step_time", "flops", "merged_inference_time")
"""Cost axes that share a figure; parameters and memory have one each."""

CAPTIONS = {
    "pareto_params": "Δm against trainable parameters",
    "pareto_memory": "Δm against the memory of a training step",
    "pareto_costs": "Δm against stored bytes, step time, FLOPs and inference time",
    "rank_curves": "Every task and Δm over each method's dial",
    "task_bars": "Change of every task against the reference",
    "interference": "Task interference: what sharing one model does to each task",
    "memory_parts": "What the memory of a training step consists of",
    "training_curves": "Training loss of every task",
    "sensitivity": "What tuning tried: held-out score over each tuned dial",
} | {f"panels_{task}": f"Predictions and errors on fixed validation images: {TASKS[task].title}" for task in TASKS}
"""Every figure that a report may hold, in order -> caption."""

SHOW_INTERVALS = ("pareto_params", "pareto_memory", "pareto_costs", "rank_curves", "task_bars")
"""Figures that show intervals over seeds."""

SUFFIXES = ("png", "pdf", "csv")

Maker = tuple[str, Callable[[], tuple[Figure, pd.DataFrame]]]
"""A figure's name, and the function that draws it and returns its numbers."""


class NotDrawnError(Exception):
    """A figure has nothing to show; the message says what is missing."""


@dataclass
class Drawn:
    """Figures that were drawn.

    Attributes:
        files: Content per file name.
        names: The figures drawn, keys of `CAPTIONS`.
        not_drawn: The others, each with the reason.
        panels: The qualitative panels that were found, for the page.
    """

    files: dict[str, str | bytes] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    not_drawn: list[str] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)


def figure_files() -> list[str]:
    """List the file names that figures can have."""
    return [f"{name}.{suffix}" for name in CAPTIONS for suffix in SUFFIXES]


def caption(name: str, rows: pd.DataFrame) -> str:
    """Return what stands below a figure: its title, and what its intervals are of.

    Args:
        name: A key of `CAPTIONS`.
        rows: As `bench.report.stats.row_frame` returns it.
    """
    times = " (of times measured for all seeds at once: 95 % interval of that measurement)" if name == "pareto_costs" else ""
    more = {shown: f"{interval_note(rows['seeds_complete'])}, for these validation images{times}" for shown in SHOW_INTERVALS}
    more["interference"] = "which differences are told apart the table's tests say, paired and Holm-corrected"
    return ". ".join([CAPTIONS[name], *([more[name][0].upper() + more[name][1:]] if name in more else [])]) + "."


def make_figures(
    plan: Mapping, records: Sequence[Mapping], rows: pd.DataFrame, *, title: str, directory: Path, tuning: Path | None = None
) -> Drawn:
    """Draw every figure that the records allow.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: Records of the plan.
        rows: As `bench.report.stats.row_frame` returns it.
        title: Title of every figure.
        directory: Where the records' panels lie.
        tuning: `tuning.json` of the suite, or None.
    """
    drawn, rows = Drawn(panels=load_panels(plan, records, directory)), with_titles(rows)
    for name, make in _makers(plan, records, rows, title, drawn.panels, tuning):
        try:
            figure, numbers = make()
        except NotDrawnError as reason:
            drawn.not_drawn.append(f"{name}: {reason}")
            continue
        drawn.names.append(name)
        drawn.files |= {f"{name}.{kind}": content for kind, content in render(figure).items()}
        drawn.files[f"{name}.csv"] = numbers.to_csv(index=False, lineterminator="\n")
    return drawn


def _makers(
    plan: Mapping, records: Sequence[Mapping], rows: pd.DataFrame, title: str, panels: Sequence[Panel], tuning: Path | None
) -> Iterator[Maker]:
    """Yield each figure's name with the function that draws it and returns its numbers."""
    styles = family_styles(rows)
    yield "pareto_params", lambda: _pareto("params", plan, records, rows, styles, title)
    yield "pareto_memory", lambda: _pareto("memory", plan, records, rows, styles, title)
    yield "pareto_costs", lambda: _pareto_grid(plan, rows, styles, title)
    yield from _result_makers(plan, rows, styles, title)
    yield (
        "memory_parts",
        lambda: _with_numbers(
            memory_numbers(plan, records), "no trial ended well.", lambda numbers: draw_memory(numbers, rows, title=title)
        ),
    )
    yield (
        "training_curves",
        lambda: _with_numbers(
            loss_numbers(plan, records, rows),
            "no record holds a history of the loss.",
            lambda numbers: _with_seaborn(lambda: draw_training_curves(numbers, styles, title=title)),
        ),
    )
    if tuning is not None:
        families = dict(zip(rows["label"], rows["family"], strict=True))
        yield (
            "sensitivity",
            lambda: _with_numbers(
                sensitivity_numbers(tuning, families),
                "no setting that was tried has a held-out score.",
                lambda numbers: draw_sensitivity(numbers, styles, title=title),
            ),
        )
    if not panels:
        yield "panels", _no_panels
    for task in dict.fromkeys(panel.task for panel in panels):
        yield f"panels_{task}", lambda task=task: _panels([panel for panel in panels if panel.task == task], rows, title)


def _result_makers(plan: Mapping, rows: pd.DataFrame, styles: Mapping, title: str) -> Iterator[Maker]:
    """Yield as `_makers` those figures that show the tasks' metrics alone."""
    tasks, cells = plan_tasks(plan), {row["label"]: row["cell_id"] for row in plan["rows"]}
    yield (
        "rank_curves",
        lambda: _with_numbers(
            curve_numbers(rows, tasks=tasks),
            "no method has results at two values of its dial.",
            lambda numbers: draw_rank_curves(numbers, styles, title=title),
        ),
    )
    yield (
        "task_bars",
        lambda: _with_numbers(
            change_numbers(rows, tasks=tasks),
            "the reference row has no complete seed.",
            lambda numbers: draw_task_bars(numbers, rows, styles, title=title),
        ),
    )
    yield (
        "interference",
        lambda: _with_numbers(
            interference_numbers(rows, cells, tasks=tasks),
            "no row of one model a task has a result to compare with.",
            lambda numbers: _with_seaborn(lambda: draw_interference(numbers, rows, title=title)),
        ),
    )


def _with_numbers(numbers: pd.DataFrame, problem: str, draw: Callable[[pd.DataFrame], Figure]) -> tuple[Figure, pd.DataFrame]:
    if numbers.empty:
        raise NotDrawnError(problem)
    return draw(numbers), numbers


def _with_seaborn(draw: Callable[[], Figure]) -> Figure:
    """Draw with seaborn, which brings scipy.stats, which fails beside a broken torch; the other figures need neither."""
    try:
        import seaborn  # noqa: F401
    except (ImportError, AttributeError) as error:
        raise NotDrawnError(f"seaborn cannot be imported: {error}") from error
    return draw()


def _pareto(
    key: str, plan: Mapping, records: Sequence[Mapping], rows: pd.DataFrame, styles: Mapping, title: str
) -> tuple[Figure, pd.DataFrame]:
    """Draw one Pareto plot; published points have parameters only."""
    cost, position = COSTS[key], reference_position(plan)
    numbers = pareto_numbers(rows, cost=cost.column, scale=cost.scale)
    if numbers.empty or position is None:
        raise NotDrawnError(f"no row has a Δm: {why_no_delta_m(rows) or 'no row has a complete seed'}.")
    label, published = plan["rows"][position]["label"], published_points(records) if key == "params" else None
    figure = draw_pareto(numbers, styles, cost_title=cost.title, reference_label=label, title=title, published=published)
    return figure, numbers if published is None else pd.concat([numbers, published.assign(family="published")], ignore_index=True)


def _pareto_grid(plan: Mapping, rows: pd.DataFrame, styles: Mapping, title: str) -> tuple[Figure, pd.DataFrame]:
    position = reference_position(plan)
    parts = {key: pareto_numbers(rows, cost=COSTS[key].column, scale=COSTS[key].scale) for key in GRID}
    parts = {key: numbers for key, numbers in parts.items() if len(numbers)}
    if not parts or position is None:
        raise NotDrawnError(f"no row has a Δm: {why_no_delta_m(rows) or 'no row has a complete seed'}.")
    figure = draw_pareto_grid(parts, styles, reference_label=plan["rows"][position]["label"], title=title)
    return figure, pd.concat([numbers.assign(axis=COSTS[key].title) for key, numbers in parts.items()], ignore_index=True)


def _panels(panels: Sequence[Panel], rows: pd.DataFrame, title: str) -> tuple[Figure, pd.DataFrame]:
    """Draw a task's panels for a few rows; rows on other images than the first row's are left out of the figure."""
    same = [panel for panel in panels if panel.ids == panels[0].ids and panel.images.shape == panels[0].images.shape]
    if not labelled_places(same):
        raise NotDrawnError(f"none of the {len(same[0].ids)} images kept has a label of this task.")
    chosen = set(shown_labels(rows, [panel.label for panel in same], METHODS_AT_MOST))
    return draw_panels([panel for panel in same if panel.label in chosen], title=title), panel_numbers(panels)


def _no_panels() -> tuple[Figure, pd.DataFrame]:
    raise NotDrawnError("the records keep no predictions (trials keep them since there is a field `panels`).")
