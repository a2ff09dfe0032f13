"""Files that appear whole or not at all, damaged ones set aside under their name, and a disk that refuses told from a defect of a trial."""

import contextlib
import errno
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.errors import SuiteError

logger = logging.getLogger(__name__)

SLOW_SECONDS = 10.0
"""A write that takes longer is named in the log: every trial waits for its checkpoint after each epoch."""

REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the limit on the size of a file is reached (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing is not permitted",
    errno.EPERM: "writing is not permitted",
    errno.EIO: "the disk reports an error",
    errno.ESTALE: "the network file system has lost the directory",
}


class StorageError(SuiteError):
    """The disk of the results does not take what is written: no trial's fault, so that the launch stops and goes on later."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a kill at any moment, meets the old file or the new one, never a part.

    Args:
        path: Where the file goes; its directory is made.
        content: Text (written as UTF-8) or bytes.

    Raises:
        StorageError: The disk is full, read-only or gone; nothing was changed.
    """
    path, started = Path(path), time.monotonic()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp makes it private
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        refuse(error, path)
        raise
    if (seconds := time.monotonic() - started) > SLOW_SECONDS:
        logger.warning("writing %s took %.0f s: the disk is slow, and every trial waits for it", path, seconds)


@contextlib.contextmanager
def printed_to(path: Path) -> Iterator[None]:
    """Append to a file what is printed in the block.

    Raises:
        StorageError: The disk does not take it; one that the block raised itself stays what it was.
    """
    raised = None
    try:
        with path.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            try:
                yield
            except StorageError as error:  # closing the file fails on the same disk, and would hide why
                raised = error
                raise
    except OSError as error:
        if raised is None:
            refuse(error, path)
            raise
        raise raised from None


def append_line(path: Path, line: str) -> None:
    """Append one line to a file so that a kill or a full disk leaves whole lines; one that is torn all the same is ended first.

    Raises:
        StorageError: The disk does not take it; the file is as long as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            length = os.fstat(descriptor).st_size
            torn = length > 0 and os.pread(descriptor, 1, length - 1) != b"\n"
            write_whole(descriptor, f"{chr(10) * torn}{line}\n".encode(), length)
        finally:
            os.close(descriptor)
    except OSError as error:
        refuse(error, path)
        raise


def write_whole(descriptor: int, data: bytes, length: int) -> None:
    """Write all of the data at the end of a file of this length, however little a write takes; nothing where the disk refuses a part."""
    written = 0
    try:
        while written < len(data):
            written += os.write(descriptor, data[written:])
    except OSError:
        with contextlib.suppress(OSError):  # what cannot be taken back stays: readers skip a torn line
            if os.fstat(descriptor).st_size == length + written:  # else another process has added its own
                os.ftruncate(descriptor, length)
        raise


def refuse(error: OSError, path: Path) -> None:
    """Raise StorageError where the disk itself refused; return on any other error."""
    if error.errno in REFUSALS:
        raise StorageError(
            f"{path} cannot be written: {REFUSALS[error.errno]} ({error.strerror}). Nothing was half-written; make room or repair it and "
            "run the same command again: finished trials are kept, the others go on from their last epoch"
        ) from error


def set_aside(path: Path) -> Path:
    """Move a file that must not be trusted into `set_aside/` beside it, never over another, and return where it is now."""
    path = Path(path)
    directory = path.parent / "set_aside"
    target, number = directory / path.name, 1
    try:
        directory.mkdir(exist_ok=True)
        while target.exists():
            number += 1
            target = directory / f"{path.stem}.{number}{path.suffix}"
        os.replace(path, target)
    except OSError as error:
        refuse(error, path)
        raise
    return target


def plain_name(name: str, what: str) -> str:
    """Return a name that is to become a file's or a directory's, refusing one that leads elsewhere.

    Raises:
        SuiteError: It is empty, starts with a dot or holds a separator.
    """
    if not isinstance(name, str) or not name or name.startswith(".") or any(sign in name for sign in ("/", "\\", "\0")):
        raise SuiteError(f"{what} {name!r} is no plain name; allowed are names without a slash that do not start with a dot")
    return name


def tail(path: Path, characters: int = 4000) -> str | None:
    """Return the end of a log, from the start of a line; None where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            size = file.tell()
            file.seek(max(0, size - characters))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    return text.partition("\n")[2] if size > characters and "\n" in text else text
