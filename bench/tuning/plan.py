"""What a tune trains: for each row the same number of settings, each with the trials that measure it."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.config import ConfigError, HeldOutConfig, TrialConfig
from bench.record import read_record
from bench.suites import Row, Suite
from bench.tuning.point import STOPPED
from bench.tuning.space import learning_rates, space_of, unit_points, values_at, with_values
from methods.base import Range

REDUCTION_FACTOR = 3
"""ASHA lets about one in so many settings of a rung go on."""

RUNGS = 2
"""Rungs of ASHA below the last epoch."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a suite is tuned; the same for every row.

    Attributes:
        budget: Settings a row.
        seeds: Of the trials of a setting.
        held_out: What is kept of the training split to score on.
        asha: Whether settings may be stopped early.
        searcher: "halton" (the same points for every row) or "optuna" (each row its own, one after the other).
        sequence_seed: Of the scrambling of the points.
    """

    budget: int
    seeds: tuple[int, ...] = (0,)
    held_out: HeldOutConfig = dataclasses.field(default_factory=HeldOutConfig)
    asha: bool = False
    searcher: str = "halton"
    sequence_seed: int = 0

    def __post_init__(self) -> None:
        if self.budget < 1 or not self.seeds:
            raise ConfigError(f"a tune needs a budget of one setting a row or more, and a seed; got {self.budget} and {self.seeds}")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One setting of one row.

    Attributes:
        row: Label of the row.
        index: Number of the setting in the row, 0 first.
        values: Dial to value, the learning rate first.
        trials: One, or one a task, and that a seed.
    """

    row: str
    index: int
    values: dict[str, float]
    trials: tuple[TrialConfig, ...]


@dataclass(frozen=True, kw_only=True)
class TunedRow:
    """A row with its space and the trials that a setting changes: those of the suite, with the seeds and the data of the protocol."""

    row: Row
    space: dict[str, Range]
    bases: tuple[TrialConfig, ...]

    def point(self, index: int, values: dict[str, float]) -> Point:
        """Return a setting of the row."""
        return Point(row=self.row.label, index=index, values=values, trials=tuple(with_values(base, values) for base in self.bases))


def tuned_rows(suite: Suite, protocol: Protocol) -> list[TunedRow]:
    """Return the suite's rows as the protocol tunes them.

    Raises:
        ConfigError: Two rows differ in nothing but what is tuned, so that tuning would make them the same.
    """
    rates, seen = learning_rates(suite), {}
    rows = [
        TunedRow(row=row, space=space_of(row.trials[0].method, rates), bases=tuple(bases_of(row.trials, protocol))) for row in suite.rows
    ]
    for tuned in rows:
        somewhere = tuned.point(0, values_at(tuned.space, unit_points(1, 0)[0])).trials
        if (other := seen.setdefault(somewhere, tuned.row.label)) != tuned.row.label:
            dials = ", ".join(tuned.space)
            raise ConfigError(f"rows {other!r} and {tuned.row.label!r} differ in tuned dials alone ({dials}): leave one of them out")
    return rows


def bases_of(trials: Iterable[TrialConfig], protocol: Protocol) -> Iterable[TrialConfig]:
    """Yield the trials of a setting, not yet at it: each set of tasks of the row with each seed, scored on held-out images alone."""
    first_of = {trial.tasks: trial for trial in reversed(list(trials))}
    for seed in protocol.seeds:
        for trial in reversed(first_of.values()):
            recipe = dataclasses.replace(trial.recipe, evaluate_every=rungs(trial.recipe.epochs)[0], evaluate_on="held_out")
            data = dataclasses.replace(trial.data, held_out=protocol.held_out)
            yield dataclasses.replace(trial, seed=seed, recipe=recipe, data=data)


def rungs(epochs: int) -> list[int]:
    """Return the epochs at which ASHA compares settings: a ninth and a third of the epochs, and the last; at least one apart."""
    first = max(1, epochs // REDUCTION_FACTOR**RUNGS)
    return [*(rung for rung in (first * REDUCTION_FACTOR**i for i in range(RUNGS)) if rung < epochs), epochs]


def quasi_random_points(rows: list[TunedRow], protocol: Protocol) -> list[Point]:
    """Return the settings of all rows, the same points of the unit cube for each; the first setting of every row first."""
    units = unit_points(protocol.budget, protocol.sequence_seed)
    return [tuned.point(i, values_at(tuned.space, unit)) for i, unit in enumerate(units) for tuned in rows]


def records_of(point: Point, tuning_dir: Path) -> list[dict | None]:
    """Return the record of each of a point's trials, None where there is none."""
    paths = [tuning_dir / "records" / f"{trial.run_id}.json" for trial in point.trials]
    return [read_record(path) if path.exists() else None for path in paths]


def to_do(points: Iterable[Point], tuning_dir: Path, *, asha: bool, rerun: frozenset[str], code_id: str) -> dict[str, TrialConfig]:
    """Return the trials to run, by run id: those without a record; without ASHA also those that it stopped; and those asked for.

    Args:
        points: Of the tune.
        tuning_dir: `results/<suite>/tuning`.
        asha: Whether a stopped trial is done.
        rerun: Any of "failed" (a defect: not stopped, not diverged) and "stale" (made by other code than `code_id`).
        code_id: The present code.
    """
    found: dict[str, TrialConfig] = {}
    for point in points:
        for trial, record in zip(point.trials, records_of(point, tuning_dir), strict=True):
            status = None if record is None else record["status"]
            failed = status not in ("ok", STOPPED, "diverged")
            again = (failed and "failed" in rerun) or (record is not None and "stale" in rerun and record["code_id"] != code_id)
            if status is None or again or (status == STOPPED and not asha):
                found.setdefault(trial.run_id, trial)
    return found
