"""Train the trials of one setting from rung to rung, and say at each how good the setting is. No ray.

A setting of one multi-task trial trains in one go. Where a setting has several trials (one a task), each trains to a rung and pauses there,
its checkpoint being its state, so that all of them are scored at the same epoch. At every rung each trial leaves the record that it would
have if it were stopped there; whoever stops it only has to move that file (`take_stopped`).
"""

import os
import pickle
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.config import TrialConfig
from bench.outcome import total_seconds
from bench.progress import epoch_text
from bench.provenance import code_id
from bench.record import read_record, write_record
from bench.storage import append_line, tail
from bench.sweep.attempts import Attempts
from bench.sweep.jobs import Limits
from bench.sweep.supervise import hopeless, now, slot
from bench.trial import Launch, describe, iso, run_trial
from bench.tuning.log import all_printed_to, log_path
from bench.tuning.plan import STOPPED, rungs

WORST_SCORE = -1e4
"""Of a trial that diverged or failed: below all that can be reached, so that ASHA ranks it last."""

PROVISIONAL = Path("checkpoints") / "if_stopped"


class PauseError(BaseException):
    """A trial has reached a rung. No Exception: a trial turns those into a record."""


def run_point(
    trials: list[TrialConfig],
    launch: Launch,
    started: float,
    report: Callable[[dict[str, Any]], None],
    max_attempts: int = Limits().max_attempts,
) -> None:
    """Train a setting's trials to their end, as far as they have no record.

    Args:
        trials: Of the setting; of equal length.
        launch: Where; `suite_dir` is the tune's directory.
        started: `time.time()` at the start of the process.
        report: Called with `epoch`, `loss`, `status`, the last `rung` that all trials have reached, and the mean `score` there. It does
            not return where the setting is stopped.
        max_attempts: So often may the process of a trial die, over all launches, until that is its record.
    """
    run = PointRun(trials, launch, started, report)
    run.give_up(max_attempts)
    for rung in run.rungs:
        for trial in trials:
            if run.reached(trial) < rung:
                run.train(trial, rung)
        run.offer(rung)


class PointRun:
    """The state of `run_point`, read from records and checkpoints at first: a killed setting goes on where it was."""

    def __init__(self, trials: list[TrialConfig], launch: Launch, started: float, report: Callable[[dict[str, Any]], None]) -> None:
        self.trials, self.launch, self.started, self.begun, self.report = trials, launch, started, started, report
        self.rungs = rungs(trials[0].recipe.epochs)
        self.history = {trial.run_id: history_in(self.checkpoint(trial)) for trial in trials}
        self.state = {"rung": 0, "score": WORST_SCORE}

    def checkpoint(self, trial: TrialConfig) -> Path:
        return self.launch.suite_dir / "checkpoints" / f"{trial.run_id}.pt"

    def attempts(self, trial: TrialConfig) -> Attempts:
        return Attempts.read(self.launch.suite_dir / "checkpoints" / f"{trial.run_id}.attempts")

    def give_up(self, max_attempts: int) -> None:
        """Give the trials' starts that this launch lost their end, and record those trials that have died too often."""
        for trial in self.trials:
            attempts = self.attempts(trial)
            attempts.close_open(self.launch.id)
            verdict = hopeless(attempts, {"epochs": trial.recipe.epochs, "max_attempts": max_attempts})
            if verdict is not None and self.record(trial) is None:
                record_death(trial, self.launch, *verdict)

    def record(self, trial: TrialConfig) -> dict[str, Any] | None:
        path = self.launch.suite_dir / "records" / f"{trial.run_id}.json"
        return read_record(path) if path.exists() else None

    def reached(self, trial: TrialConfig) -> int:
        """Return the epoch up to which there is nothing to train: the last one where the trial has a record."""
        return self.rungs[-1] if self.record(trial) is not None else len(self.history[trial.run_id])

    def train(self, trial: TrialConfig, until: int) -> None:
        """Train a trial; to its end, but where there are others to wait for, only to the epoch `until`."""
        begun, alone, last = self.started or time.time(), len(self.trials) == 1, self.rungs[-1]
        self.started, self.begun = None, begun  # the imports are part of the first trial's time

        attempts, log = self.attempts(trial), log_path(self.launch.suite_dir, trial.run_id)
        earlier = attempts.spans()
        attempts.add(f"start {iso(begun)} host {platform.node()} launch {self.launch.id or '-'} slot {slot()} pid {os.getpid()}")
        number = attempts.number

        def on_epoch(line: dict[str, Any]) -> None:
            self.history[trial.run_id].append(line)
            attempts.add(f"epoch {line['epoch']}", at=now())
            print(epoch_text(line, last), flush=True)
            if not alone and line["epoch"] == until < last:
                raise PauseError
            if alone and line["epoch"] in self.rungs[:-1]:
                self.offer(line["epoch"])
            elif alone:
                self.report({"epoch": line["epoch"], "loss": line["loss"], "status": "running"} | self.state)

        append_line(log, f"--- attempt {number}, {iso(begun)}, host {platform.node()}")
        try:
            with all_printed_to(log):
                run_trial(trial, self.launch, started=begun, attempt=number, earlier=earlier, on_epoch=on_epoch)
            attempts.remove()
        except PauseError:
            attempts.add("paused at a rung", at=now())
            append_line(log, f"--- paused after epoch {until}: the setting's other trials come to it")

    def offer(self, rung: int) -> None:
        """Report the score at a rung, once."""
        if rung <= self.state["rung"]:
            return
        for trial in self.trials:
            if self.record(trial) is None:
                self.write_provisional(trial, rung)
        scores = [self.score(trial, rung) for trial in self.trials]
        self.state = {"rung": rung, "score": sum(scores) / len(scores)}
        status = "running" if rung < self.rungs[-1] else self.final_status()
        forget([trial.run_id for trial in self.trials], self.launch.suite_dir)
        self.report({"epoch": rung, "loss": self.loss(), "status": status} | self.state)

    def times(self, trial: TrialConfig, trained_seconds: float) -> dict[str, Any]:
        """Return start, end and duration of a trial that is not over; trained epochs of an earlier process count at least."""
        at = time.time()
        *earlier, last = self.attempts(trial).spans() or [{"start": iso(self.begun), "seconds": 0.0, "ended": None}]
        times = total_seconds(earlier, last["seconds"] if last["ended"] else at - self.begun)
        times["total_seconds"] = max(times["total_seconds"], trained_seconds)
        return {"trial_start": last["start"], "end": iso(at)} | times

    def score(self, trial: TrialConfig, rung: int) -> float:
        """Return the held-out score of a trial at a rung."""
        record = self.record(trial)
        if record is not None and record["status"] not in ("ok", STOPPED):
            return WORST_SCORE
        history = self.history[trial.run_id] if record is None else record["history"]
        return next((line["held_out"]["score"] for line in history if line["epoch"] == rung and "held_out" in line), WORST_SCORE)

    def loss(self) -> float:
        """Return the sum of the trials' last training losses."""
        return sum(history[-1]["loss"] for history in self.history.values() if history)

    def final_status(self) -> str:
        statuses = {record["status"] for trial in self.trials if (record := self.record(trial))} - {"ok"}
        return min(statuses, default="ok")

    def write_provisional(self, trial: TrialConfig, rung: int) -> None:
        """Write the record that the trial has if it is stopped at this rung."""
        history = [line for line in self.history[trial.run_id] if line["epoch"] <= rung]
        held_out = history[-1]["held_out"]
        trained = {"train_seconds": sum(line["seconds"] for line in history)}
        trained |= {"held_out_seconds": sum(line.get("held_out_seconds", 0.0) for line in history)}
        record = describe(trial, self.launch, max(self.attempts(trial).number, 1)) | {
            "status": STOPPED,
            "reason": f"ASHA stopped this setting after epoch {rung} of {trial.recipe.epochs}: others of its row scored higher there",
            "metrics": {task: values for task, values in held_out.items() if task != "score"},
            "history": history,
            "timing": trained | self.times(trial, sum(trained.values())),
        }
        write_record(self.launch.suite_dir / PROVISIONAL, record, None)


def history_in(checkpoint: Path) -> list[dict[str, Any]]:
    """Return the history in a trial's checkpoint; nothing where it cannot be used, as the trial then starts again."""
    if not checkpoint.exists():
        return []
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        return []
    return content["fit"]["history"] if content.get("identity", "").startswith(code_id()) else []


def record_death(trial: TrialConfig, launch: Launch, status: str, reason: str) -> None:
    """Write the record of a trial whose process died more often than it is tried again."""
    attempts, log = Attempts.read(launch.suite_dir / "checkpoints" / f"{trial.run_id}.attempts"), log_path(launch.suite_dir, trial.run_id)
    append_line(log, f"--- recorded as {status}: {reason}")
    *earlier, last = attempts.spans() or [{"start": now(), "seconds": 0.0}]
    timing = {"trial_start": last["start"], "end": now()} | total_seconds(earlier, last["seconds"])
    record = describe(trial, launch, max(attempts.number, 1)) | {"status": status, "reason": reason, "timing": timing}
    write_record(launch.suite_dir / "records", record | {"log_tail": tail(log)}, None)
    forget([trial.run_id], launch.suite_dir)


def take_stopped(run_ids: list[str], tuning_dir: Path) -> list[str]:
    """Make records of the trials that are stopped at the last rung they reached; return their run ids.

    The record comes first: a kill in between leaves a checkpoint too many, and no trial without both.
    """
    stopped = []
    for run_id in run_ids:
        provisional, record = tuning_dir / PROVISIONAL / f"{run_id}.json", tuning_dir / "records" / f"{run_id}.json"
        if not record.exists() and provisional.exists():
            record.parent.mkdir(parents=True, exist_ok=True)
            os.replace(provisional, record)
            append_line(log_path(tuning_dir, run_id), f"--- {read_record(record)['reason']}")
            stopped.append(run_id)
    forget(run_ids, tuning_dir)
    return stopped


def forget(run_ids: list[str], tuning_dir: Path) -> None:
    """Remove what trials with a record no longer need; one that outlived its time limit may go on from its checkpoint."""
    for run_id in run_ids:
        record = tuning_dir / "records" / f"{run_id}.json"
        if record.exists() and read_record(record)["status"] != "timeout":
            for path in (f"checkpoints/{run_id}.pt", f"checkpoints/{run_id}.attempts", f"{PROVISIONAL}/{run_id}.json"):
                (tuning_dir / path).unlink(missing_ok=True)
