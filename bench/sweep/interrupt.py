"""Ctrl-C once: start nothing more and let what runs finish. Ctrl-C twice: stop now."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class Interrupt:
    """Within `with Interrupt(say) as interrupt:`, `interrupt.stopping` tells whether to start more.

    Args:
        say: Told what the first Ctrl-C does.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.stopping, self.before = say, False, None

    def __enter__(self) -> "Interrupt":
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self.handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take one Ctrl-C."""
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self.say("interrupted: what runs now finishes, nothing more starts; Ctrl-C again stops at once")


CURRENT: Interrupt | None = None
"""Of the running sweep. Tune pickles its scheduler, so that it may refer to it only through this module."""
