"""A nursery to which a fork returns late, as on a busy machine: its child has ended before it can tell the process id."""

import os
import time

fork = os.fork


def late_fork() -> int:
    """Fork, and let the parent wait."""
    if pid := fork():
        time.sleep(0.5)
    return pid


os.fork = late_fork


def tell(job: dict, report) -> None:
    """Report an epoch at once."""
    report({"epoch": 1})
