"""Weights on the node's own disk: the trials of a node read a file that lies on the network once, not once a trial."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import filelock

from bench.errors import SuiteError

PATIENCE_SECONDS = 1800.0


class NodeCacheError(SuiteError):
    """The copy on the node is not what it should be."""


def copied(file: Path, digest: str, cache_dir: Path) -> Path:
    """Return the copy of a file in the node's cache; the first caller makes it, callers at the same time wait for it.

    Args:
        file: A weights file.
        digest: The SHA-256 of its content: the copy's name. A copy with another content is made again.
        cache_dir: Directory on the node's own disk; made where it is missing.

    Raises:
        NodeCacheError: The file is missing or has another content, or the cache cannot be written: point TMPDIR elsewhere.
    """
    directory = Path(cache_dir) / "weights"
    copy = directory / f"{digest}{Path(file).suffix}"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with filelock.FileLock(directory / f"{digest}.lock", timeout=PATIENCE_SECONDS):
            if not copy.exists() or sha256(copy) != digest:
                with tempfile.TemporaryDirectory(dir=directory, prefix=".copying-") as place:
                    fresh = Path(shutil.copyfile(file, Path(place) / copy.name))
                    if (found := sha256(fresh)) != digest:
                        raise NodeCacheError(f"{file} has another content ({found[:12]}) here than the launch's ({digest[:12]})")
                    os.replace(fresh, copy)
        return copy
    except FileNotFoundError:
        raise NodeCacheError(f"no weights file at {file}; on a cluster every node must reach it under this path") from None
    except OSError as error:
        raise NodeCacheError(f"{directory} cannot be written: {error}; point TMPDIR at a directory of the node that can") from error


def default_cache_dir() -> Path:
    """Return this node's directory for copies, in its temporary directory (TMPDIR): that lies on the node's own disk."""
    return Path(tempfile.gettempdir()) / f"dense-peft-bench-{os.getuid()}"


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
