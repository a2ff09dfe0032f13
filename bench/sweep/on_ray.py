"""Lets Ray Tune place the supervisors on a cluster, or on this machine.

Each launch is a fresh Tuner over what has no record; `Tuner.restore` is not used, because it ignores trials added later, accepts changed
code, and starts everything again from a damaged state file. Tune's actors are reused: they hold a supervisor, and every trial gets a fresh
process from it. Trials go to Tune in chunks, which bounds what the driver holds.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import progress
from bench.errors import SuiteError
from bench.progress import Board
from bench.provenance import REPOSITORY
from bench.storage import StorageError, printed_to
from bench.sweep import interrupt as interrupts
from bench.sweep import preflight
from bench.sweep.attempts import Attempts, times
from bench.sweep.interrupt import Interrupt, kill_descendants
from bench.sweep.losses import LostWorkers, end_of, out_of_memory, tune_failures
from bench.sweep.nursery import WORKER_ENVIRONMENT
from bench.sweep.reachable import silent_at
from bench.sweep.room import require_room
from bench.sweep.supervise import Supervisor, recorded

if TYPE_CHECKING:
    from collections.abc import Sequence

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
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""What makes a Ray that is started here listen on 127.0.0.1 alone (elsewhere than on macOS and Windows, where it is the default)."""

OBJECT_STORE_BYTES = 200 * 2**20
CHUNK, CHUNK_A_SLOT = 500, 50
"""Trials that Tune knows of at a time, at least, in all and for each slot: at the end of a chunk slots wait for its last trials, and each
trial costs the driver 0.05 MB."""

EXCLUDED = ["/results/", "/.git/", "/.venv/", "/tests/", "/.pytest_cache/", "/.ruff_cache/", "__pycache__/", "*.pyc", "*.log"]
"""What does not travel to a cluster with the code."""


class SweepError(SuiteError):
    """The sweep cannot start; the message says what to do."""


class Cluster:
    """A connection to Ray, as `connected` gives it."""

    def __init__(self, ray: Any, local: bool) -> None:
        self.ray, self.local = ray, local
        self.left_out: frozenset[str] = frozenset()

    def nodes(self) -> list[dict[str, Any]]:
        """List the living nodes that trials may use."""
        return [node for node in self.ray.nodes() if node["Alive"] and node["NodeID"] not in self.left_out]

    def has_gpus(self) -> bool:
        """Whether any node has a GPU."""
        return any(node["Resources"].get("GPU", 0) >= 1 for node in self.nodes())

    def whole_node_cpus(self) -> int:
        """Return how many CPUs a job must ask for to share no node with another that asks for as many."""
        return int(max((node["Resources"].get("CPU", 0) for node in self.nodes()), default=1)) // 2 + 1


def set_environment(address: str | None) -> None:
    """Set what Ray reads when it is imported, as far as the user has not; `address` is a cluster's to join, or None."""
    address = address or os.environ.get("RAY_ADDRESS")
    settings = RAY_ENVIRONMENT | ({} if address and address != "local" else LOOPBACK)
    os.environ.update({key: value for key, value in settings.items() if key not in os.environ})


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """Join the cluster at `address` or in RAY_ADDRESS, or start one on this machine, closed to others.

    Code travels to the workers of a cluster that was joined; those of one that was started here read this checkout.

    Raises:
        SweepError: No cluster answers.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    local, shared = not address or address == "local", {"log_to_driver": False, "logging_level": "ERROR"}
    if not local and (silent := silent_at(address)) is not None:
        raise SweepError(f"no Ray cluster can be joined at {address}: {silent}; check --address and RAY_ADDRESS")
    set_environment(address)
    import ray

    try:
        if not local:
            environment = {"env_vars": WORKER_ENVIRONMENT, "working_dir": str(REPOSITORY), "excludes": EXCLUDED}
            try:
                ray.init(address=address, runtime_env=environment, **shared)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise SweepError(f"no Ray cluster can be joined at {address}: {error}; check --address and RAY_ADDRESS") from error
        else:
            paths = filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))
            environment = {"env_vars": WORKER_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}}
            ray.init(address="local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, runtime_env=environment, **shared)
        yield Cluster(ray, local=local)
    except KeyboardInterrupt:
        if local:
            kill_descendants()  # nothing is left to shut down
        else:
            ray.shutdown()
        raise
    except BaseException:
        ray.shutdown()
        raise
    else:
        ray.shutdown()


def check_nodes(cluster: Cluster, expected: dict[str, Any], *, gpus: float, leave_out: bool) -> list[str]:
    """Look at every node before any trial starts; the broken ones are left out where that is wanted.

    Returns:
        A line about every node that is left out.

    Raises:
        PreflightError: Naming the broken nodes.
    """
    nodes = cluster.nodes()
    if cluster.local:  # this machine: the driver itself looks
        answer = preflight.examine(expected, 0)
        broken = {nodes[0]["NodeID"]: ["this machine", *found]} if (found := preflight.defects(expected, answer)) else {}
    else:
        broken = preflight.examine_cluster(cluster.ray, nodes, expected, gpus)
    preflight.require_fit(broken, nodes=len(nodes), leave_out=leave_out)
    cluster.left_out = frozenset(broken)
    return [f"left out: node {name}: {'; '.join(problems)}" for name, *problems in broken.values()]


def require_fitting(jobs: "Sequence[dict[str, Any]]", cluster: Cluster) -> None:
    """Raise RoomError, with the numbers, where a job fits on no node: it would wait for ever."""
    require_room(jobs, [node["Resources"] for node in cluster.nodes()])


def run_ray(jobs: "Sequence[dict[str, Any]]", cluster: Cluster, board: Board, interrupt: Interrupt, suite_dir: Path) -> None:
    """Run jobs on a cluster in their order, as many at a time as there is room for; after the first Ctrl-C start no more.

    Raises:
        StorageError: The disk does not take what a trial writes.
        KeyboardInterrupt: The second Ctrl-C.
    """
    storage = suite_dir / "ray"
    progress.CURRENT, interrupts.CURRENT = board, interrupt
    try:
        length = chunk_length(jobs, cluster)
        for start in range(0, len(jobs), length):
            if not interrupt.stopping:
                run_chunk(jobs[start : start + length], cluster, suite_dir, storage)
    finally:
        progress.CURRENT = interrupts.CURRENT = None
        shutil.rmtree(storage, ignore_errors=True)


def chunk_length(jobs: "Sequence[dict[str, Any]]", cluster: Cluster) -> int:
    """Return how many trials go to Tune at a time."""
    asked = {"CPU": max((job["cpus"] for job in jobs), default=1), "GPU": max((job["gpus"] for job in jobs), default=0)}
    there = {name: sum(node["Resources"].get(name, 0) for node in cluster.nodes()) for name in asked}
    slots = min(there[name] / amount for name, amount in asked.items() if amount)
    return max(CHUNK, int(CHUNK_A_SLOT * slots))


def run_chunk(jobs: "Sequence[dict[str, Any]]", cluster: Cluster, suite_dir: Path, storage: Path) -> None:
    """Run one chunk through a Tuner of its own."""
    from ray import tune

    by_id, attempts = {job["run_id"]: job for job in jobs}, max(job["max_attempts"] for job in jobs)
    tuner = tune.Tuner(
        tune.with_resources(attend, partial(resources, left_out=sorted(cluster.left_out))),
        param_space={"job": tune.grid_search([json.dumps(job, default=str) for job in jobs])},  # text: Tune copies all of it for each trial
        tune_config=tune.TuneConfig(
            trial_name_creator=run_id_of, trial_dirname_creator=run_id_of, reuse_actors=True, scheduler=draining_scheduler()
        ),
        run_config=tune.RunConfig(
            name=time.strftime("%Y%m%d-%H%M%S"),
            storage_path=str(storage.resolve()),
            failure_config=tune.FailureConfig(max_failures=tune_failures(attempts)),
            callbacks=[board_callback(tune)(LostWorkers("lost with its supervisor", attempts))],
            verbose=0,
        ),
    )
    with printed_to(suite_dir / "ray.log"):
        results = tuner.fit()
    errors = {job_of(result.config)["run_id"]: result.error for result in results if result.error and result.config}
    record_deaths([by_id[run_id] for run_id in errors], errors)


def job_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return the job of what Tune calls a configuration."""
    return json.loads(config["job"])


SUPERVISOR: Supervisor | None = None
"""Of this worker: it lives as long as the actor, over many trials."""


def attend(config: dict[str, Any]) -> None:
    """Supervise one job in a Ray worker: the trainable."""
    from ray import tune

    global SUPERVISOR
    SUPERVISOR = SUPERVISOR or Supervisor()

    def on_event(line: dict[str, Any]) -> None:
        shown = {key: line.get(key) for key in ("epoch", "loss", "seconds", "images_per_second")}
        tune.report(shown | {"status": "running", "message": ""})

    status, message = "storage", ""
    try:
        status = SUPERVISOR.run(job_of(config), on_event)
    except StorageError as error:
        message = str(error)
    tune.report({"epoch": None, "loss": None, "seconds": None, "images_per_second": None, "status": status, "message": message})


def resources(config: dict[str, Any], left_out: list[str]) -> Any:
    """Return what the job of a configuration asks of its node, as Tune takes it."""
    return bundle_of(job_of(config), left_out)


def bundle_of(job: dict[str, Any], left_out: list[str]) -> Any:
    """Return what a job asks of its node, as Tune takes it."""
    from ray.tune import PlacementGroupFactory

    bundle = {"CPU": job["cpus"], "GPU": job["gpus"], "memory": job["memory_bytes"] or 0}
    bundle = {name: amount for name, amount in bundle.items() if amount}
    selector = {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(left_out)})"}]} if left_out else {}
    return PlacementGroupFactory([bundle], **selector)


def record_deaths(jobs: list[dict[str, Any]], errors: dict[str, Any]) -> None:
    """Record the trials whose supervisor died too often. One that never began is a matter of the cluster: it stays to do."""
    with Supervisor() as supervisor:
        for job in jobs:
            attempts = Attempts.read(attempts_file(job))
            if attempts.starts and recorded(job) is None:
                error = errors[job["run_id"]]
                if attempts.open:
                    attempts.add(end_of(str(error), "lost with its supervisor"))
                status = "oom" if out_of_memory(f"{type(error).__name__} {error}") else "killed"
                ends = "; ".join(dict.fromkeys(attempts.deaths)) or "never by itself"
                story = f"died {times(len(attempts.deaths))} ({ends}), lost {times(attempts.losses)} with its node or supervisor"
                supervisor.bury(job, attempts, status, f"{story}; Ray says: {error}")
                attempts.remove()


def attempts_file(job: dict[str, Any]) -> Path:
    """Return where the attempts of a job are kept."""
    return Path(job["suite_dir"]) / "checkpoints" / f"{job['run_id']}.attempts"


def run_id_of(trial: Any) -> str:
    """Return the run_id of a Tune trial."""
    return job_of(trial.config)["run_id"]


def draining_scheduler() -> Any:
    """Return Tune's scheduler, first come first served, which lets nothing more start once the sweep is to stop."""
    from ray.tune.schedulers import FIFOScheduler

    class DrainingScheduler(FIFOScheduler):
        def choose_trial_to_run(self, tune_controller: Any) -> Any:
            if not interrupts.CURRENT.stopping:
                return super().choose_trial_to_run(tune_controller)
            for trial in tune_controller.get_trials():
                if trial.status == trial.PENDING:
                    tune_controller.stop_trial(trial)
            return None

    return DrainingScheduler()


def board_callback(tune: Any) -> type:
    """Return a Tune callback that feeds the board, and stops the sweep where the disk refuses."""

    class BoardCallback(tune.Callback):
        def __init__(self, lost: LostWorkers) -> None:
            self.lost = lost

        def on_trial_recover(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            self.lost.note(trial, [attempts_file(job_of(trial.config))])

        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            progress.CURRENT.started(run_id_of(trial))

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if result["status"] == "running":
                progress.CURRENT.epoch(run_id_of(trial), result)
            elif result["status"] == "storage":
                raise StorageError(result["message"])
            else:
                progress.CURRENT.finished(run_id_of(trial), result["status"])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            progress.CURRENT.finished(run_id_of(trial), "killed")

    return BoardCallback
