"""Watch a trial while it trains: TensorBoard event files by default; MLflow and Weights & Biases where they are installed. No torch.

Trackers only read: the record stays the result, and a tracker that fails is named once and left out, because watching must not stop a
trial. Everything stays on this machine unless the user's environment says otherwise (`MLFLOW_TRACKING_URI`, `WANDB_MODE=online`).
"""

import importlib.util
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import filelock

from bench.errors import SuiteError
from bench.secrecy import without_secrets
from bench.tasks import TASKS

logger = logging.getLogger(__name__)

TRACKERS = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""Trackers, and the module that each needs."""


class TrackingError(SuiteError):
    """A tracker is unknown or not installed; the message says what to do."""


def parse_trackers(text: str) -> tuple[str, ...]:
    """Return the trackers of a list such as "tensorboard,mlflow"; "none" or nothing is no tracker.

    Raises:
        TrackingError: An unknown tracker, or one whose package is not installed.
    """
    names = tuple(dict.fromkeys(name for name in text.split(",") if name not in ("", "none")))
    for name in names:
        if name not in TRACKERS:
            raise TrackingError(f"--track takes {', '.join(TRACKERS)}, separated by commas, or none; got {name!r}")
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise TrackingError(f"--track {name} needs a package that is not installed: pip install -c constraints.txt '.[tracking]'")
    return names


class Tracker(Protocol):
    """What a tracker offers; it is made when the first epoch has ended."""

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """Keep the values of an epoch."""

    def close(self, status: str) -> None:
        """End the run."""


class Tracking:
    """Hands a trial's epochs and its record to the trackers.

    Args:
        names: Keys of `TRACKERS`.
        suite, run_id: What the trackers call the trial.
        suite_dir: Where they write: `tensorboard/<run_id>/`, `mlflow.db`, `wandb/`.
        config: The trial's configuration, plain.
    """

    def __init__(self, names: tuple[str, ...], *, suite: str, run_id: str, suite_dir: Path, config: Mapping[str, Any]) -> None:
        self.suite, self.run_id, self.suite_dir, self.config = suite, run_id, suite_dir, config
        self.waiting, self.running = list(names), {}

    def epoch(self, line: Mapping[str, Any]) -> None:
        """Hand on a line of the history."""
        self._log(epoch_values(line), line["epoch"])

    def end(self, record: Mapping[str, Any]) -> None:
        """Hand on the headline metrics of a record, and end the runs."""
        if record["metrics"]:
            self._log(headlines(record["metrics"], "result"), len(record["history"]))
        for name in list(self.running):
            self._guarded(name, lambda tracker: tracker.close(record["status"]))

    def _log(self, values: Mapping[str, float], epoch: int) -> None:
        while self.waiting:  # only now it is known whether the trial starts or goes on
            name = self.waiting.pop(0)
            os.environ.update({key: value for key, value in ENVIRONMENT.items() if key not in os.environ})
            try:
                self.running[name] = OPEN[name](self.suite, self.run_id, self.suite_dir, self.config, epoch)
            except Exception as error:  # a defect of a tracker is none of the trial
                logger.warning("%s: %s cannot start, the trial goes on without it: %s", self.run_id, name, without_secrets(str(error)))
        for name in list(self.running):
            self._guarded(name, lambda tracker: tracker.log(values, epoch))

    def _guarded(self, name: str, call: Any) -> None:
        try:
            call(self.running[name])
        except Exception as error:  # as above
            logger.warning("%s: %s failed, the trial goes on without it: %s", self.run_id, name, without_secrets(str(error)))
            del self.running[name]


def epoch_values(line: Mapping[str, Any]) -> dict[str, float]:
    """Return what an epoch's line shows: losses, learning rate, seconds, and headline metrics and score on the held-out images."""
    values = {"loss": line["loss"], "lr": line["lr"], "epoch_seconds": line["seconds"]}
    values |= {f"loss/{task}": loss for task, loss in line["losses"].items()}
    if "held_out" in line:
        metrics = {task: metric for task, metric in line["held_out"].items() if task != "score"}
        values |= headlines(metrics, "held_out") | {"held_out/score": line["held_out"]["score"]}
    return values


def headlines(metrics: Mapping[str, Mapping[str, float | None]], prefix: str) -> dict[str, float]:
    """Return each task's headline metric where there is one, as `<prefix>/<task>/<metric>`."""
    named = {f"{prefix}/{task}/{TASKS[task].metric}": values.get(TASKS[task].metric) for task, values in metrics.items()}
    return {name: value for name, value in named.items() if value is not None}


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested objects to dotted names."""
    result: dict[str, Any] = {}
    for key, value in plain.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


class TensorBoard:
    """Event files in `tensorboard/<run_id>/`."""

    def __init__(self, suite: str, run_id: str, suite_dir: Path, config: Mapping[str, Any], epoch: int) -> None:
        from tensorboardX import SummaryWriter

        directory = suite_dir / "tensorboard" / run_id
        self.writer = SummaryWriter(str(directory), purge_step=epoch)  # what an attempt that was killed wrote from here on is void
        self.writer.add_text("config", "\n".join(f"    {name}: {value}" for name, value in flat(config).items()), epoch)

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def close(self, status: str) -> None:
        self.writer.close()


class MLflow:
    """A run in `mlflow.db` (SQLite), or where MLFLOW_TRACKING_URI says; a trial that goes on finds its run by the tag `run_id`."""

    def __init__(self, suite: str, run_id: str, suite_dir: Path, config: Mapping[str, Any], epoch: int) -> None:
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient

        with filelock.FileLock(suite_dir / ".mlflow.lock"):  # trials that start together must not make the tables twice
            self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{suite_dir.resolve() / 'mlflow.db'}")
            found = self.client.get_experiment_by_name(suite)
            experiment = found.experiment_id if found else self.client.create_experiment(suite)
            runs = self.client.search_runs([experiment], filter_string=f"tags.run_id = '{run_id}'") if epoch > 1 else []
            if runs:
                self.run = runs[0].info.run_id
                self.client.set_terminated(self.run, "RUNNING")
            else:
                self.run = self.client.create_run(experiment, run_name=run_id, tags={"run_id": run_id}).info.run_id
                for name, value in flat(config).items():
                    self.client.log_param(self.run, name, value)

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run, metrics=[Metric(name, value, now, epoch) for name, value in values.items()])

    def close(self, status: str) -> None:
        self.client.set_terminated(self.run, "FINISHED" if status == "ok" else "FAILED")


class WandB:
    """A run under `wandb/`, offline unless WANDB_MODE says otherwise (`wandb sync` uploads it later). Nothing of the machine is sent."""

    def __init__(self, suite: str, run_id: str, suite_dir: Path, config: Mapping[str, Any], epoch: int) -> None:
        import wandb

        mode = os.environ.get("WANDB_MODE", "offline")
        quiet = {"silent": True, "console": "off", "disable_git": True, "disable_code": True, "save_code": False}
        private = {"x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True}
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", suite),
            id=run_id,
            name=run_id,
            dir=str(suite_dir),
            mode=mode,
            resume="allow" if mode == "online" else None,
            config=dict(config),
            settings=wandb.Settings(**quiet, **private),
        )

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        self.run.log(dict(values), step=epoch)

    def close(self, status: str) -> None:
        self.run.summary["status"] = status
        self.run.finish(exit_code=0 if status == "ok" else 1)


ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Set in the environment, where the user did not, before a tracker is imported: neither package shall report its use, and a server that
cannot be reached shall not hold a trial for minutes."""

OPEN: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}
