"""Write a prepared cache: all cores, resumable, whole or not at all.

Everything is written in `<split>-<place>.partial/`: files of their final size first, so that a disk that is too small shows before any
work, then chunk after chunk by several processes, each at its own place. `done.jsonl` says which chunks are written, with their checksums
and the digests of the files that they were decoded from; a build that was killed goes on from there, with chunks whose files are as they
were. The manifest comes last, then the directory gets its name.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bench.data.cache_layout import CHUNK, MANIFEST, CacheError, Layout, Opener, checksum
from bench.data.contents import Sources, content_of, digests_of, stamp_of
from bench.data.layout import DataError
from bench.data.store import RawSamples, encode, resized
from bench.errors import SuiteError
from bench.heartbeat import beat
from bench.record import write_atomically
from bench.workers import pool as pool_of

SMALL_BYTES = 2**26
"""A cache of less is written in this process: starting others takes longer."""

_PLAN, _DONE = "plan.json", "done.jsonl"


class Job(NamedTuple):
    """A cache to build.

    Attributes:
        place: Path, less its suffix, of the directory in which it is built; the caller holds a lock.
        final: Gives its place, once its content hash is known; a cache that is there is replaced.
        settings: Hash of all that it depends on beside the files' bytes.
        layout: Its arrays.
    """

    place: Path
    final: Callable[[str], Path]
    settings: str
    layout: Layout

    @property
    def partial(self) -> Path:
        """Directory of a build that is not complete."""
        return self.place.with_name(f"{self.place.name}.partial")


Chunk = dict[str, Any]
"""What the journal holds of a chunk: its number `chunk`, `crc32` by array, `sources`: the digests of its files by modality."""


def build(
    job: Job, sources: Sources, opener: Opener, *, processes: int | None = None, progress: Callable[[int, int], None] | None = None
) -> str:
    """Build a cache.

    Args:
        job: Which.
        sources: The files of the opened split.
        opener: Opens the split in another process.
        processes: By default one a core.
        progress: Told the number of samples done, and of all.

    Returns:
        Its content hash.

    Raises:
        CacheError: There is no room, writing fails, or a file changed while it was read; what was written is removed.
        DataError: A file of the data set is broken; whole chunks that were written stay, for when it is mended.
    """
    dataset, done = sources.dataset, {}
    try:
        done.update(_start(job, dataset))
        with (job.partial / _DONE).open("a", encoding="utf-8") as journal:
            for chunk in _written(job, dataset, opener, set(range(job.layout.chunks)) - set(done), processes):
                done[chunk["chunk"]] = chunk
                beat()
                print(json.dumps(chunk), file=journal, flush=True)
                if progress is not None:
                    progress(min(len(done) * CHUNK, len(dataset)), len(dataset))
        if stamp_of(dataset).sha256 != sources.stamp.sha256:
            raise CacheError(f"files of the split changed while they were read into {job.partial}: start again when nothing writes there")
        return _finish(job, dataset, done)
    except DataError:
        if not done:
            shutil.rmtree(job.partial, ignore_errors=True)
        raise
    except CacheError:
        shutil.rmtree(job.partial, ignore_errors=True)
        raise
    except (OSError, SuiteError) as error:
        shutil.rmtree(job.partial, ignore_errors=True)
        free, reason = shutil.disk_usage(job.partial.parent).free, getattr(error, "strerror", None) or error
        raise CacheError(
            f"the cache {job.partial} of {job.layout.bytes:,} bytes cannot be written ({reason}); {free:,} bytes are free there: make "
            "room, or give another directory with --cache-dir. What was written of it is removed"
        ) from error


def _start(job: Job, dataset: RawSamples) -> dict[int, Chunk]:
    """Return the chunks that an earlier build has written from the same files, or begin anew; the files have their final size then."""
    plan = {"settings": job.settings, "layout": job.layout.to_plain()}
    if job.partial.exists():
        if (done := _earlier(job.partial, plan)) is not None:
            return {number: chunk for number, chunk in done.items() if digests_of(dataset, _indices(dataset, number)) == chunk["sources"]}
        shutil.rmtree(job.partial)
    free = shutil.disk_usage(job.partial.parent).free
    if free < job.layout.bytes:
        raise OSError(None, f"the disk is too small by {job.layout.bytes - free:,} bytes")
    job.partial.mkdir()
    for name in job.layout.names:
        with (job.partial / f"{name}.bin").open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, job.layout.file_bytes(name))
            file.truncate(job.layout.file_bytes(name))
    write_atomically(job.partial / _PLAN, json.dumps(plan))
    return {}


def _indices(dataset: RawSamples, chunk: int) -> range:
    return range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(dataset)))


def _earlier(directory: Path, plan: dict[str, Any]) -> dict[int, Chunk] | None:
    """Read what an interrupted build has done; None where it was another, or cannot be read."""
    try:
        if json.loads((directory / _PLAN).read_text(encoding="utf-8")) != plan:
            return None
        layout = Layout.from_plain(plan["layout"])
        if any((directory / f"{name}.bin").stat().st_size != layout.file_bytes(name) for name in layout.names):
            return None
        path, done = directory / _DONE, {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                chunk = json.loads(line)
                done[chunk["chunk"]] = {key: chunk[key] for key in ("chunk", "crc32", "sources")}
            except (ValueError, KeyError):  # the last line, cut short by the kill
                break
        return done
    except (OSError, ValueError):
        return None


def _written(job: Job, dataset: RawSamples, opener: Opener, chunks: set[int], processes: int | None) -> Iterator[Chunk]:
    """Write chunks; give what the journal holds of each as it is done."""
    processes = min(processes or os.cpu_count() or 1, len(chunks))
    if processes <= 1 or job.layout.bytes < SMALL_BYTES:
        for chunk in sorted(chunks):
            yield write_chunk(job.partial, job.layout, dataset, chunk)
        return
    with pool_of(processes, _open_in_worker, (opener, dataset.tasks)) as pool:
        try:
            yield from pool.map(partial(_write_in_worker, job.partial, job.layout), sorted(chunks))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_WORKER_DATASET: list[RawSamples] = []


def _open_in_worker(opener: Opener, tasks: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    _WORKER_DATASET[:] = [opener(tasks)]


def _write_in_worker(directory: Path, layout: Layout, chunk: int) -> Chunk:
    return write_chunk(directory, layout, _WORKER_DATASET[0], chunk)


def write_chunk(directory: Path, layout: Layout, dataset: RawSamples, chunk: int) -> Chunk:
    """Hash a chunk's files, decode them while they are in the page cache, and write the samples at their places."""
    indices = _indices(dataset, chunk)
    sources = digests_of(dataset, indices)
    samples = [_prepared(dataset, index, layout) for index in indices]
    crc = {}
    for name in layout.names:
        content = b"".join(sample[name].tobytes() for sample in samples)
        start, stop = layout.chunk_bytes(name, chunk)
        if len(content) != stop - start:
            raise CacheError(
                f"samples of chunk {chunk} have {len(content)} bytes of {name} instead of {stop - start}: the data set changed"
            )
        with (directory / f"{name}.bin").open("r+b", buffering=0) as file:
            view = memoryview(content)
            while view:  # a raw write may take a part only
                view = view[os.pwrite(file.fileno(), view, stop - len(view)) :]
        crc[name] = zlib.crc32(content)
    return {"chunk": chunk, "crc32": crc, "sources": sources}


def _prepared(dataset: RawSamples, index: int, layout: Layout) -> dict[str, np.ndarray]:
    """Decode a sample, and bring it to its stored size."""
    sample = encode(dataset[index], layout.names)
    size = tuple(layout.stored[index].tolist())
    if sample["image"].shape[:2] != tuple(layout.native[index].tolist()):
        raise CacheError(f"image {dataset.ids[index]} has another size than its file's header said: the data set changed")
    return resized(sample, size)


def _finish(job: Job, dataset: RawSamples, done: dict[int, Chunk]) -> str:
    """Write the manifest and give the directory its name; an older cache goes, though trials that have it open may go on."""
    chunks = [done[number] for number in range(job.layout.chunks)]
    crc = {name: [chunk["crc32"][name] for chunk in chunks] for name in job.layout.names}
    sources = {modality: [digest for chunk in chunks for digest in chunk["sources"][modality]] for modality in sorted(dataset.files)}
    content = content_of(sources)
    manifest = {"settings": job.settings, "content": content, "ids": list(dataset.ids), "sources": sources}
    manifest |= {"layout": job.layout.to_plain(), "crc32": crc}
    for name in job.layout.names:
        with (job.partial / f"{name}.bin").open("rb") as file:
            os.fsync(file.fileno())
    write_atomically(job.partial / MANIFEST, json.dumps(manifest | {"sha256": checksum(manifest)}))
    for name in (_PLAN, _DONE):
        (job.partial / name).unlink()
    final = job.final(content)
    if final.exists():
        shutil.rmtree(final)
    os.replace(job.partial, final)
    return content
