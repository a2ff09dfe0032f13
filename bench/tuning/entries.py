"""What the forked child of a tuning trial runs: the trial of a sweep, which pauses at a rung. Importing this imports all that it needs."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.config import TrialConfig
from bench.outcome import iso, total_seconds
from bench.provenance import code_id
from bench.record import write_record
from bench.sweep import entries
from bench.training.checkpoint import CheckpointError, read_checkpoint
from bench.trial import describe
from bench.tuning.point import PROVISIONAL, STOPPED


class PauseError(BaseException):
    """A trial has reached a rung. No Exception: a trial turns those into a record."""


def train(job: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
    """Run a trial to its record, or until it has finished the epoch `until`; there it leaves the record of a stopped one and pauses."""
    until, history = job["until"], history_in(Path(job["suite_dir"]) / "checkpoints" / f"{job['run_id']}.pt")

    def pause() -> None:
        write_provisional(job, history[:until])
        report({"paused": until})
        raise PauseError

    def watched(event: dict[str, Any]) -> None:
        report(event)
        if "epoch" in event:
            history[event["epoch"] - 1 :] = [{key: value for key, value in event.items() if key != "images_per_second"}]
            if event["epoch"] == until < job["epochs"]:
                pause()

    with contextlib.suppress(PauseError):
        if len(history) >= until < job["epochs"]:  # it was killed when it had come so far
            pause()
        entries.train(job, watched)


def write_provisional(job: dict[str, Any], history: Sequence[dict[str, Any]]) -> None:
    """Write the record that a trial has if it is stopped at the last epoch of its history."""
    trial, launch, rung = TrialConfig.from_dict(job["config"]), entries.launch_of(job["launch"]), len(history)
    trained = {"train_seconds": sum(line["seconds"] for line in history)}
    trained |= {"held_out_seconds": sum(line.get("held_out_seconds", 0.0) for line in history)}
    times = total_seconds(job["earlier_attempts"], time.time() - job["started"])
    times["total_seconds"] = max(times["total_seconds"], sum(trained.values()))  # epochs of an earlier launch count at least
    record = describe(trial, launch, job["attempt"]) | {
        "status": STOPPED,
        "reason": f"ASHA stopped this setting after epoch {rung} of {job['epochs']}: others of its row scored higher there",
        "metrics": {task: values for task, values in history[-1]["held_out"].items() if task != "score"},
        "history": list(history),
        "timing": {"trial_start": iso(job["started"]), "end": iso(time.time())} | trained | times,
    }
    write_record(launch.suite_dir / PROVISIONAL, record, None)


def history_in(checkpoint: Path) -> list[dict[str, Any]]:
    """Return the history in a trial's checkpoint; nothing where it cannot be used, as the trial then starts again."""
    if not checkpoint.exists():
        return []
    try:
        content = read_checkpoint(checkpoint, mmap=True)
    except CheckpointError:
        return []
    return list(content["fit"]["history"]) if content["identity"].startswith(code_id()) else []
