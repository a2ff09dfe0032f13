"""One job from its start to its record, whatever happens to its process. Runs beside the trial and outlives it; needs no torch.

Retries only where a retry can help: a process that was killed goes on from its last epoch, at most `max_attempts` times over all launches.
What a trial can tell of itself (it raised, ran out of memory, diverged) it records itself, once. A trial that gives no sign of life for
long is hung: it is killed and goes on like one that died, because what it waited for (a lock, a network) may be there then. A trial that
outlives its time limit, where there is one, is killed and recorded as `timeout`: it would outlive it again.
"""

import contextlib
import datetime
import json
import os
import platform
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock

from bench.errors import SuiteError
from bench.memory import last_words
from bench.storage import StorageError, append_line, refuse, tail
from bench.sweep.attempts import MAX_FRUITLESS_STARTS, MAX_LOSSES, Attempts, times
from bench.sweep.nursery import Nursery, NurseryError, kill_group

ENTRIES = "bench.sweep.entries"
KILL_SECONDS = 60.0
"""So long a killed process may take to end."""

ORPHAN_SECONDS = 120.0
"""So long may a process of an earlier launch go on with the same trial before this one gives up waiting for its end."""

PAUSED = "paused"
"""What a trial that is to stop at an epoch (`until` in its job) has come to instead of a record; it goes on from there."""

NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}

Job = dict[str, Any]


class Supervisor:
    """Runs jobs one after the other, each in a fresh process; see `bench.sweep.jobs` for what a job holds."""

    def __init__(self) -> None:
        self.nurseries: dict[str, Nursery] = {}
        self.slot = f"{platform.node()}:{os.getpid()}@{now()}"

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, and what runs in them."""
        for nursery in self.nurseries.values():
            nursery.close()
        self.nurseries.clear()

    def nursery(self, module: str) -> Nursery:
        """Return a living nursery of a module."""
        if module in self.nurseries and self.nurseries[module].process.poll() is not None:
            self.nurseries.pop(module).close()
        if module not in self.nurseries:
            self.nurseries[module] = Nursery(module)
        return self.nurseries[module]

    def run(self, job: Job, on_event: Callable[[dict[str, Any]], None]) -> str:
        """Run a job to its record.

        Args:
            job: As `bench.sweep.jobs` makes them.
            on_event: Told of every epoch.

        Returns:
            The record's status, or `PAUSED`.

        Raises:
            StorageError: The disk does not take what the trial writes: the launch must stop.
        """
        checkpoints = Path(job["suite_dir"]) / "checkpoints"
        with held(checkpoints / f"{job['run_id']}.lock"):
            attempts = Attempts.read(checkpoints / f"{job['run_id']}.attempts")
            attempts.close_open(job["launch_id"])
            paused = False
            try:
                while (status := recorded(job)) is None and not paused:
                    if (verdict := hopeless(attempts, job)) is not None:
                        self.bury(job, attempts, *verdict)
                    else:
                        paused = self.attempt(job, attempts, on_event)
            except BaseException:  # whatever ends it early, such as Tune that stops a worker, leaves no process that trains on
                self.close()
                raise
            if status is not None:
                attempts.remove()
        (checkpoints / f"{job['run_id']}.lock").unlink(missing_ok=True)
        return status or PAUSED

    def attempt(self, job: Job, attempts: Attempts, on_event: Callable[[dict[str, Any]], None]) -> bool:
        """Start the job once and follow it to its end, which may leave a record; returns whether it has paused instead."""
        log, (before, spans) = log_file(job), superseded(job)
        number = before + attempts.next_number
        module, _, function = job["entry"].partition(":")
        nursery, of_launch = self.nursery(module), job["launch"] | {"slot": self.slot}
        started = time.time()  # once the nursery is there: what it took counts for the slot, not for the trial that happens to be its first
        self.note_start(job, attempts, log, f"--- attempt {number}, {iso(started)}, host {platform.node()}")
        message = job | {"started": started, "attempt": number, "launch": of_launch, "earlier_attempts": spans + attempts.spans()}
        hidden, kills = {} if job["gpus"] else NO_GPU, memory_kills()
        pid = nursery.start(function, message, log=log, environment=hidden, memory_bytes=job["memory_bytes"])
        limit = None if job["time_limit_seconds"] is None else job["time_limit_seconds"] - attempts.seconds_before_pause
        attempts.add(f"start {iso(started)} host {platform.node()} launch {job['launch_id']} slot {self.slot} pid {pid}")
        code, overdue, paused = None, None, None
        for event in nursery.events(None if limit is None else started + limit - time.time(), job["hang_seconds"]):
            code, overdue, paused = (event.get(name, known) for name, known in (("exit", code), ("overdue", overdue), ("paused", paused)))
            if "storage" in event:
                attempts.add("interrupted by the disk", at=now())
                raise StorageError(event["storage"])
            if "epoch" in event:
                attempts.add(f"epoch {event['epoch']}", at=now())
                on_event(event)
        if overdue is not None:
            self.end_overdue(module, pid)
        if code == 0 and paused is not None:
            attempts.add("paused at a rung", at=now())
            append_line(log, f"--- paused after epoch {paused}, {now()}")
            return True
        if recorded(job) is None:
            death = overdue_death(overdue, job) if overdue is not None else how(code, memory_kills() - kills)
            if job["memory_bytes"] and (words := last_words((tail(log) or "").rpartition("\n--- attempt")[2])):
                bound = f"its limit of {job['memory_bytes'] / 2**30:.2f} GiB beyond what it began with"
                death = f"{death}, out of memory under {bound}: {words[:200]}"
            attempts.add(f"died {death}", at=now())
            append_line(log, f"--- attempt {number} died {death}, {whereabouts(attempts.epoch, job['epochs'])}, {now()}")
        return False

    def note_start(self, job: Job, attempts: Attempts, log: Path, line: str) -> None:
        """Write a line about a start into the trial's log; before it one that a new launch begins, where an older one wrote there."""
        of_this = any(f" launch {job['launch_id']} " in known for known in attempts.lines)
        if not of_this and log.exists() and log.stat().st_size:
            append_line(log, f"--- a new launch, {job['launch_id'] or 'without a name'}, begins here, {now()}")
        append_line(log, line)

    def end_overdue(self, module: str, pid: int) -> None:
        """Kill a child and see it end; a nursery whose child does not end even so, because it waits inside of the kernel, is given up."""
        kill_group(pid)
        if not any("exit" in event for event in self.nursery(module).events(KILL_SECONDS)):
            self.nurseries.pop(module).close()

    def bury(self, job: Job, attempts: Attempts, status: str, reason: str) -> None:
        """Record a death that the trial could not record itself, in a process that has what a record needs."""
        nursery, (before, spans) = self.nursery(ENTRIES), superseded(job)
        message = job | {"status": status, "reason": reason, "started": time.time()}
        message |= {"attempt": before + attempts.number, "earlier_attempts": spans + attempts.spans()}
        append_line(log_file(job), f"--- recorded as {status}: {reason}")
        nursery.start("bury", message, log=log_file(job), environment=NO_GPU)
        events = list(nursery.events(600))
        if (storage := next((event["storage"] for event in events if "storage" in event), None)) is not None:
            raise StorageError(storage)
        if recorded(job) is None:
            raise NurseryError(f"the death of {job['run_id']} could not be recorded; its log: {log_file(job)}")


def hopeless(attempts: Attempts, job: Job) -> tuple[str, str] | None:
    """Return status and reason of a trial that is not to be started again, or None."""
    deaths = attempts.deaths
    where = f"last {whereabouts(attempts.epoch, job['epochs'])}"
    if deaths and "time limit" in deaths[-1]:
        kept = attempts.path.with_suffix(".pt").exists()
        again = f"`--rerun failed` with a longer --time-limit {'goes on from its checkpoint, which is kept' if kept else 'starts it again'}"
        return "timeout", f"{deaths[-1].removeprefix('of ')} over, {where}, and killed; {again}"
    if deaths and "out of memory under its limit" in deaths[-1]:  # it would again
        return "oom", f"its process died {deaths[-1]}; {where}; --memory-per-trial allows more"
    if len(deaths) >= job["max_attempts"]:
        return "killed", f"its process died {times(len(deaths))}, {where}: {'; '.join(dict.fromkeys(deaths))}; --attempts allows more"
    if attempts.losses >= MAX_LOSSES:
        return "killed", f"lost {attempts.losses} times with its node or supervisor, {where}; `--rerun failed` starts it again"
    if attempts.fruitless >= MAX_FRUITLESS_STARTS:
        return "killed", f"started {attempts.fruitless} times without finishing an epoch, {where}"
    return None


def recorded(job: Job) -> str | None:
    """Return the status of the job's record, None where there is none, or only the one that this launch is to make again."""
    try:
        record = json.loads(Path(job["record"]).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return None if job["redo"] and record.get("launch", {}).get("id") != job["launch_id"] else record["status"]


def superseded(job: Job) -> tuple[int, list[dict[str, Any]]]:
    """Return number and times of the attempts in the record that this launch makes again, where the trial goes on from them.

    That is a trial which outlived its time limit: what it took until then is part of what its result took.
    """
    try:
        record = json.loads(Path(job["record"]).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0, []
    if not job["redo"] or record.get("status") != "timeout" or record.get("launch", {}).get("id") == job["launch_id"]:
        return 0, []
    timing, launch = record["timing"], record.get("launch", {})
    last = {"start": timing["trial_start"], "seconds": timing.get("attempt_seconds", timing.get("total_seconds", 0.0))}
    last |= {"launch": launch.get("id"), "slot": launch.get("slot"), "ended": "died of its time limit"}
    return record["attempt"], [*timing.get("earlier_attempts", []), last]


@contextlib.contextmanager
def held(path: Path) -> Any:
    """Hold a trial against a process that an earlier launch may have left behind.

    Raises:
        SuiteError: It does not end.
        StorageError: The disk does not take the lock.
    """
    lock = filelock.FileLock(path, timeout=ORPHAN_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise SuiteError(f"another process has held {path} for {ORPHAN_SECONDS:g} s: end it, then run the same command again") from None
    except NotImplementedError:  # a file system without locks: the launch's own lock must do
        pass
    except OSError as error:
        refuse(error, path)
        raise
    try:
        yield
    finally:
        lock.release()


def log_file(job: Job) -> Path:
    """Return the log of a job."""
    path = Path(job["suite_dir"]) / "logs" / f"{job['run_id']}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def whereabouts(epoch: int, epochs: int) -> str:
    """Say how far a trial has come that has finished so many of its epochs; a profile has none."""
    if epochs == 0:
        return "while it was measured"
    return f"in epoch {epoch + 1} of {epochs}" if epoch < epochs else "after its last epoch"


def overdue_death(overdue: str, job: Job) -> str:
    """Say why the supervisor killed a process."""
    if overdue == "time":
        return f"of its time limit of {job['time_limit_seconds']:g} s"
    return f"hung: killed after {job['hang_seconds']:g} s without a sign of life"


def how(code: int | None, memory_kills: int = 0) -> str:
    """Say how a process ended; `memory_kills` is how many processes the kernel killed for want of memory meanwhile."""
    if code is None:
        return "with the process that started it"
    if code == 0:
        return "without a record though it ended well"
    if code < 0:
        hint = "; meanwhile the kernel killed for want of memory" if code == -signal.SIGKILL and memory_kills > 0 else ""
        with contextlib.suppress(ValueError):
            return f"of signal {-code} ({signal.Signals(-code).name}{hint})"
    return f"with exit code {code}"


def memory_kills() -> int:
    """Return how many processes this machine's kernel has killed for want of memory; 0 where it does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def now() -> str:
    """Return the time stamp of this moment."""
    return iso(time.time())


def iso(seconds: float) -> str:
    """Return a time stamp in UTC, ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
