"""The prepared cache: every sample of a split decoded once, in memory-mapped flat arrays that all trials of a machine share.

`<cache>/<split>-<place>/` holds one `<modality>.bin` for the image and for each task whose files the data set has (so that
single-task and multi-task trials read the same arrays) and `manifest.json`, which is written last. `<place>` is a hash of the data set's
path, the split and the settings; the manifest's key says in addition what the arrays were made from: name, size and modification time of
every file of the split, the identity of the data set, and the sources of the readers. Asking for that costs a stat a file, well under a
second for the 30,000 files of PASCAL-Context's training split on a local disk; contents are not read again.

A cache is used only after its key, the manifest's own checksum, the files' sizes and a CRC-32 over every 64 samples of the arrays in use
have been checked, at several GB/s; that reads what the first epoch reads anyway. One that fails is named and built again.
"""

import contextlib
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import torch

from bench import provenance
from bench.data.cache_build import build
from bench.data.cache_layout import CHUNK, MANIFEST, CacheError, Layout, Opener, checksum, plan_layout
from bench.data.layout import fingerprint
from bench.data.store import DTYPES, NATIVE, CachedStore, RawSamples, WorkingSize, kind_of
from bench.heartbeat import beat
from bench.tasks import TASKS

logger = logging.getLogger(__name__)

WAIT_SECONDS = 5.0
"""Between two signs of life while another process builds a cache."""

READERS = ("bench/data", "bench/tasks.py")
"""Sources that can change what a cache holds."""


class Request(NamedTuple):
    """A split and how to keep it.

    Attributes:
        root: The data set's directory.
        split: Name of the split.
        opener: Opens it.
        size: Working resolution.
        subset: What else chooses the split's samples, such as the held-out rule; part of the cache's place.
    """

    root: Path
    split: str
    opener: Opener
    size: WorkingSize = NATIVE
    subset: str = ""

    def directory(self, cache_dir: Path) -> Path:
        """Return where its cache lies."""
        place = json.dumps([str(Path(self.root).resolve()), self.split, self.subset, *self.size])
        return Path(cache_dir) / f"{self.split}-{hashlib.sha256(place.encode()).hexdigest()[:10]}"


def open_cache(
    request: Request,
    tasks: tuple[str, ...],
    cache_dir: Path,
    *,
    processes: int | None = None,
    say: Callable[[str], None] = logger.warning,
    progress: Callable[[int, int], None] | None = None,
) -> CachedStore:
    """Open the cache of a split for some tasks; build it first where there is none, or none that can be trusted.

    Args:
        request: The split.
        tasks: Whose arrays are opened.
        cache_dir: Directory of all caches; never inside of the data set.
        processes: Processes that decode; by default one a core.
        say: Told what happens: the size beforehand, why a cache is not used, for what this process waits.
        progress: Told the number of samples done, and of all.

    Raises:
        CacheError: The cache cannot be written; the message says how much room it takes and what to do.
        DataError: A file of the data set is missing or broken.
    """
    cache_dir, root = Path(cache_dir).resolve(), Path(request.root).resolve()
    if cache_dir.is_relative_to(root):
        raise CacheError(f"the cache directory {cache_dir} lies inside of the data set {root}, which is never written to; give another")
    dataset = request.opener(available_tasks(request.opener, tasks))
    directory, key = request.directory(cache_dir), key_of(request, dataset)
    try:
        return load(directory, key, tasks)
    except CacheError as error:
        if directory.exists():
            say(f"{directory}: {error}; it is built again")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with locked(directory, say):
            try:
                return load(directory, key, tasks)  # another process has built it meanwhile
            except CacheError:
                layout = plan_layout(dataset, request.size)
                say(f"{directory}: {len(dataset)} samples, {', '.join(layout.names)}: {layout.bytes / 2**30:.2f} GiB")
                build(directory, key, layout, dataset, request.opener, processes=processes, progress=progress)
                return load(directory, key, tasks)
    except OSError as error:
        raise CacheError(f"{directory} cannot be written: {error}; give a directory for it with --cache-dir") from error


def available_tasks(opener: Opener, needed: tuple[str, ...]) -> tuple[str, ...]:
    """List the tasks whose files the split has, in the order of the task table.

    Raises:
        DataError: Those of a task in `needed` are missing.
    """
    if needed:
        opener(needed)

    def there(task: str) -> bool:
        try:
            opener((task,))
        except ValueError:  # DataError: files are missing; a plain one: the data set knows no such task
            return False
        return True

    return tuple(task for task in TASKS if task in needed or there(task))


def key_of(request: Request, dataset: RawSamples) -> str:
    """Hash all that a cache's content depends on, see the module."""
    hasher = hashlib.sha256(json.dumps([list(dataset.ids), list(dataset.tasks), *request.size]).encode())
    hasher.update(fingerprint(request.root).encode() + provenance.hash_sources(READERS).encode())
    for modality, files in sorted(dataset.files.items()):
        for identifier in dataset.ids:
            state = os.stat(files[identifier])
            hasher.update(f"{modality}\0{identifier}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return hasher.hexdigest()


def load(directory: Path, key: str, tasks: tuple[str, ...]) -> CachedStore:
    """Check a cache and map its arrays into memory.

    Raises:
        CacheError: It is missing, stale, cut short or garbled; the message says which.
    """
    manifest = _read_manifest(directory / MANIFEST)
    if manifest["key"] != key:
        raise CacheError("it was made from other files, with other settings or by other code")
    layout = Layout.from_plain(manifest["layout"])
    names = ("image", *tasks)
    absent = [name for name in names if name not in layout.names]
    if absent:
        raise CacheError(f"it lacks {', '.join(absent)}")
    flat = {name: _mapped(directory, name, layout, manifest["crc32"][name]) for name in names}
    return CachedStore(manifest["ids"], flat, layout.stored, layout.native)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest.pop("sha256") != checksum(manifest):
            raise CacheError(f"{path.name} is garbled")
    except FileNotFoundError:
        raise CacheError(f"{path.name} is missing") from None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise error if isinstance(error, CacheError) else CacheError(f"{path.name} is cut short or garbled ({error})") from error
    return manifest


def _mapped(directory: Path, name: str, layout: Layout, expected: list[int]) -> torch.Tensor:
    """Map one array, whole and unchanged."""
    path, size = directory / f"{name}.bin", layout.file_bytes(name)
    found = path.stat().st_size if path.exists() else None
    if found != size:
        raise CacheError(f"{path.name} has {found} bytes instead of {size}" if found is not None else f"{path.name} is missing")
    array = np.memmap(path, dtype=np.uint8, mode="c")  # private, so that torch may have it; pages are shared until written, never here
    for chunk, crc in enumerate(expected):
        start, stop = layout.chunk_bytes(name, chunk)
        beat()
        if zlib.crc32(array[start:stop]) != crc:
            raise CacheError(f"{path.name} is garbled among samples {chunk * CHUNK} to {chunk * CHUNK + CHUNK - 1}")
    return torch.from_numpy(array.view(DTYPES[kind_of(name)]))


@contextlib.contextmanager
def locked(directory: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a cache; say so when that means to wait."""
    lock, waiting = filelock.FileLock(f"{directory}.lock"), False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=WAIT_SECONDS if waiting else 0)
        except filelock.Timeout:
            if not waiting:
                say(f"waiting for another process that builds {directory}")
            waiting = True
            beat()  # whether that one hangs is watched where it runs
    try:
        yield
    finally:
        lock.release()
