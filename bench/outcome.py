"""From a measurement to its record: what was measured, or why it was not. Two things leave no record: a disk that refuses, and an error
of the network, which a second try may not meet again."""

import datetime
import errno
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.errors import SuiteError
from bench.memory import memory_limit, says_out_of_memory
from bench.record import RecordError, StorageError, read_record, write_record
from bench.storage import tail
from bench.training.loop import DivergedError

TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH})
"""Errors of a network or its file system."""

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def conclude(
    record: dict[str, Any],
    work: Callable[[], tuple[dict[str, Any], Mapping[str, np.ndarray] | None]],
    *,
    started: float,
    directory: Path,
    log: Path,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Do the work and write what came of it as a record.

    Args:
        record: What is known before; its `timing` is filled.
        work: Returns the measured part of the record, and the per-image sums or None.
        started: `time.time()` at the start of the trial.
        directory: Where the record goes.
        log: The trial's log, whose end goes into the record of a trial that does not end well.
        earlier: Of the trial's earlier attempts `start`, `seconds`, `launch`, `slot` and `ended`.

    Returns:
        The record as it reads on disk.

    Raises:
        StorageError: The disk does not take a checkpoint or the record.
        OSError: One of `TRANSIENT`.
    """
    known = dict(record)
    came, per_image = _attempted(work)
    record |= came
    sys.stderr.flush()
    record["timing"] |= {"end": iso(time.time())} | total_seconds(earlier, time.time() - started)
    record |= {} if record["status"] == "ok" else {"log_tail": tail(log)}
    try:
        return read_record(write_record(directory, record, per_image))
    except RecordError as error:  # measurements that do not add up are a defect to be seen, not a trial to be lost
        unmeasured = known | {"timing": record["timing"], "status": "failed", "reason": str(error), "log_tail": tail(log)}
        return read_record(write_record(directory, unmeasured, None))


def _attempted(
    work: Callable[[], tuple[dict[str, Any], Mapping[str, np.ndarray] | None]],
) -> tuple[dict[str, Any], Mapping[str, np.ndarray] | None]:
    """Do the work. Returns status, reason and what was measured, and the per-image sums, None where it did not end well."""
    try:
        measured, per_image = work()
    except (DivergedError, FloatingPointError) as error:
        return {"status": "diverged", "reason": str(error)}, None
    except StorageError:
        raise
    except SuiteError as error:
        return {"status": "invalid", "reason": f"{type(error).__name__}: {error}"}, None
    except OSError as error:
        if error.errno in TRANSIENT:
            raise
        if error.errno in DISK_FULL:
            raise StorageError(f"{error}; make room and run the same command again: the trial goes on from its last epoch") from error
        return failure(error), None
    except Exception as error:  # the boundary of the sweep: any defect of one trial is a result, the others go on
        return failure(error), None
    return {"status": "ok", "reason": None} | measured, per_image


def failure(error: Exception) -> dict[str, str]:
    """Return status and reason of a trial that raised, and print the traceback, which so gets into its log; call it while handling."""
    traceback.print_exc()
    out_of_memory, limit = is_out_of_memory(error), memory_limit()
    bound = f" (limit of its memory: {limit / 2**30:.2f} GiB)" if out_of_memory and limit is not None else ""
    reason = f"{type(error).__name__}: {error}{bound}\n{traceback.format_exc()[-3000:]}"
    return {"status": "oom" if out_of_memory else "failed", "reason": reason}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that memory ran out; torch's libraries raise a plain RuntimeError then."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if isinstance(error, RuntimeError) and says_out_of_memory(str(error), limited=memory_limit() is not None):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def total_seconds(earlier: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """Return what a record's timing says of all attempts, from the earlier ones and the seconds of the last one."""
    total = seconds + sum(attempt["seconds"] for attempt in earlier)
    return {"attempt_seconds": seconds, "total_seconds": total, "earlier_attempts": [dict(attempt) for attempt in earlier]}


def iso(seconds: float) -> str:
    """Return a time stamp in UTC, ISO 8601."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
