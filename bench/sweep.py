"""Places trials on Ray Tune, or runs them in this process. The only file that imports ray.

Records on disk are the only state: each launch is a fresh Tuner over the trials that have none. `Tuner.restore` is not used, because it
ignores trials added later, accepts changed code, and starts everything again from a damaged state file.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import progress
from bench.errors import SuiteError
from bench.progress import Board
from bench.provenance import REPOSITORY
from bench.record import read_record, write_record

if TYPE_CHECKING:  # a worker imports this module before the clock of its trial starts: torch comes inside of the functions
    from bench.config import TrialConfig
    from bench.trial import Launch

MAX_FRUITLESS_STARTS = 10
"""So often may a trial's process die without finishing an epoch; then the trial is recorded as failed."""

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


class SweepError(SuiteError):
    """The sweep cannot start; the message says what to do."""


def run_serial(trials: "list[TrialConfig]", launch: "Launch", board: Board) -> None:
    """Run trials one after the other in this process."""
    for trial in trials:
        board.started(trial.run_id)
        record = attempt_trial(trial, launch, time.time(), partial(board.epoch, trial.run_id, trial.recipe.epochs))
        board.finished(trial.run_id, trial.recipe.epochs, record["status"])


def attempt_trial(trial: "TrialConfig", launch: "Launch", started: float, on_epoch: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run a trial and keep count of its starts and epochs over all launches, one line each, until it has a record."""
    from bench.trial import iso, run_trial

    attempts = launch.suite_dir / "checkpoints" / f"{trial.run_id}.attempts"
    attempts.parent.mkdir(parents=True, exist_ok=True)
    lines = attempts.read_text(encoding="utf-8").splitlines() if attempts.exists() else []
    epochs = [i for i, line in enumerate(lines) if line.startswith("epoch")]
    fruitless = len(lines) - (epochs[-1] + 1 if epochs else 0)
    attempt = 1 + sum(line.startswith("start") for line in lines)
    if fruitless >= MAX_FRUITLESS_STARTS:
        return record_death(trial, launch, attempt - 1, "failed", f"the process died {fruitless} times without finishing an epoch")
    with attempts.open("a", encoding="utf-8") as file:
        print(f"start {iso(started)} pid {os.getpid()}", file=file, flush=True)

        def counted(line: dict[str, Any]) -> None:
            print(f"epoch {line['epoch']}", file=file, flush=True)
            on_epoch(line)

        record = run_trial(trial, launch, started=started, attempt=attempt, on_epoch=counted)
    attempts.unlink(missing_ok=True)
    return record


def record_death(trial: "TrialConfig", launch: "Launch", attempt: int, status: str, reason: str) -> dict[str, Any]:
    """Write and return the record of a trial that could not write its own; its checkpoint goes, so that a rerun starts anew."""
    from bench.trial import describe, iso

    now = iso(time.time())
    timing = {"trial_start": now, "end": now, "total_seconds": 0.0}
    record = describe(trial, launch, attempt) | {"status": status, "reason": reason, "timing": timing}
    path = write_record(launch.suite_dir / "records", record, None)
    for suffix in (".pt", ".attempts"):
        (launch.suite_dir / "checkpoints" / f"{trial.run_id}{suffix}").unlink(missing_ok=True)
    return read_record(path)


def train_on_ray(config: dict[str, Any], *, launch: dict[str, Any]) -> None:
    """Run one trial in a Ray worker: the trainable."""
    started = time.time()
    from ray import tune

    from bench.config import TrialConfig
    from bench.trial import Launch

    launch = Launch(**launch)
    if not launch.gpus_per_trial:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves the devices of a node visible to a trial that was given none
    trial = TrialConfig.from_dict(config["trial"])

    def on_epoch(line: dict[str, Any]) -> None:
        tune.report({"epoch": line["epoch"], "loss": line["loss"], "status": "running"})

    record = attempt_trial(trial, launch, started, on_epoch)
    tune.report({"epoch": trial.recipe.epochs, "loss": 0.0, "status": record["status"]})


def run_ray(trials: "list[TrialConfig]", launch: "Launch", board: Board, *, address: str | None, cpus_per_trial: int | None) -> None:
    """Run trials on Ray Tune, as many at a time as the cluster has room for.

    Args:
        trials: To run.
        launch: Where; `gpus_per_trial` None means 1 where the cluster has GPUs, else 0.
        board: Told of the progress.
        address: A running cluster's; None joins the one in RAY_ADDRESS, or starts one on this machine.
        cpus_per_trial: None means a trial's threads and its loader processes.

    Raises:
        SweepError: The cluster cannot be joined, or no node has room for one trial.
    """
    os.environ.update({key: value for key, value in RAY_ENVIRONMENT.items() if key not in os.environ})
    import ray
    from ray import tune

    storage, started = launch.suite_dir / "ray", time.time()
    connect(ray, address)
    progress.CURRENT = board
    try:
        gpus = launch.gpus_per_trial
        gpus = float(ray.cluster_resources().get("GPU", 0) >= 1) if gpus is None else gpus
        cpus = cpus_per_trial or max(trial.recipe.threads for trial in trials) + launch.loader_workers
        launch = replace(launch, gpus_per_trial=gpus)
        require_room(ray, cpus, gpus)
        tuner = tune.Tuner(
            tune.with_resources(partial(train_on_ray, launch=asdict(launch)), {"CPU": cpus, "GPU": gpus}),
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
        with (launch.suite_dir / "ray.log").open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            results = tuner.fit()
    finally:
        progress.CURRENT = None
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)
    record_deaths(trials, launch, results, started)


def record_deaths(trials: "list[TrialConfig]", launch: "Launch", results: Any, started: float) -> None:
    """Record the trials whose worker began and died. One that never began is a matter of the cluster: it stays to do."""
    from bench.config import TrialConfig

    errors = {TrialConfig.from_dict(result.config["trial"]).run_id: result.error for result in results if result.error and result.config}
    for trial in trials:
        path = launch.suite_dir / "records" / f"{trial.run_id}.json"
        attempts = launch.suite_dir / "checkpoints" / f"{trial.run_id}.attempts"
        if trial.run_id in errors and attempts.exists() and not (path.exists() and path.stat().st_mtime >= started):
            starts = sum(line.startswith("start") for line in attempts.read_text(encoding="utf-8").splitlines())
            error = errors[trial.run_id]
            status = "oom" if "OutOfMemory" in type(error).__name__ + str(error) else "failed"
            record_death(trial, launch, starts, status, f"the worker died: {error}")


def connect(ray: Any, address: str | None) -> None:
    """Join the cluster at `address` or in RAY_ADDRESS, or start one on this machine, closed to others."""
    paths = filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))
    environment = {"env_vars": WORKER_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}}
    shared = {"runtime_env": environment, "log_to_driver": False, "logging_level": "ERROR"}
    address = address or os.environ.get("RAY_ADDRESS")
    if address:
        try:
            ray.init(address=address, **shared)
        except ConnectionError as error:
            raise SweepError(f"no Ray cluster answers at {address}: {error}; check --address and RAY_ADDRESS") from error
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
    from bench.config import TrialConfig

    return TrialConfig.from_dict(trial.config["trial"]).run_id


def board_callback(tune: Any) -> type:
    """Return a Tune callback that feeds the board."""

    class BoardCallback(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            progress.CURRENT.started(run_id_of(trial))

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            epochs = trial.config["trial"]["recipe"]["epochs"]
            if result["status"] == "running":
                progress.CURRENT.epoch(run_id_of(trial), epochs, result)
            else:
                progress.CURRENT.finished(run_id_of(trial), epochs, result["status"])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            progress.CURRENT.finished(run_id_of(trial), trial.config["trial"]["recipe"]["epochs"], "failed")

    return BoardCallback
