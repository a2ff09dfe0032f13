"""Settings on Ray Tune: ASHA among the settings of each row, Optuna for each row. Beside `bench.sweep` all that imports ray.

One Tune trial is one setting. Without ASHA and Optuna this file is not needed: the trials of a tune are then a sweep like any other. As
there, records on disk are the only state; a restarted tune tells schedulers and searchers what the records hold.
"""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from ray import tune

from bench import progress
from bench.progress import Board
from bench.storage import printed_to
from bench.sweep import interrupt as interrupts
from bench.sweep import on_ray as sweep
from bench.sweep import preflight
from bench.sweep.interrupt import Interrupt
from bench.sweep.jobs import Limits, make_job
from bench.sweep.losses import LostWorkers, out_of_memory, tune_failures
from bench.sweep.place import Slots
from bench.trial import Launch
from bench.tuning.on_ray.points import describe_point, point_folder, point_name
from bench.tuning.on_ray.schedulers import RowSchedulers
from bench.tuning.on_ray.searchers import RowSearchers
from bench.tuning.plan import Point, TunedRow
from bench.tuning.point import record_death


def train_on_ray(config: dict[str, Any], *, launch: dict[str, Any], rows: dict[str, list[dict[str, Any]]], max_attempts: int) -> None:
    """Train one setting in a Ray worker: the trainable."""
    started = time.time()
    from bench.config import TrialConfig
    from bench.tuning.point import run_point
    from bench.tuning.space import with_values

    if not launch["gpus_per_trial"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves the devices of a node visible to a trial that was given none
    trials = [with_values(TrialConfig.from_dict(base), config["values"]) for base in rows[config["row"]]]
    run_point(trials, Launch(**launch), started, tune.report, max_attempts)


def board_callback(launch: Launch, limits: Limits) -> tune.Callback:
    """Return a Tune callback that feeds the board, and notes how workers end. Tune pickles it: the board is reached through its module."""
    lost = LostWorkers("died with its worker", limits.max_attempts)

    class BoardCallback(tune.Callback):
        def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            lost.note(trial, [launch.suite_dir / "checkpoints" / f"{run_id}.attempts" for run_id in trial.config["run_ids"]])

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
    return launch, sweep.bundle_of(max(jobs, key=lambda job: job["cpus"]), sorted(cluster.left_out))


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
        tune.with_resources(partial(train_on_ray, launch=asdict(launch), rows=bases, max_attempts=limits.max_attempts), resources),
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
            failure_config=tune.FailureConfig(max_failures=tune_failures(limits.max_attempts)),
            callbacks=[board_callback(launch, limits)],
            verbose=0,
        ),
    )
    try:
        with printed_to(launch.suite_dir / "ray.log"):
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
                    status = "oom" if out_of_memory(f"{type(result.error).__name__} {result.error}") else "killed"
                    record_death(trial, launch, status, f"the worker died: {result.error}")
