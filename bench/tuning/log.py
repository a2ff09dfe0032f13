"""The log of a trial that a Tune worker trains: a worker holds a whole setting, so that what it prints goes by turns to each trial's."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.storage import printed_to


def log_path(tuning_dir: Path, run_id: str) -> Path:
    """Return where the log of a trial is; its directory is made."""
    path = tuning_dir / "logs" / f"{run_id}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def all_printed_to(log: Path) -> Iterator[None]:
    """Append to a log all that this process prints in the block, errors and what libraries print past Python as well.

    Raises:
        StorageError: The disk does not take it.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with printed_to(log), contextlib.redirect_stderr(sys.stdout):
        kept, opened = {number: os.dup(number) for number in (1, 2)}, sys.stdout.fileno()
        try:
            for number in kept:
                os.dup2(opened, number)
            yield
        finally:
            for number, was in kept.items():
                os.dup2(was, number)
                os.close(was)
