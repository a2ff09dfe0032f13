"""Fresh processes without the wait: one process imports torch and all of the trial's code once, and forks a child for every trial.

A trial so has a process of its own (its death, its memory, its random state and its threads touch no other) for some milliseconds instead
of three seconds of imports. The nursery itself runs no kernel, starts no thread and never touches a GPU, so that a fork of it is as good as
a new process. `python -m bench.sweep.nursery` is the process; `Nursery` is the other side of its pipes.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import SuiteError
from bench.imports import imports_without
from bench.provenance import code_id
from bench.storage import StorageError
from bench.workers import die_with_parent

REPOSITORY = Path(__file__).parent.parent.parent
READY_SECONDS = 300.0
WORKER_ENVIRONMENT = {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""What must be set before an interpreter, or CUDA, starts."""


class NurseryError(SuiteError):
    """The process that forks the trials is gone."""


class Nursery:
    """A warm process that forks trials, one at a time.

    Args:
        module: What is imported before the first fork: where the children's functions are.
    """

    def __init__(self, module: str) -> None:
        self.module, self.buffer, self.running, self.process = module, b"", None, begin(module)
        if next(self.events(READY_SECONDS), {}).get("ready") is None:
            self.close()
            raise NurseryError(f"the process that starts trials did not come up: {sys.executable} -m bench.sweep.nursery {module}")

    def start(self, function: str, job: dict[str, Any], *, log: Path, environment: dict[str, str], memory_bytes: int | None = None) -> int:
        """Fork a child and return its process id.

        Args:
            function: Of the module: called with the job, and with a function that reports one event (a dict of plain JSON types).
            job: Plain JSON types.
            log: The child's output goes to its end.
            environment: Added to the child's.
            memory_bytes: What the child may allocate; None sets no limit.
        """
        message = {"function": function, "job": job, "log": str(log), "environment": environment, "memory_bytes": memory_bytes}
        try:
            self.process.stdin.write(json.dumps(message, default=str).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise NurseryError("the process that starts trials is gone") from None
        early = b""  # what a quick child reports before a nursery without a core has told its process id
        for event in self.events(READY_SECONDS):
            if "pid" in event:
                self.running, self.buffer = event["pid"], early + self.buffer
                return self.running
            early += json.dumps(event).encode() + b"\n"
        raise NurseryError("the process that starts trials is gone, or does not answer")

    def events(self, seconds: float | None, silence: float | None = None) -> Iterator[dict[str, Any]]:
        """Yield what the child reports, last of all {"exit": code} (negative: the signal that killed it).

        Stops without that when the nursery has died, or after {"overdue": "time"} when `seconds` have passed, {"overdue": "silence"} when
        it has reported nothing for `silence` seconds; None waits for ever.
        """
        deadline, output, heard = None if seconds is None else time.monotonic() + seconds, self.process.stdout.fileno(), time.monotonic()
        while True:
            while b"\n" in self.buffer:
                line, _, self.buffer = self.buffer.partition(b"\n")
                event = json.loads(line)
                yield event
                if "exit" in event:
                    self.running = None
                    return
            ends = {"time": deadline, "silence": None if silence is None else heard + silence}
            first, end = min(((name, end) for name, end in ends.items() if end is not None), key=lambda pair: pair[1], default=("", None))
            if not select.select([output], [], [], None if end is None else max(0.0, end - time.monotonic()))[0]:
                yield {"overdue": first}
                return
            if not (chunk := os.read(output, 65536)):
                return
            self.buffer, heard = self.buffer + chunk, time.monotonic()

    def close(self) -> None:
        """Kill the child that runs, and the nursery, at once: neither holds anything that a kill could tear."""
        if self.running is not None:
            kill_group(self.running)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


def begin(module: str) -> subprocess.Popen:
    """Start the process that forks."""
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "bench.sweep.nursery", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | WORKER_ENVIRONMENT | {"PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C at a terminal goes to the driver alone, which decides
    )


def kill_group(pid: int) -> None:
    """Kill a child and its loader processes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def send(pipe: int, event: dict[str, Any]) -> None:
    """Write one event as a line; without a reader it is dropped."""
    data = json.dumps(event).encode() + b"\n"
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(pipe, data) :]


def limit_memory(memory_bytes: int) -> None:
    """Let allocations beyond what the process has now and `memory_bytes` more fail."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[5]) if Path("/proc/self/statm").exists() else 0
    limit = memory_bytes + pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def child(message: dict[str, Any], module: str, replies: int, parent: int) -> None:
    """Run one job in a process forked from `parent`; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)  # elsewhere than on Linux the nursery's end of file does it
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        log = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(message["environment"])
        if message["memory_bytes"]:
            limit_memory(message["memory_bytes"])
        getattr(importlib.import_module(module), message["function"])(message["job"], lambda event: send(replies, event))
        code = 0
    except StorageError as error:
        send(replies, {"storage": str(error)})
    except BaseException:  # a defect outside of what a record can tell: the supervisor sees the exit code, the log says the rest
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def serve(module: str) -> None:
    """Fork a child for every line of standard input until it ends; then kill the child that runs."""
    replies = os.dup(1)
    os.dup2(2, 1)  # nothing but events may go to the supervisor
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with imports_without("wandb"):
        importlib.import_module(module)
    code_id()  # once for all children, of the code as it was loaded
    send(replies, {"ready": os.getpid()})
    running, buffer, nursery = None, b"", os.getpid()
    while True:
        readable = select.select([0, woken], [], [])[0]
        if woken in readable:
            os.read(woken, 4096)
            running = reap(running, replies)
        if 0 in readable:
            if not (chunk := os.read(0, 65536)):
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                if (running := os.fork()) == 0:
                    child(json.loads(line), module, replies, nursery)
                with contextlib.suppress(OSError):
                    os.setpgid(running, running)  # here as well: whoever comes first
                send(replies, {"pid": running})
    if running is not None:
        kill_group(running)


def reap(running: int | None, replies: int) -> int | None:
    """Report the end of the child, if it has ended, and kill what it left behind."""
    if running is None:
        return None
    pid, status = os.waitpid(running, os.WNOHANG)
    if pid == 0:
        return running
    kill_group(running)
    send(replies, {"exit": os.waitstatus_to_exitcode(status)})
    return None


if __name__ == "__main__":
    serve(sys.argv[1])
