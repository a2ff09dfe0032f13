"""Named plans: one file a suite.

A suite's module defines `suite(data, seeds) -> Suite`; its docstring gives command, cost and what to expect.

A table row is one method setting. It is backed by one multi-task trial a seed, or by one single-task trial a task and seed.
"""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench.config import ConfigError, DataConfig, HeldOutConfig, TrialConfig
from bench.plain import require
from methods import METHODS
from methods.base import MethodConfig, Range

HELD_OUT_EVALUATIONS = 20
"""About so often a training is evaluated on the images that it holds out, after the last epoch included."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One table row: a label and the trials behind it, which differ in seed and, where each task has its own model, in task."""

    label: str
    trials: tuple[TrialConfig, ...]

    @property
    def cell_id(self) -> str:
        """What the row's trials share."""
        return self.trials[0].cell_id

    @property
    def kind(self) -> str:
        """ "single_task" where each task has its own model, else "multi_task"."""
        return "single_task" if len(self.trials[0].tasks) == 1 and len({t.tasks for t in self.trials}) > 1 else "multi_task"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A named plan.

    Attributes:
        name, title, description: For people.
        rows: The table's rows, in order.
        reference: Label of the row that delta_m refers to.
        notes: Sentences for under the table.
        tuned: Whether its rows are at the settings that a tune chose.
        learning_rates: What `tune` searches for each row's learning rate; None: from a tenth to ten times the recipe's.
    """

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]
    reference: str
    notes: tuple[str, ...] = ()
    tuned: bool = False
    learning_rates: Range | None = None

    def __post_init__(self) -> None:
        labels = [row.label for row in self.rows]
        if len(set(labels)) != len(labels) or self.reference not in labels:
            raise ConfigError(f"suite {self.name}: rows need different labels, one of them the reference {self.reference!r}; got {labels}")
        run_ids = [trial.run_id for trial in self.trials]
        if len(set(run_ids)) != len(run_ids):
            raise ConfigError(f"suite {self.name}: two trials have the same configuration")

    @property
    def trials(self) -> list[TrialConfig]:
        """All trials: a seed at a time, so that a first full table is there early."""
        return sorted((trial for row in self.rows for trial in row.trials), key=lambda trial: trial.seed)


def multi_task_row(base: TrialConfig, method: str, seeds: Iterable[int], *, label: str | None = None, **dials: Any) -> Row:
    """Return the row of one method setting on all tasks of `base` at once."""
    config = METHODS[method].config(**dials)
    return row_of(base, method, config, seeds, label=label or config.label)


def single_task_row(base: TrialConfig, method: str, seeds: Iterable[int], *, label: str, **dials: Any) -> Row:
    """Return the row of one method setting with one model a task."""
    return row_of(base, method, METHODS[method].config(**dials), seeds, label=label, one_a_task=True)


def row_of(base: TrialConfig, method: str, config: MethodConfig, seeds: Iterable[int], *, label: str, one_a_task: bool = False) -> Row:
    """Return the row of one method setting, on all tasks of `base` at once or with one model a task."""
    task_sets = [(task,) for task in base.tasks] if one_a_task else [base.tasks]
    return Row(
        label=label, trials=tuple(with_method(base, method, config, seed=seed, tasks=tasks) for seed in seeds for tasks in task_sets)
    )


def with_method(base: TrialConfig, name: str, config: MethodConfig, **changes: Any) -> TrialConfig:
    """Return `base` with another method and other changes."""
    return dataclasses.replace(base, method_name=name, method=config, **changes)


def names() -> list[str]:
    """List the suites."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(
    name: str,
    *,
    data: DataConfig | None = None,
    seeds: tuple[int, ...] | None = None,
    weights: str | None = None,
    backbone: str | None = None,
    image_size: int | None = None,
) -> Suite:
    """Build a suite.

    Args:
        name: Its name.
        data: Another data set than the suite's own.
        seeds: Other seeds than the suite's own.
        weights: Other weights of the backbone, for all trials.
        backbone, image_size: Another backbone and image size, for all trials; a suite that solves for a budget does so on them.

    Raises:
        ConfigError: Unknown name.
    """
    require("suite", name, names())
    build = importlib.import_module(f"bench.suites.{name}").suite
    given = {"data": data, "seeds": seeds, "backbone": backbone, "image_size": image_size}
    known = inspect.signature(build).parameters
    suite = build(**{key: value for key, value in given.items() if value is not None and key in known})
    changes = {"name": backbone, "weights": weights}
    return with_backbone(suite, image_size=image_size, **{key: value for key, value in changes.items() if value is not None})


def with_held_out(suite: Suite, held_out: HeldOutConfig) -> Suite:
    """Return the suite with a part of the training split held out, on which every trial is evaluated while it trains.

    The result stays the last epoch's, on the validation split; beside it is kept what the epoch has there that scored best on the held-out
    images (`bench.training.held_out`). A trial then trains on fewer images: these are other trials than the suite's own.
    """

    def changed(trial: TrialConfig) -> TrialConfig:
        recipe = dataclasses.replace(trial.recipe, evaluate_every=max(1, trial.recipe.epochs // HELD_OUT_EVALUATIONS))
        return dataclasses.replace(trial, recipe=recipe, data=dataclasses.replace(trial.data, held_out=held_out))

    return changed_trials(suite, changed)


def with_backbone(suite: Suite, *, image_size: int | None = None, **changes: Any) -> Suite:
    """Return the suite with changed fields of the backbone, and another image size where one is given."""

    def changed(trial: TrialConfig) -> TrialConfig:
        size = {} if image_size is None else {"image_size": image_size}
        return dataclasses.replace(
            trial, backbone=dataclasses.replace(trial.backbone, **changes), recipe=dataclasses.replace(trial.recipe, **size)
        )

    return changed_trials(suite, changed)


def changed_trials(suite: Suite, change: Callable[[TrialConfig], TrialConfig]) -> Suite:
    """Return the suite with every trial changed."""
    rows = tuple(dataclasses.replace(row, trials=tuple(map(change, row.trials))) for row in suite.rows)
    return dataclasses.replace(suite, rows=rows)
