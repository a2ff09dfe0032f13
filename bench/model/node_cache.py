"""Weights on the node's own disk: the trials of a node read a file that lies on the network once, not once a trial."""

import hashlib
import shutil
import tempfile
from pathlib import Path

import filelock

from bench.errors import SuiteError

PATIENCE_SECONDS = 1800.0


class NodeCacheError(SuiteError):
    """The copy on the node is not what it should be."""


def copied(file: Path, cache_dir: Path) -> Path:
    """Return the copy of a file in the node's cache; the first caller makes it, callers at the same time wait for it.

    A file is known by path, size and time of change, and its copy is checked against the hash that stands in the copy's name, so that a
    damaged copy is made again and a changed file gets a new one.

    Args:
        file: A weights file.
        cache_dir: Directory on the node's own disk; made where it is missing.

    Raises:
        NodeCacheError: The file is not there, or the cache cannot be written; give another directory with --cache-dir.
    """
    directory = Path(cache_dir) / "weights"
    try:
        stat = Path(file).stat()
        key = hashlib.sha256(f"{Path(file).resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
        directory.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(directory / f"{key}.lock", timeout=PATIENCE_SECONDS):
            for copy in directory.glob(f"{key}-*{file.suffix}"):
                if sha256(copy) == copy.stem.partition("-")[2]:
                    return copy
                copy.unlink()
            with tempfile.TemporaryDirectory(dir=directory, prefix=".copying-") as place:
                copy = Path(shutil.copyfile(file, Path(place) / f"weights{file.suffix}"))
                return copy.rename(directory / f"{key}-{sha256(copy)}{file.suffix}")
    except FileNotFoundError:
        raise NodeCacheError(f"no weights file at {file}; on a cluster every node must reach it under this path") from None
    except OSError as error:
        raise NodeCacheError(f"{directory} cannot be written: {error}; give another directory of the node with --cache-dir") from error


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
