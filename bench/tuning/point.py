"""Bring the trials of one setting from rung to rung, and say at each how good the setting is. Neither ray nor torch.

Each trial trains in a process of its own under a supervisor, like every trial of a sweep, with the same limits, and pauses at each rung,
its checkpoint being its state: so that all trials of a setting are scored at the same epoch, and none trains on while it is decided whether
the setting goes on. At a rung a trial leaves the record that it would have if it were stopped there; whoever stops it only has to move that
file (`take_stopped`).
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.provenance import code_id
from bench.record import examine
from bench.storage import append_line
from bench.sweep.supervise import Job, Supervisor, recorded

ENTRY = "bench.tuning.entries:train"
"""What runs a tuning trial in its own process."""

WORST_SCORE = -1e4
"""Of a trial that diverged or failed: below all that can be reached, so that ASHA ranks it last."""

STOPPED = "stopped"
PROVISIONAL = Path("checkpoints") / "if_stopped"


def run_point(jobs: Sequence[Job], rungs: Sequence[int], supervisor: Supervisor, report: Callable[[dict[str, Any]], None]) -> None:
    """Bring a setting's trials to their records, as far as they have none.

    Args:
        jobs: Of the setting's trials; of equal length.
        rungs: Epochs at which the trials wait for each other and for a decision; the last one is their last.
        supervisor: Runs them.
        report: Called with `epoch`, `loss`, `status`, the last `rung` that all trials have reached, and the mean `score` there. It does
            not return where the setting is stopped.

    Raises:
        StorageError: The disk does not take what a trial writes.
    """
    state = {"rung": 0, "score": WORST_SCORE}

    def on_epoch(line: dict[str, Any]) -> None:
        if len(jobs) == 1 and line["epoch"] not in rungs:
            report({"epoch": line["epoch"], "loss": line["loss"], "status": "running"} | state)

    for rung in rungs:
        for job in jobs:
            if reached(job) < rung:
                supervisor.run(job | {"until": rung}, on_epoch)
        forget([job["run_id"] for job in jobs if recorded(job) is not None], Path(jobs[0]["suite_dir"]))
        results = [result_of(job) for job in jobs]
        state = {"rung": rung, "score": sum(score_in(result, rung) for result in results) / len(results)}
        status = "running" if rung < rungs[-1] else min({result["status"] for result in results} - {"ok"}, default="ok")
        loss = sum(result["history"][-1]["loss"] for result in results if result["history"])
        report({"epoch": rung, "loss": loss, "status": status} | state)


def reached(job: Job) -> int:
    """Return the epoch up to which there is nothing to train: the last one where the trial has a record, else that of its last pause."""
    if recorded(job) is not None:
        return job["epochs"]
    directory, run_id = Path(job["suite_dir"]), job["run_id"]
    path = directory / PROVISIONAL / f"{run_id}.json"
    if not path.exists() or not (directory / "checkpoints" / f"{run_id}.pt").exists():
        return 0
    provisional, _ = examine(path)
    return len(provisional["history"]) if provisional is not None and provisional["code_id"] == code_id() else 0


def result_of(job: Job) -> Mapping[str, Any]:
    """Return the record of a trial, else the one that it would have if it were stopped now."""
    provisional = Path(job["suite_dir"]) / PROVISIONAL / f"{job['run_id']}.json"
    path = provisional if recorded(job) is None else Path(job["record"])
    record, error = examine(path) if path.exists() else (None, None)
    return {"status": "damaged", "reason": str(error), "history": []} if record is None else record


def score_in(record: Mapping[str, Any], rung: int) -> float:
    """Return the held-out score of a trial at a rung."""
    if record["status"] not in ("ok", STOPPED):
        return WORST_SCORE
    return next((line["held_out"]["score"] for line in record["history"] if line["epoch"] == rung and "held_out" in line), WORST_SCORE)


def take_stopped(run_ids: Iterable[str], tuning_dir: Path) -> list[str]:
    """Make records of the trials that are stopped at the last rung they reached; return their run ids.

    The record comes first: a kill in between leaves a checkpoint too many, and no trial without both. A trial that has come to its record
    by itself has no other one to take (`forget`).
    """
    stopped, run_ids = [], list(run_ids)
    for run_id in run_ids:
        provisional, record = tuning_dir / PROVISIONAL / f"{run_id}.json", tuning_dir / "records" / f"{run_id}.json"
        content = examine(provisional)[0] if provisional.exists() else None
        if content is not None:
            record.parent.mkdir(parents=True, exist_ok=True)
            os.replace(provisional, record)
            append_line(tuning_dir / "logs" / f"{run_id}.log", f"--- {content['reason']}")
            stopped.append(run_id)
    forget(run_ids, tuning_dir)
    return stopped


def forget(run_ids: Iterable[str], tuning_dir: Path) -> None:
    """Remove what trials with a record no longer need; one that outlived its time limit may go on from its checkpoint."""
    for run_id in run_ids:
        path = tuning_dir / "records" / f"{run_id}.json"
        record, problem = examine(path) if path.exists() else (None, None)
        if record is None or problem is not None:
            continue
        (tuning_dir / PROVISIONAL / f"{run_id}.json").unlink(missing_ok=True)
        for suffix in (".attempts", ".lock", *(() if record["status"] == "timeout" else (".pt",))):
            (tuning_dir / "checkpoints" / f"{run_id}{suffix}").unlink(missing_ok=True)
