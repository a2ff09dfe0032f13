"""What the files of a split hold, told by their bytes: the content hash by which a prepared cache is known.

Times of change and sizes only say that files were not touched since their bytes were read, as in git's index: a `Stamp` that is the same
spares the reading; one that differs says nothing about the bytes, so that they are read again.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bench.data.layout import DataError, first
from bench.data.store import RawSamples
from bench.heartbeat import beat

DIGEST_BYTES = 20
RACY_NS = 2 * 10**9
"""A file that changed less than this before its bytes were read may change again without a new time: clocks of file systems are coarse."""

Digests = Mapping[str, Sequence[str]]
"""BLAKE2b of every file, hex, by modality, in the order of the ids."""


class Stamp(NamedTuple):
    """Sizes and times of a split's files, nanoseconds.

    Attributes:
        sha256: Of modality, id, size, time of modification and time of status change of every file.
        newest: The latest status change.
        taken: When the stamp was taken.
    """

    sha256: str
    newest: int
    taken: int

    @property
    def settled(self) -> bool:
        """Whether no file can have changed after `taken` without showing it."""
        return self.newest < self.taken - RACY_NS


def stamp_of(dataset: RawSamples) -> Stamp:
    """Take the stamp of a split's files: a stat a file.

    Raises:
        DataError: A file is gone.
    """
    hasher, newest, taken = hashlib.sha256(), 0, time.time_ns()
    for modality in sorted(dataset.files):
        for identifier in dataset.ids:
            state = _stat(dataset.files[modality][identifier])
            beat()
            hasher.update(f"{modality}\0{identifier}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\n".encode())
            newest = max(newest, state.st_ctime_ns)
    return Stamp(hasher.hexdigest(), newest, taken)


class Sources:
    """The files of a split as they are now.

    Args:
        dataset: The opened split.
        progress: Told the number of samples whose files are hashed, and of all.

    Attributes:
        stamp: Taken at once.

    Raises:
        DataError: A file is gone.
    """

    def __init__(self, dataset: RawSamples, progress: Callable[[int, int], None] | None = None) -> None:
        self.dataset, self.stamp, self._progress = dataset, stamp_of(dataset), progress
        self._digests: Digests | None = None

    @property
    def digests(self) -> Digests:
        """The digests of all files, read when first asked for."""
        if self._digests is None:
            self._digests = digests_of(self.dataset, progress=self._progress)
        return self._digests


def digests_of(
    dataset: RawSamples, indices: Sequence[int] | None = None, progress: Callable[[int, int], None] | None = None
) -> dict[str, list[str]]:
    """Hash the files of samples, by default of all, in as many threads as there are cores.

    Args:
        dataset: The opened split.
        indices: Of the samples.
        progress: Told the number of samples done, and of all.

    Raises:
        DataError: A file cannot be read.
    """
    ids = [dataset.ids[index] for index in (range(len(dataset)) if indices is None else indices)]
    modalities = sorted(dataset.files)
    found: dict[str, list[str]] = {modality: [] for modality in modalities}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and hashing leave the interpreter's lock
        for done, row in enumerate(pool.map(lambda name: [digest_of(dataset.files[m][name]) for m in modalities], ids), 1):
            for modality, digest in zip(modalities, row, strict=True):
                found[modality].append(digest)
            beat()
            if progress is not None:
                progress(done, len(ids))
    return found


def digest_of(path: str) -> str:
    """Hash a file's bytes.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=DIGEST_BYTES).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def content_of(digests: Digests) -> str:
    """Hash the digests of all files to one, sha256 hex: the content hash of a split."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def changed_files(before: Digests, now: Digests, ids: Sequence[str]) -> str:
    """Name the first files whose bytes differ, for messages."""
    names = [
        f"{modality} {name}"
        for modality in sorted(now)
        for name, old, new in zip(ids, before.get(modality, [""] * len(ids)), now[modality], strict=True)
        if old != new
    ]
    return f"{len(names)} files of other bytes ({first(names)})"


def _stat(path: str) -> os.stat_result:
    try:
        state = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(state.st_mode):
        raise DataError(f"{path} cannot be read: it is a directory, a pipe or a device and no regular file; replace it")
    return state


def _unreadable(path: str, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read ({error.strerror or error}): mend the link, the permissions or the file")
