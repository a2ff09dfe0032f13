"""The prepared cache: every sample of a split decoded once, in memory-mapped flat arrays that all trials of a machine share.

`<cache>/<split>-<settings>-<content>/` holds one `<modality>.bin` for the image and for each task whose files the data set has (so that
single-task and multi-task trials read the same arrays) and `manifest.json`, which is written last. `<settings>` is a hash of ids, tasks,
working size and the sources of the readers, `<content>` one of the bytes of all files that were decoded: the manifest holds each file's
digest, taken while the cache is built. So a copy of the data set elsewhere uses the same cache, and other bytes never do.

`<split>-<place>.json` remembers which cache a directory's split has, and the stamp (sizes and times) of its files when they were hashed.
While the stamp is the same, nothing is read: a stat a file, well under a second for the 30,000 files of PASCAL-Context's training split on
a local disk. When it differs, all files are hashed again: the same bytes keep the cache, others are named and it is built anew. A file
whose bytes change while its size and all its times stay (only an administrator can do that) is found by `verify` alone.

A cache is used only after its settings and content, the manifest's own checksum, the files' sizes and a CRC-32 over every 64 samples of
the arrays in use have been checked, at several GB/s; that reads what the first epoch reads anyway. One that fails is named and built again.
"""

import contextlib
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import filelock
import numpy as np
import torch

from bench import provenance
from bench.data.cache_build import Job, build
from bench.data.cache_index import Index, read_index, replace_index
from bench.data.cache_layout import CHUNK, MANIFEST, CacheError, Layout, Opener, plan_layout, read_manifest, size_text
from bench.data.contents import Sources, changed_files, content_of
from bench.data.layout import DataError
from bench.data.store import DTYPES, NATIVE, CachedStore, RawSamples, WorkingSize, kind_of
from bench.data.untouched import refuse_inside
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
        subset: What else chooses the split's samples, such as the held-out rule; part of the place.
    """

    root: Path
    split: str
    opener: Opener
    size: WorkingSize = NATIVE
    subset: str = ""

    def place(self, cache_dir: Path) -> Path:
        """Return the path, less its suffix, of what belongs to this split of this directory: the index, and a build in progress."""
        place = json.dumps([str(Path(self.root).resolve()), self.split, self.subset, *self.size])
        return Path(cache_dir) / f"{self.split}-{hashlib.sha256(place.encode()).hexdigest()[:10]}"

    def kind(self, cache_dir: Path, settings: str) -> Path:
        """Return the path, less its suffix, of the lock of all caches with these settings, whatever the files' bytes."""
        return Path(cache_dir) / f"{self.split}-{settings[:10]}"

    def directory(self, cache_dir: Path, settings: str, content: str) -> Path:
        """Return where a cache lies."""
        return Path(cache_dir) / f"{self.split}-{settings[:10]}-{content[:16]}"


class NoCacheError(CacheError):
    """There is no cache yet: nothing is wrong."""


def open_cache(
    request: Request,
    tasks: tuple[str, ...] | None,
    cache_dir: Path,
    *,
    verify: bool = False,
    processes: int | None = None,
    say: Callable[[str], None] = logger.warning,
    progress: Callable[[int, int], None] | None = None,
) -> CachedStore:
    """Open the cache of a split for some tasks; build it first where there is none, or none that can be trusted.

    Args:
        request: The split.
        tasks: Whose arrays are opened, and looked through; None opens those of all tasks that the data set has labels of.
        cache_dir: Directory of all caches; never inside of the data set.
        verify: Hash every file of the split whatever its times say, and check the arrays of all tasks.
        processes: Processes that decode; by default one a core.
        say: Told what happens: the size beforehand, why a cache is not used, for what this process waits.
        progress: Told the number of samples done, and of all.

    Raises:
        CacheError: The cache cannot be written; the message says how much room it takes and what to do.
        DataError: A file of the data set is missing or broken.
    """
    cache_dir = Path(cache_dir).resolve()
    refuse_inside(cache_dir, request.root, option="the cache directory")
    dataset = request.opener(available_tasks(request.opener, tasks or ()))
    tasks = dataset.tasks if tasks is None else tasks
    sources, settings = Sources(dataset, progress), settings_of(request, dataset)
    look = partial(_find, request, sources, settings, tasks, cache_dir, verify=verify, say=say)
    try:
        return look()
    except CacheError as error:
        if not isinstance(error, NoCacheError):
            say(f"{error}; it is built again")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with locked(request.kind(cache_dir, settings), say):
            try:
                return look()  # another process has built it meanwhile
            except CacheError:
                layout = plan_layout(dataset, request.size)
                say(f"{cache_dir}: {request.split}: {len(dataset)} samples, {', '.join(layout.names)}: {size_text(layout.bytes)}")
                job = Job(request.place(cache_dir), partial(request.directory, cache_dir, settings), settings, layout)
                content = build(job, sources, request.opener, processes=processes, progress=progress)
                _remember(request, sources, settings, content, cache_dir, say)
                return load(request.directory(cache_dir, settings, content), settings, content, tasks, built=True)
    except OSError as error:
        raise CacheError(f"{cache_dir} cannot be written: {error}; give a directory for caches with --cache-dir") from error


def _find(
    request: Request,
    sources: Sources,
    settings: str,
    tasks: tuple[str, ...],
    cache_dir: Path,
    *,
    verify: bool,
    say: Callable[[str], None],
) -> CachedStore:
    """Open the cache that holds a split's files as they are now.

    Raises:
        CacheError: There is none, or it cannot be trusted; the message names it and says why.
    """
    index = read_index(request.place(cache_dir))
    known = None if index is None else cache_dir / index.directory
    if index is not None and index.settings == settings and index.settled and index.stamp == sources.stamp.sha256 and not verify:
        return load(known, settings, index.content, tasks)
    if not any(cache_dir.glob(f"{request.split}-{settings[:10]}-*")):
        if known is None or not known.exists():
            raise NoCacheError("there is no cache yet")
        raise CacheError(f"{known}: it was made with other settings, of other ids or by other code")
    content = content_of(sources.digests)
    directory = request.directory(cache_dir, settings, content)
    if not directory.exists():
        if known is None or not known.exists():
            raise NoCacheError("there is no cache of these files yet")
        raise CacheError(f"{known}: it is stale, made from {_difference(known, sources)}")
    store = load(directory, settings, content, sources.dataset.tasks if verify else tasks)
    if verify:
        arrays = f"{size_text(store.bytes)} of arrays"
        say(f"{directory}: {len(sources.dataset.files) * len(store.ids)} files of {request.root} and {arrays} are what they were")
    elif index is None or index.content != content:
        say(f"{directory}: made from the same bytes as {request.root} holds; it is used")
    elif index.stamp != sources.stamp.sha256:
        say(f"{directory}: files of {request.root} have other times, and the same bytes; it is used")
    _remember(request, sources, settings, content, cache_dir, say)
    return store


def _difference(directory: Path, sources: Sources) -> str:
    try:
        manifest = read_manifest(directory / MANIFEST)
    except CacheError:
        return "other files"
    if manifest["ids"] != list(sources.dataset.ids):
        return "other files"
    return changed_files(manifest["sources"], sources.digests, manifest["ids"])


def _remember(request: Request, sources: Sources, settings: str, content: str, cache_dir: Path, say: Callable[[str], None]) -> None:
    """Write down which cache belongs to the split; one that no split has any longer is removed."""
    directory = request.directory(cache_dir, settings, content)
    index = Index(directory.name, str(request.root), settings, content, sources.stamp.sha256, sources.stamp.settled)
    try:
        replace_index(request.place(cache_dir), index)
    except OSError as error:
        say(f"{cache_dir} cannot be written ({error.strerror}): the files' times are not noted, their bytes are read again next time")


def available_tasks(opener: Opener, needed: tuple[str, ...]) -> tuple[str, ...]:
    """List the tasks whose files the split has, in the order of the task table.

    Raises:
        DataError: Those of a task in `needed` are missing, or there is no task whose files are all there.
    """
    if needed:
        opener(needed)

    refused: list[DataError] = []

    def there(task: str) -> bool:
        try:
            opener((task,))
        except DataError as error:  # files are missing
            refused.append(error)
            return False
        except ValueError:  # the data set knows no such task
            return False
        return True

    found = tuple(task for task in TASKS if task in needed or there(task))
    if not found and refused:
        raise refused[0]
    return found


def settings_of(request: Request, dataset: RawSamples) -> str:
    """Hash what a cache's content depends on beside the bytes of the files, see the module."""
    told = [request.split, list(dataset.ids), list(dataset.tasks), *request.size, provenance.hash_sources(READERS)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def load(directory: Path, settings: str, content: str, tasks: tuple[str, ...], *, built: bool = False) -> CachedStore:
    """Check a cache and map its arrays into memory.

    Raises:
        CacheError: It is missing, stale, cut short or garbled; the message says which.
    """
    manifest = read_manifest(directory / MANIFEST)
    if (manifest["settings"], manifest["content"]) != (settings, content):
        raise CacheError(f"{directory}: it was made from other files, with other settings or by other code")
    layout = Layout.from_plain(manifest["layout"])
    names = ("image", *tasks)
    absent = [name for name in names if name not in layout.names]
    if absent:
        raise CacheError(f"{directory}: it lacks {', '.join(absent)}")
    flat = {name: _mapped(directory, name, layout, manifest["crc32"][name]) for name in names}
    return CachedStore(manifest["ids"], flat, layout.stored, layout.native, directory=directory, built=built)


def _mapped(directory: Path, name: str, layout: Layout, expected: list[int]) -> torch.Tensor:
    """Map one array, whole and unchanged."""
    path, size = directory / f"{name}.bin", layout.file_bytes(name)
    found = path.stat().st_size if path.exists() else None
    if found != size:
        raise CacheError(f"{path} has {found} bytes instead of {size}" if found is not None else f"{path} is missing")
    array = np.memmap(path, dtype=np.uint8, mode="c")  # private, so that torch may have it; pages are shared until written, never here
    for chunk, crc in enumerate(expected):
        start, stop = layout.chunk_bytes(name, chunk)
        beat()
        if zlib.crc32(array[start:stop]) != crc:
            raise CacheError(f"{path} is garbled among samples {chunk * CHUNK} to {chunk * CHUNK + CHUNK - 1}")
    return torch.from_numpy(array.view(DTYPES[kind_of(name)]))


@contextlib.contextmanager
def locked(name: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of the caches of one kind, see `Request.kind`; say so when that means to wait.

    Its file is removed by who holds it, however the block ends; a killed process leaves it, empty, for the next holder to remove.
    """
    # No race: the file is unlinked while the lock is held, so that nobody else is inside. A process that opened the file before and locks
    # it afterwards holds a file that its name no longer leads to, while another may lock a new file of that name; it notices by comparing
    # the two, and begins again. Who passes the comparison holds the file of that name, which nobody but its holder removes.
    lock, waiting = filelock.FileLock(f"{name}.lock"), False
    while not lock.is_locked:
        try:
            lock.acquire(timeout=WAIT_SECONDS if waiting else 0)
            if not _is_named(lock):
                lock.release()
        except filelock.Timeout:
            if not waiting:
                say(f"waiting for another process that builds {name}")
            waiting = True
            beat()  # whether that one hangs is watched where it runs
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a directory that cannot be written any more: an empty file is left
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _is_named(lock: filelock.BaseFileLock) -> bool:
    """Whether the file that a lock holds is the one that its name leads to now."""
    try:
        return os.path.samestat(os.fstat(lock._context.lock_file_fd), os.stat(lock.lock_file))
    except FileNotFoundError:
        return False
