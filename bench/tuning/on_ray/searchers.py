"""Optuna for each row: a study of its own, which remembers over launches what it asked for."""

import json
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from bench.record import write_atomically
from bench.sweep.on_ray import SweepError
from bench.tuning.asked import next_index, whole_settings
from bench.tuning.on_ray.points import describe_point
from bench.tuning.plan import Point, TunedRow, records_of
from bench.tuning.space import rounded
from methods.base import Range

logger = logging.getLogger(__name__)


class RowSearchers(Searcher):
    """One Optuna study a row, the rows in turn; each asked-for setting is written down before it runs, so that a killed tune keeps it.

    Args:
        rows: To tune.
        budget: Settings a row.
        seed: Of the studies' samplers.
        tuning_dir: Where records and asked-for settings are.
        again: Run ids of trials whose record is made again.

    Attributes:
        queue: Row and number of the settings that lack a record, in the order in which they start.
        describe: What Tune is given of a setting.
    """

    def __init__(self, rows: Sequence[TunedRow], budget: int, seed: int, tuning_dir: Path, again: Collection[str] = ()) -> None:
        super().__init__(metric="score", mode="max")
        self.rows = {tuned.row.label: tuned for tuned in rows}
        self.asked = {label: {p.index: p for p in asked_points(tuned, tuning_dir, logger.warning)} for label, tuned in self.rows.items()}
        fresh = {label: next_index(asked_dir(tuned, tuning_dir)) for label, tuned in self.rows.items()}
        # a sampler that starts anew must not repeat what the one before it drew
        self.studies = {label: study_of(tuned.space, seed + fresh[label]) for label, tuned in self.rows.items()}
        self.tuning_dir, self.owner = tuning_dir, {}
        self.describe: Callable[[Point], dict[str, Any]] = describe_point
        self.queue: deque[tuple[str, int]] = deque()
        for place in range(budget):
            for label, points in self.asked.items():
                index = [*points, *range(fresh[label], fresh[label] + budget)][place]
                records = records_of(points[index], tuning_dir) if index in points else [None]
                if all(record is not None and record["run_id"] not in again for record in records):
                    self.tell(label, points[index].values, records)
                else:
                    self.queue.append((label, index))

    def tell(self, label: str, values: dict[str, float], records: list[dict[str, Any]]) -> None:
        """Tell a study what a setting of an earlier launch scored; nothing of one that did not finish."""
        if all(record["status"] == "ok" for record in records):
            score = sum(record["history"][-1]["held_out"]["score"] for record in records) / len(records)
            self.studies[label].add_evaluated_point(values, score)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if not self.queue:
            return Searcher.FINISHED
        label, index = self.queue.popleft()
        points = self.asked[label]
        if index not in points:
            suggested = self.studies[label].suggest(trial_id)
            self.owner[trial_id] = label
            points[index] = self.rows[label].point(index, {name: rounded(value) for name, value in suggested.items()})
            path = asked_dir(self.rows[label], self.tuning_dir) / f"{index:04d}.json"
            write_atomically(path, json.dumps(describe_point(points[index])) + "\n")
        return self.describe(points[index])

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a study learns from settings that finished."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if (label := self.owner.pop(trial_id, None)) is not None:
            finished = result is not None and result.get("rung") == self.rows[label].bases[0].recipe.epochs
            self.studies[label].on_trial_complete(trial_id, {"score": result["score"]} if finished else None, error)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


def study_of(space: dict[str, Range], seed: int) -> Searcher:
    """Return Tune's Optuna searcher over a space.

    Raises:
        SweepError: Optuna is not installed.
    """
    from ray.tune.search.optuna import OptunaSearch

    try:
        import optuna
    except ImportError as error:
        raise SweepError("--searcher optuna needs optuna: pip install -c constraints.txt '.[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {
        name: optuna.distributions.FloatDistribution(interval.low, interval.high, log=interval.log) for name, interval in space.items()
    }
    return OptunaSearch(distributions, metric="score", mode="max", seed=seed)


def asked_dir(tuned: TunedRow, tuning_dir: Path) -> Path:
    """Return where a row's asked-for settings are kept, by what its trials share."""
    return tuning_dir / "asked" / f"{tuned.bases[0].cell_id}-{tuned.row.kind}"


def asked_points(tuned: TunedRow, tuning_dir: Path, say: Callable[[str], None]) -> list[Point]:
    """Return the settings that a row's searcher has asked for so far, in order; `say` is told of a damaged one, which is set aside."""
    return [tuned.point(asked["index"], asked["values"]) for asked in whole_settings(asked_dir(tuned, tuning_dir), tuned.space, say)]
