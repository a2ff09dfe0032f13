"""ASHA among the settings of each row. A setting is never compared with another row's."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from bench import progress
from bench.sweep import interrupt as interrupts
from bench.tuning.on_ray.points import point_name
from bench.tuning.plan import REDUCTION_FACTOR, Point, rungs
from bench.tuning.point import WORST_SCORE, take_stopped


class RowSchedulers(FIFOScheduler):
    """One ASHA a row: a setting is compared with the settings of its own row alone. What ASHA stops becomes a record at once.

    Args:
        epochs: Row to epochs of its trials.
        known: Settings of earlier launches that have a record, each with its (rung, score) pairs.
        tuning_dir: Where the records are.
        asha: Whether to stop anything at all.
    """

    def __init__(
        self, epochs: dict[str, int], known: Sequence[tuple[Point, list[tuple[int, float]]]], tuning_dir: Path, *, asha: bool
    ) -> None:
        super().__init__()
        self.epochs, self.tuning_dir = epochs, tuning_dir
        self.of_row: dict[str, TrialScheduler] = {row: asha_of(count) if asha else FIFOScheduler() for row, count in epochs.items()}
        for point, scores in known:
            stand_in = SimpleNamespace(trial_id=f"{point.row}/{point.index}")
            self.of_row[point.row].on_trial_add(None, stand_in)
            for rung, score in scores:
                self.of_row[point.row].on_trial_result(None, stand_in, {"rung": rung, "score": score})

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        if not interrupts.CURRENT.stopping:
            return super().choose_trial_to_run(tune_controller)
        for trial in tune_controller.get_trials():  # after Ctrl-C nothing more starts
            if trial.status == trial.PENDING:
                tune_controller.stop_trial(trial)
        return None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.of_row[trial.config["row"]].on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        row = trial.config["row"]
        decision = self.of_row[row].on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP and result["rung"] < self.epochs[row]:
            take_stopped(trial.config["run_ids"], self.tuning_dir)
            progress.CURRENT.finished(point_name(trial), "ok")
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self.of_row[trial.config["row"]].on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self.of_row[trial.config["row"]].on_trial_remove(tune_controller, trial)


def asha_of(epochs: int) -> AsyncHyperBandScheduler:
    """Return the ASHA of one row, on a rung schedule counted in epochs."""
    first = rungs(epochs)[0]
    return AsyncHyperBandScheduler(
        time_attr="rung", metric="score", mode="max", max_t=epochs, grace_period=first, reduction_factor=REDUCTION_FACTOR
    )


def scores_at_rungs(records: Sequence[dict[str, Any]], marks: Sequence[int]) -> list[tuple[int, float]]:
    """Return (rung, mean score) of a setting whose trials all have records, for the rungs that all of them reached."""
    if any(record["status"] not in ("ok", "stopped") for record in records):
        return [(marks[0], WORST_SCORE)]
    histories = [{line["epoch"]: line["held_out"]["score"] for line in record["history"] if "held_out" in line} for record in records]
    return [(mark, sum(h[mark] for h in histories) / len(histories)) for mark in marks if all(mark in h for h in histories)]
