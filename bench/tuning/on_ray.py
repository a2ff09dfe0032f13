"""Settings on Ray Tune: ASHA among the settings of each row, Optuna for each row. Beside `bench.sweep` the only file that imports ray.

One Tune trial is one setting. Without ASHA and Optuna this file is not needed: the trials of a tune are then a sweep like any other. As
there, records on disk are the only state; a restarted tune tells schedulers and searchers what the records hold.
"""

import contextlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from bench import progress
from bench.progress import Board
from bench.record import write_atomically
from bench.sweep import interrupt as interrupts
from bench.sweep import on_ray as sweep
from bench.sweep import preflight
from bench.sweep.interrupt import Interrupt
from bench.sweep.jobs import Limits, make_job
from bench.sweep.place import Slots
from bench.trial import Launch
from bench.tuning.plan import REDUCTION_FACTOR, Point, TunedRow, records_of, rungs
from bench.tuning.point import WORST_SCORE, record_death, take_stopped
from bench.tuning.space import rounded
from methods.base import Range


def train_on_ray(config: dict[str, Any], *, launch: dict[str, Any], rows: dict[str, list[dict[str, Any]]]) -> None:
    """Train one setting in a Ray worker: the trainable."""
    started = time.time()
    from bench.config import TrialConfig
    from bench.tuning.point import run_point
    from bench.tuning.space import with_values

    if not launch["gpus_per_trial"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves the devices of a node visible to a trial that was given none
    trials = [with_values(TrialConfig.from_dict(base), config["values"]) for base in rows[config["row"]]]
    run_point(trials, Launch(**launch), started, tune.report)


def describe_point(point: Point) -> dict[str, Any]:
    """Return a setting as a Tune trial holds it."""
    return {"row": point.row, "index": point.index, "values": point.values, "run_ids": [trial.run_id for trial in point.trials]}


def point_name(trial: Any) -> str:
    """Return the name of a setting, by which the board knows it."""
    return f"{trial.config['row']} #{trial.config['index']}"


def point_folder(trial: Any) -> str:
    """Return the name of a setting's folder at Tune."""
    return f"{trial.config['run_ids'][0]}-{trial.trial_id}"


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


class RowSearchers(Searcher):
    """One Optuna study a row, the rows in turn; each asked-for setting is written down before it runs, so that a killed tune keeps it.

    Args:
        rows: To tune.
        budget: Settings a row.
        seed: Of the studies' samplers.
        tuning_dir: Where records and asked-for settings are.
    """

    def __init__(self, rows: Sequence[TunedRow], budget: int, seed: int, tuning_dir: Path) -> None:
        super().__init__(metric="score", mode="max")
        self.rows = {tuned.row.label: tuned for tuned in rows}
        self.asked = {label: asked_points(tuned, tuning_dir) for label, tuned in self.rows.items()}
        seeds = {label: seed + len(points) for label, points in self.asked.items()}  # else a restarted sampler would repeat itself
        self.studies = {label: study_of(tuned.space, seeds[label]) for label, tuned in self.rows.items()}
        self.tuning_dir, self.owner = tuning_dir, {}
        self.queue: deque[tuple[str, int]] = deque()
        for index in range(budget):
            for label, points in self.asked.items():
                records = records_of(points[index], tuning_dir) if index < len(points) else [None]
                if all(records):
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
        if index >= len(points):
            suggested = self.studies[label].suggest(trial_id)
            self.owner[trial_id] = label
            points.append(self.rows[label].point(index, {name: rounded(value) for name, value in suggested.items()}))
            path = asked_dir(self.rows[label], self.tuning_dir) / f"{index:04d}.json"
            write_atomically(path, json.dumps({"row": label, "index": index, "values": points[index].values}) + "\n")
        return describe_point(points[index])

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
        sweep.SweepError: Optuna is not installed.
    """
    from ray.tune.search.optuna import OptunaSearch

    try:
        import optuna
    except ImportError as error:
        raise sweep.SweepError("--searcher optuna needs optuna: pip install -c constraints.txt '.[optuna]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {
        name: optuna.distributions.FloatDistribution(interval.low, interval.high, log=interval.log) for name, interval in space.items()
    }
    return OptunaSearch(distributions, metric="score", mode="max", seed=seed)


def asked_dir(tuned: TunedRow, tuning_dir: Path) -> Path:
    """Return where a row's asked-for settings are kept, by what its trials share."""
    return tuning_dir / "asked" / f"{tuned.bases[0].cell_id}-{tuned.row.kind}"


def asked_points(tuned: TunedRow, tuning_dir: Path) -> list[Point]:
    """Return the settings that a row's searcher has asked for so far, in order."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(asked_dir(tuned, tuning_dir).glob("*.json"))]
    return [tuned.point(i, asked["values"]) for i, asked in enumerate(found)]


def board_callback() -> tune.Callback:
    """Return a Tune callback that feeds the board. Tune pickles its callbacks: the board is reached through its module."""

    class BoardCallback(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            progress.CURRENT.started(point_name(trial))

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if result["status"] == "running":
                if not result.get("done"):  # one that ASHA stops is done already
                    progress.CURRENT.epoch(point_name(trial), result)
            else:
                progress.CURRENT.finished(point_name(trial), result["status"])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            progress.CURRENT.finished(point_name(trial), "failed")

    return BoardCallback()


def run_points(
    rows: Sequence[TunedRow],
    *,
    points: Sequence[Point] | None,
    known: Sequence[tuple[Point, list[tuple[int, float]]]],
    budget: int,
    asha: bool,
    launch: Launch,
    slots: Slots,
    limits: Limits,
    quiet: bool,
) -> None:
    """Run settings on Ray Tune.

    Args:
        rows: All rows of the tune.
        points: The settings to run; None lets Optuna choose them, `budget` a row.
        known: Settings that have all their records, with their scores at the rungs.
        budget: Settings a row.
        asha: Whether ASHA may stop settings.
        launch, slots, limits: As in `bench.sweep.place`.
        quiet: Whether to show nothing.

    Raises:
        KeyboardInterrupt: Ctrl-C: what ran has finished, or after a second one was killed.
    """
    epochs = {tuned.row.label: tuned.bases[0].recipe.epochs for tuned in rows}
    done = {f"{point.row} #{point.index}" for point, _ in known}
    asked = {f"{label} #{i}": (label, count) for label, count in epochs.items() for i in range(budget)}
    with Board({name: shown for name, shown in asked.items() if name not in done}, quiet=quiet) as board, Interrupt(board.say) as interrupt:
        progress.CURRENT, interrupts.CURRENT = board, interrupt
        try:
            with sweep.connected(slots.address) as cluster:
                launch, resources = fitted(rows, launch, slots, limits, cluster, board)
                search = None if points is not None else RowSearchers(rows, budget, 0, launch.suite_dir)
                scheduler = RowSchedulers(epochs, known, launch.suite_dir, asha=asha)
                results = fit_points(rows, points, search, scheduler, launch, resources, limits)
        finally:
            progress.CURRENT = interrupts.CURRENT = None
    record_deaths(rows, launch, results)
    if interrupt.stopping:
        raise KeyboardInterrupt


def fitted(
    rows: Sequence[TunedRow], launch: Launch, slots: Slots, limits: Limits, cluster: sweep.Cluster, board: Board
) -> tuple[Launch, tune.PlacementGroupFactory]:
    """Check that the cluster's nodes are fit and have room; return the launch with a trial's share of GPUs, and what a trial asks for."""
    launch = replace(launch, gpus_per_trial=float(cluster.has_gpus()) if slots.gpus is None else slots.gpus)
    expected = preflight.expectation(launch.suite_dir, launch.data_root, launch.weights_file)
    try:
        for line in sweep.check_nodes(cluster, expected, gpus=launch.gpus_per_trial, leave_out=slots.leave_out_broken_nodes):
            board.say(line)
    finally:
        preflight.forget(expected)
    bases = [base for tuned in rows for base in tuned.bases]
    jobs = [make_job(base, launch, limits, gpus=launch.gpus_per_trial, cpus=slots.cpus) for base in bases]
    sweep.require_fitting(jobs, cluster)
    return launch, sweep.resources({"job": max(jobs, key=lambda job: job["cpus"])}, sorted(cluster.left_out))


def fit_points(
    rows: Sequence[TunedRow],
    points: Sequence[Point] | None,
    search: RowSearchers | None,
    scheduler: RowSchedulers,
    launch: Launch,
    resources: tune.PlacementGroupFactory,
    limits: Limits,
) -> Any:
    """Let Tune run the settings; return its results."""
    bases = {tuned.row.label: [base.to_dict() for base in tuned.bases] for tuned in rows}
    storage = launch.suite_dir / "ray"
    tuner = tune.Tuner(
        tune.with_resources(partial(train_on_ray, launch=asdict(launch), rows=bases), resources),
        param_space=None if points is None else tune.grid_search([describe_point(point) for point in points]),
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=1 if search is None else len(search.queue),
            scheduler=scheduler,
            reuse_actors=False,
            trial_name_creator=point_folder,
            trial_dirname_creator=point_folder,
        ),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str(storage.resolve()),
            failure_config=tune.FailureConfig(max_failures=limits.max_attempts - 1),
            callbacks=[board_callback()],
            verbose=0,
        ),
    )
    try:
        with (launch.suite_dir / "ray.log").open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            return tuner.fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def record_deaths(rows: Sequence[TunedRow], launch: Launch, results: Any) -> None:
    """Record the trials whose worker began and died. One that never began is a matter of the cluster: it stays to do."""
    by_label = {tuned.row.label: tuned for tuned in rows}
    for result in results:
        if result.error and result.config:
            for trial in by_label[result.config["row"]].point(result.config["index"], result.config["values"]).trials:
                begun = (launch.suite_dir / "checkpoints" / f"{trial.run_id}.attempts").exists()
                if begun and not (launch.suite_dir / "records" / f"{trial.run_id}.json").exists():
                    record_death(trial, launch, f"the worker died: {result.error}")


def scores_at_rungs(records: Sequence[dict[str, Any]], marks: Sequence[int]) -> list[tuple[int, float]]:
    """Return (rung, mean score) of a setting whose trials all have records, for the rungs that all of them reached."""
    if any(record["status"] not in ("ok", "stopped") for record in records):
        return [(marks[0], WORST_SCORE)]
    histories = [{line["epoch"]: line["held_out"]["score"] for line in record["history"] if "held_out" in line} for record in records]
    return [(mark, sum(h[mark] for h in histories) / len(histories)) for mark in marks if all(mark in h for h in histories)]
