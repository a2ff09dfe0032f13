"""Places trials on Ray Tune, or runs them in this process. The only file that imports ray.

Records on disk are the only state: each launch is a fresh Tuner over the trials that have none. `Tuner.restore` is not used, because it
ignores trials added later, accepts changed code, and starts everything again from a damaged state file.
"""

import contextlib
import os
import shutil
import sys
import time
from dataclasses import asdict
from functools import partial
from typing import Any

from bench import progress
from bench.config import TrialConfig
from bench.progress import Board
from bench.record import read_record, write_record
from bench.trial import Launch, describe, iso, run_trial

MAX_ATTEMPTS = 3
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "60",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
WORKER_ENVIRONMENT = {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
OBJECT_STORE_BYTES = 200 * 2**20


class SweepError(RuntimeError):
    """The sweep cannot start; the message says what to do."""


def run_serial(trials: list[TrialConfig], launch: Launch, board: Board) -> None:
    """Run trials one after the other in this process."""
    for trial in trials:
        board.started(trial.run_id)
        record = attempt_trial(
            trial, launch, time.time(), lambda line, t=trial: board.epoch(t.run_id, line["epoch"], t.recipe.epochs, line["loss"])
        )
        board.finished(trial.run_id, trial.recipe.epochs, record["status"])


def attempt_trial(trial: TrialConfig, launch: Launch, started: float, on_epoch: Any) -> dict[str, Any]:
    """Run a trial, counting attempts over all launches; one that has killed its process too often is recorded as failed."""
    attempts = launch.suite_dir / "checkpoints" / f"{trial.run_id}.attempts"
    attempts.parent.mkdir(parents=True, exist_ok=True)
    with attempts.open("a", encoding="utf-8") as file:
        file.write(f"{iso(started)} pid {os.getpid()}\n")
    attempt = len(attempts.read_text(encoding="utf-8").splitlines())
    if attempt > MAX_ATTEMPTS:
        record = record_death(trial, launch, attempt - 1, f"the process died in each of {attempt - 1} attempts (killed, or out of memory)")
    else:
        record = run_trial(trial, launch, started=started, attempt=attempt, on_epoch=on_epoch)
    attempts.unlink(missing_ok=True)
    return record


def record_death(trial: TrialConfig, launch: Launch, attempt: int, reason: str) -> dict[str, Any]:
    """Write and return the record of a trial that could not write its own."""
    now = iso(time.time())
    timing = {"trial_start": now, "end": now, "total_seconds": 0.0}
    record = describe(trial, launch, attempt) | {"status": "failed", "reason": reason, "timing": timing}
    path = write_record(launch.suite_dir / "records", record, None)
    (launch.suite_dir / "checkpoints" / f"{trial.run_id}.attempts").unlink(missing_ok=True)
    return read_record(path)


def train_on_ray(config: dict[str, Any], *, launch: dict[str, Any]) -> None:
    """Run one trial in a Ray worker: the trainable."""
    started = time.time()
    from ray import tune

    launch = Launch(**launch)
    trial = TrialConfig.from_dict(config["trial"])

    def on_epoch(line: dict[str, Any]) -> None:
        tune.report({"epoch": line["epoch"], "loss": line["loss"], "status": "running"})

    record = attempt_trial(trial, launch, started, on_epoch)
    tune.report({"epoch": trial.recipe.epochs, "loss": 0.0, "status": record["status"]})


def run_ray(
    trials: list[TrialConfig], launch: Launch, board: Board, *, address: str | None, cpus_per_trial: float, gpus_per_trial: float
) -> None:
    """Run trials on Ray Tune, as many at a time as the cluster has room for.

    Raises:
        SweepError: No node has room for one trial.
    """
    os.environ.update({key: value for key, value in RAY_ENVIRONMENT.items() if key not in os.environ})
    import ray
    from ray import tune

    storage, log = launch.suite_dir / "ray", launch.suite_dir / "ray.log"
    connect(ray, address)
    progress.CURRENT = board
    try:
        require_room(ray, cpus_per_trial, gpus_per_trial)
        trainable = partial(train_on_ray, launch=asdict(launch))
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"CPU": cpus_per_trial, "GPU": gpus_per_trial}),
            param_space={"trial": tune.grid_search([trial.to_dict() for trial in trials])},
            tune_config=tune.TuneConfig(trial_name_creator=run_id_of, trial_dirname_creator=run_id_of, reuse_actors=False),
            run_config=tune.RunConfig(
                name=time.strftime("%Y%m%d-%H%M%S"),
                storage_path=str(storage.resolve()),
                failure_config=tune.FailureConfig(max_failures=1),
                callbacks=[board_callback(tune)()],
                verbose=0,
            ),
        )
        with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            results = tuner.fit()
    finally:
        progress.CURRENT = None
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)
    errors = {TrialConfig.from_dict(result.config["trial"]).run_id: result.error for result in results if result.error and result.config}
    for trial in trials:
        if trial.run_id in errors and not (launch.suite_dir / "records" / f"{trial.run_id}.json").exists():
            record_death(trial, launch, 1, f"the worker died: {errors[trial.run_id]}")


def connect(ray: Any, address: str | None) -> None:
    """Join the cluster at `address`, or start one on this machine, closed to others."""
    environment = {"env_vars": WORKER_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}
    shared = {"runtime_env": environment, "log_to_driver": False, "logging_level": "ERROR"}
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, **shared)
    else:
        ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **shared)


def require_room(ray: Any, cpus: float, gpus: float) -> None:
    """Raise SweepError when no living node has the resources of one trial: such a trial would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        have = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise SweepError(
            f"a trial asks for {cpus:g} CPUs and {gpus:g} GPUs, but the nodes have {have}; lower --cpus-per-trial or --gpus-per-trial"
        )


def run_id_of(trial: Any) -> str:
    """Return the run_id of a Tune trial."""
    return TrialConfig.from_dict(trial.config["trial"]).run_id


def board_callback(tune: Any) -> type:
    """Return a Tune callback that feeds the board."""

    class BoardCallback(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            progress.CURRENT.started(run_id_of(trial))

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            epochs = trial.config["trial"]["recipe"]["epochs"]
            if result["status"] == "running":
                progress.CURRENT.epoch(run_id_of(trial), result["epoch"], epochs, result["loss"])
            else:
                progress.CURRENT.finished(run_id_of(trial), epochs, result["status"])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            progress.CURRENT.finished(run_id_of(trial), trial.config["trial"]["recipe"]["epochs"], "failed")

    return BoardCallback
