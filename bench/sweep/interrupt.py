"""Ctrl-C once: start nothing more and let what runs finish. Ctrl-C twice: stop now."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType


class Interrupt:
    """Within `with Interrupt(say) as interrupt:`, `interrupt.stopping` tells whether to start more.

    Args:
        say: Told what the first Ctrl-C does.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.stopping, self.taken, self.before = say, False, 0, None

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self.pipe = os.pipe()  # counts what arrives while Ray's C code keeps the handler waiting: there two signals become one call
            for end in self.pipe:
                os.set_blocking(end, False)
            self.wakeup_before = signal.set_wakeup_fd(self.pipe[1], warn_on_full_buffer=False)
            self.before = signal.signal(signal.SIGINT, self.handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
            signal.set_wakeup_fd(self.wakeup_before)
            for end in self.pipe:
                os.close(end)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take one Ctrl-C, or several at once."""
        with contextlib.suppress(BlockingIOError):
            self.taken += os.read(self.pipe[0], 4096).count(number)
        if self.stopping or self.taken > 1:
            raise KeyboardInterrupt
        self.stopping = True
        self.say("interrupted: what runs now finishes, nothing more starts; Ctrl-C again stops at once")


def descendants(pid: int) -> set[int]:
    """Return the processes below a process, without itself; none where there is no /proc."""
    parents, below = {}, {pid}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return below - {pid}


def kill_descendants() -> None:
    """Kill all that this process has started, and what that has started: a Ray that ends in good order takes seconds."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


CURRENT: Interrupt | None = None
"""Of the running sweep. Tune pickles its scheduler, so that it may refer to it only through this module."""
