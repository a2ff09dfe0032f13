"""Prepared caches on the node's own disk: on a cluster the first trial of a node copies a cache over the network, in long reads, for all.

The caches beside the results lie on a file system that all nodes share. Mapped into memory from there, every trial that shuffles would
fetch scattered pages over the network in each epoch, as far as the node's page cache does not hold them.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from bench.data.cache import Request, locked
from bench.data.cache_index import read_index, replace_index
from bench.data.cache_layout import MANIFEST, size_text
from bench.heartbeat import beat

BLOCK_BYTES = 2**26
SPARE_BYTES = 2**30
"""So much is left free on the node's disk."""


def nearest(request: Request, cache_dir: Path, node_dir: Path, say: Callable[[str], None]) -> Path:
    """Return the directory of caches that a trial of this node reads: the node's own, after copying the shared one where it must.

    What is copied is what the shared index names; whether the data set still holds those bytes is checked by who opens it, as anywhere.

    Args:
        request: The split.
        cache_dir: The shared directory. Without a cache there, one is built in the node's own, by whoever opens it.
        node_dir: The node's directory.
        say: Told of a copy, and of a node whose disk does not take one: it then reads the shared cache.
    """
    cache_dir, node_dir = Path(cache_dir), Path(node_dir)
    index = read_index(request.place(cache_dir))
    if index is None or not (cache_dir / index.directory / MANIFEST).exists():
        return node_dir
    try:
        node_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(request.kind(node_dir, index.settings), say):
            _copy_where_missing(cache_dir / index.directory, node_dir / index.directory, say)
            known = read_index(request.place(node_dir))
            if known is None or known.directory != index.directory:  # else it may be the younger one: a stamp that has settled since
                replace_index(request.place(node_dir), index)
        return node_dir
    except OSError as error:
        remedy = f"{error.strerror or error}; point TMPDIR at a disk with room"
        say(f"{cache_dir / index.directory} is read where it is, not copied to {node_dir}: {remedy}")
        return cache_dir


def _copy_where_missing(shared: Path, own: Path, say: Callable[[str], None]) -> None:
    """Copy a cache that the node has not; the caller holds the lock.

    Raises:
        OSError: The node's disk does not take it, or the shared one is gone.
    """
    if (own / MANIFEST).exists() and (own / MANIFEST).read_bytes() == (shared / MANIFEST).read_bytes():
        return
    shutil.rmtree(own, ignore_errors=True)
    size = sum(file.stat().st_size for file in shared.iterdir())
    if (free := shutil.disk_usage(own.parent).free) < size + SPARE_BYTES:
        raise OSError(None, f"it takes {size_text(size)}, {size_text(free)} are free, and 1 GiB is to stay so")
    say(f"copying {shared} ({size_text(size)}) to this node: {own}")
    copy(shared, own)


def copy(shared: Path, own: Path) -> None:
    """Copy a cache, which appears whole or not at all; its manifest says whether a later look finds it so."""
    fresh = own.with_name(f"{own.name}.copying")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(mode=0o700)
        for file in sorted(shared.iterdir()):
            with file.open("rb") as source, (fresh / file.name).open("wb") as target:
                while block := source.read(BLOCK_BYTES):
                    target.write(block)
                    beat()
        os.replace(fresh, own)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
