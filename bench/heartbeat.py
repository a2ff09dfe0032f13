"""Signs of life of a trial: its loops say so, whoever supervises it listens, and takes a trial that has said nothing for long as hung.

The loops speak from the thread that does the work: a thread of its own would go on while a trial waits for ever. A rate limit makes a sign
cost a look at the clock.
"""

import time
from collections.abc import Callable

EVERY_SECONDS = 10.0
"""Signs that follow closer on the last one than this are not passed on."""

_listener: Callable[[], None] | None = None
_last = 0.0


def listen(listener: Callable[[], None] | None) -> None:
    """Pass the signs of this process on to a listener; None passes them on to nobody."""
    global _listener, _last
    _listener, _last = listener, 0.0


def beat() -> None:
    """Give a sign of life: a step was taken, a batch evaluated, a sample decoded."""
    global _last
    if _listener is not None and (now := time.monotonic()) - _last >= EVERY_SECONDS:
        _last = now
        _listener()
