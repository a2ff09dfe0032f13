"""Children of a nursery, for its tests: they take memory, meet a full disk, tell what they see."""

import errno
import os
import time
from pathlib import Path

from bench.storage import StorageError, refuse


def take(job: dict, report) -> None:
    """Allocate and touch so many bytes."""
    try:
        bytearray(job["bytes"])
        report({"got": "all of it"})
    except MemoryError:
        report({"got": "MemoryError"})


def judge(job: dict, report) -> None:
    """Report of each message whether a RuntimeError that says it means that memory ran out."""
    from bench.outcome import is_out_of_memory

    report({"oom": [message for message in job["messages"] if is_out_of_memory(RuntimeError(message))]})


def full_disk(job: dict, report) -> None:
    """Meet a full disk."""
    refuse(OSError(errno.ENOSPC, "No space left on device"), Path("somewhere"))


def tell_gpus(job: dict, report) -> None:
    """Write down which GPUs there are, and end without a record or a death."""
    (Path(job["suite_dir"]) / "seen").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    raise StorageError("saw")


def wait_without_memory(job: dict, report) -> None:
    """Meet the end of memory in a thread that others wait for: no sign of life any more."""
    print("Exception ignored in thread started by: <bound method>", "MemoryError", sep="\n", flush=True)
    time.sleep(600)
