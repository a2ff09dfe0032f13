"""Runs settings on Ray Tune: checks the cluster, makes the jobs of each setting, and lets Tune place, stop and search."""

import json
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from ray import tune

from bench import progress
from bench.progress import Board
from bench.storage import StorageError, printed_to
from bench.sweep import interrupt as interrupts
from bench.sweep import on_ray as sweep
from bench.sweep import preflight
from bench.sweep.interrupt import Interrupt
from bench.sweep.jobs import Limits, make_job
from bench.sweep.losses import LostWorkers, tune_failures
from bench.sweep.place import Slots
from bench.trial import Launch
from bench.tuning.on_ray.points import describe_point, point_folder, point_name
from bench.tuning.on_ray.schedulers import RowSchedulers
from bench.tuning.on_ray.searchers import RowSearchers
from bench.tuning.on_ray.worker import attend
from bench.tuning.plan import Point, TunedRow, rungs
from bench.tuning.point import ENTRY, forget


def board_callback(launch: Launch, limits: Limits) -> tune.Callback:
    """Return a Tune callback that feeds the board, and notes how workers end. Tune pickles it: the board is reached through its module."""
    lost = LostWorkers("lost with its supervisor", limits.max_attempts)

    class BoardCallback(tune.Callback):
        def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            lost.note(trial, [launch.suite_dir / "checkpoints" / f"{run_id}.attempts" for run_id in trial.config["run_ids"]])

        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            progress.CURRENT.started(point_name(trial))

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if result["status"] == "running":
                if not result.get("done"):  # one that ASHA stops is done already
                    progress.CURRENT.epoch(point_name(trial), result)
            elif result["status"] == "storage":
                raise StorageError(result["message"])
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
    again: Collection[str],
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
        again: Run ids of trials whose record is made again.
        budget: Settings a row.
        asha: Whether ASHA may stop settings.
        launch, slots, limits: As in `bench.sweep.place`.
        quiet: Whether to show nothing.

    Raises:
        KeyboardInterrupt: Ctrl-C: what ran has finished, or after a second one was killed.
        StorageError: The disk does not take what a trial writes.
    """
    epochs = {tuned.row.label: tuned.bases[0].recipe.epochs for tuned in rows}
    search = RowSearchers(rows, budget, 0, launch.suite_dir, again) if points is None else None
    waiting = [(point.row, point.index) for point in points] if search is None else list(search.queue)
    with Board({f"{row} #{i}": (row, epochs[row]) for row, i in waiting}, quiet=quiet) as board, Interrupt(board.say) as interrupt:
        progress.CURRENT, interrupts.CURRENT = board, interrupt
        try:
            with sweep.connected(slots.address) as cluster:
                launch, resources = fitted(rows, launch, slots, limits, cluster, board)
                describe = describer(launch, limits, slots, again, asha=asha)
                scheduler = RowSchedulers(epochs, known, launch.suite_dir, asha=asha)
                results = fit_points(points, search, describe, scheduler, launch, resources, limits)
                record_deaths(results, launch)
        finally:
            progress.CURRENT = interrupts.CURRENT = None
    if interrupt.stopping:
        raise KeyboardInterrupt


def describer(launch: Launch, limits: Limits, slots: Slots, again: Collection[str], *, asha: bool) -> Callable[[Point], dict[str, Any]]:
    """Return what turns a setting into what Tune holds of it: the setting, the jobs of its trials, and where they wait for each other."""

    def described(point: Point) -> dict[str, Any]:
        room = {"gpus": launch.gpus_per_trial, "cpus": slots.cpus, "entry": ENTRY}
        jobs = [make_job(trial, launch, limits, redo=trial.run_id in again, **room) for trial in point.trials]
        marks = rungs(jobs[0]["epochs"])
        return describe_point(point) | {"jobs": json.dumps(jobs, default=str), "rungs": marks if asha else marks[-1:]}

    return described


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
    points: Sequence[Point] | None,
    search: RowSearchers | None,
    describe: Callable[[Point], dict[str, Any]],
    scheduler: RowSchedulers,
    launch: Launch,
    resources: tune.PlacementGroupFactory,
    limits: Limits,
) -> Any:
    """Let Tune run the settings; return its results."""
    storage = launch.suite_dir / "ray"
    if search is not None:
        search.describe = describe
    tuner = tune.Tuner(
        tune.with_resources(attend, resources),
        param_space=None if points is None else tune.grid_search([describe(point) for point in points]),
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=1 if search is None else len(search.queue),
            scheduler=scheduler,
            reuse_actors=True,
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


def record_deaths(results: Any, launch: Launch) -> None:
    """Record the trials whose worker died too often. One that never began is a matter of the cluster: it stays to do."""
    for result in results:
        if result.error and result.config:
            jobs = json.loads(result.config["jobs"])
            sweep.record_deaths(jobs, {job["run_id"]: result.error for job in jobs})
            forget([job["run_id"] for job in jobs], launch.suite_dir)
