"""Write a prepared cache: all cores, resumable, whole or not at all.

Everything is written in `<cache>.partial/`: files of their final size first, so that a disk that is too small shows before any work, then
chunk after chunk by several processes, each at its own place. `done.jsonl` says which chunks are written, with their checksums; a build
that was killed goes on from there. The manifest comes last, then the directory gets its name.
"""

import json
import multiprocessing
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.data.cache_layout import CHUNK, MANIFEST, CacheError, Layout, Opener, checksum
from bench.data.layout import DataError
from bench.data.store import RawSamples, encode, resized
from bench.errors import SuiteError
from bench.heartbeat import beat
from bench.record import write_atomically

SMALL_BYTES = 2**26
"""A cache of less is written in this process: starting others takes longer."""

_PLAN, _DONE = "plan.json", "done.jsonl"


def build(
    directory: Path,
    key: str,
    layout: Layout,
    dataset: RawSamples,
    opener: Opener,
    *,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Build the cache in `directory`, whose lock the caller holds; replaces what is there.

    Args:
        directory: The cache's final place.
        key: Of its content.
        layout: Its arrays.
        dataset: The opened split.
        opener: Opens the split in another process.
        processes: By default one a core.
        progress: Told the number of samples done, and of all.

    Raises:
        CacheError: There is no room, or writing fails; what was written is removed.
        DataError: A file of the data set is broken; what was written stays, for when it is mended.
    """
    partial_directory = directory.with_name(f"{directory.name}.partial")
    try:
        done = _start(partial_directory, key, layout)
        with (partial_directory / _DONE).open("a", encoding="utf-8") as journal:
            for chunk, crc in _written(partial_directory, layout, dataset, opener, set(range(layout.chunks)) - set(done), processes):
                done[chunk] = crc
                beat()
                print(json.dumps({"chunk": chunk, "crc32": crc}), file=journal, flush=True)
                if progress is not None:
                    progress(min(len(done) * CHUNK, len(dataset)), len(dataset))
        _finish(partial_directory, directory, key, layout, dataset, done)
    except (OSError, SuiteError) as error:
        if isinstance(error, DataError | CacheError):
            raise
        shutil.rmtree(partial_directory, ignore_errors=True)
        free, reason = shutil.disk_usage(directory.parent).free, getattr(error, "strerror", None) or error
        raise CacheError(
            f"the cache {directory} of {layout.bytes:,} bytes cannot be written ({reason}); {free:,} bytes are free there: make room, or "
            "give another directory with --cache-dir. What was written of it is removed"
        ) from error


def _start(directory: Path, key: str, layout: Layout) -> dict[int, dict[str, int]]:
    """Return the chunks that an earlier build of the same key has written, or begin anew; the files have their final size then."""
    plan = {"key": key, "layout": layout.to_plain()}
    if directory.exists():
        if (done := _earlier(directory, plan)) is not None:
            return done
        shutil.rmtree(directory)
    free = shutil.disk_usage(directory.parent).free
    if free < layout.bytes:
        raise OSError(None, f"the disk is too small by {layout.bytes - free:,} bytes")
    directory.mkdir()
    for name in layout.names:
        with (directory / f"{name}.bin").open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, layout.file_bytes(name))
            file.truncate(layout.file_bytes(name))
    write_atomically(directory / _PLAN, json.dumps(plan))
    return {}


def _earlier(directory: Path, plan: dict[str, Any]) -> dict[int, dict[str, int]] | None:
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
                entry = json.loads(line)
                done[entry["chunk"]] = entry["crc32"]
            except (ValueError, KeyError):  # the last line, cut short by the kill
                break
        return done
    except (OSError, ValueError):
        return None


def _written(
    directory: Path, layout: Layout, dataset: RawSamples, opener: Opener, chunks: set[int], processes: int | None
) -> Iterator[tuple[int, dict[str, int]]]:
    """Write chunks; give each with its checksums as it is done."""
    processes = min(processes or os.cpu_count() or 1, len(chunks))
    if processes <= 1 or layout.bytes < SMALL_BYTES:
        for chunk in sorted(chunks):
            yield chunk, write_chunk(directory, layout, dataset, chunk)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_open_in_worker, initargs=(opener, dataset.tasks)) as pool:
        try:
            yield from zip(sorted(chunks), pool.map(partial(_write_in_worker, directory, layout), sorted(chunks)), strict=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_WORKER_DATASET: list[RawSamples] = []


def _open_in_worker(opener: Opener, tasks: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    _WORKER_DATASET[:] = [opener(tasks)]


def _write_in_worker(directory: Path, layout: Layout, chunk: int) -> dict[str, int]:
    return write_chunk(directory, layout, _WORKER_DATASET[0], chunk)


def write_chunk(directory: Path, layout: Layout, dataset: RawSamples, chunk: int) -> dict[str, int]:
    """Decode a chunk's samples and write them at their places; return the CRC-32 of each array's part."""
    indices = range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(dataset)))
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
    return crc


def _prepared(dataset: RawSamples, index: int, layout: Layout) -> dict[str, np.ndarray]:
    """Decode a sample, and bring it to its stored size."""
    sample = encode(dataset[index], layout.names)
    size = tuple(layout.stored[index].tolist())
    if sample["image"].shape[:2] != tuple(layout.native[index].tolist()):
        raise CacheError(f"image {dataset.ids[index]} has another size than its file's header said: the data set changed")
    return resized(sample, size)


def _finish(
    partial_directory: Path, directory: Path, key: str, layout: Layout, dataset: RawSamples, done: dict[int, dict[str, int]]
) -> None:
    """Write the manifest and give the directory its name; an older cache goes, though trials that have it open may go on."""
    crc = {name: [done[chunk][name] for chunk in range(layout.chunks)] for name in layout.names}
    manifest = {"key": key, "ids": list(dataset.ids), "layout": layout.to_plain(), "crc32": crc}
    for name in layout.names:
        with (partial_directory / f"{name}.bin").open("rb") as file:
            os.fsync(file.fileno())
    write_atomically(partial_directory / MANIFEST, json.dumps(manifest | {"sha256": checksum(manifest)}))
    for name in (_PLAN, _DONE):
        (partial_directory / name).unlink()
    if directory.exists():
        shutil.rmtree(directory)
    os.replace(partial_directory, directory)
