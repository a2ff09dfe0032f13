"""Where every sample of a prepared cache lies: sizes, offsets, bytes; known before a sample is decoded."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.data.resample import CHANNELS, SLACK_BYTES
from bench.data.store import DTYPES, RawSamples, WorkingSize, first_pixels, kind_of
from bench.errors import SuiteError

CHUNK = 64
"""Samples that are written, checked and resumed together."""

MANIFEST = "manifest.json"

Opener = Callable[[tuple[str, ...]], RawSamples]
"""Opens a split for some tasks; picklable, as it goes to the processes that decode."""


class CacheError(SuiteError):
    """A prepared cache cannot be used or written; the message says why and what to do."""


@dataclass(frozen=True)
class Layout:
    """The arrays of a cache.

    Attributes:
        names: `image` and the tasks.
        native, stored: Heights and widths of the images, and in the arrays, int64 (N, 2).
    """

    names: tuple[str, ...]
    native: np.ndarray
    stored: np.ndarray

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-len(self.stored) // CHUNK)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(self.file_bytes(name) for name in self.names)

    def pixel_bytes(self, name: str) -> int:
        """Return the bytes of one pixel."""
        kind = kind_of(name)
        return CHANNELS[kind] * np.dtype(DTYPES[kind]).itemsize

    def file_bytes(self, name: str) -> int:
        """Return the size of an array's file."""
        return int(self.stored.prod(axis=1).sum()) * self.pixel_bytes(name) + SLACK_BYTES

    def chunk_bytes(self, name: str, chunk: int) -> tuple[int, int]:
        """Return where a chunk begins and ends in its file."""
        first = np.append(first_pixels(self.stored), self.stored.prod(axis=1).sum())
        start, stop = first[chunk * CHUNK], first[min((chunk + 1) * CHUNK, len(self.stored))]
        return int(start) * self.pixel_bytes(name), int(stop) * self.pixel_bytes(name)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON types; `from_plain` turns them back."""
        return {"names": list(self.names), "native": self.native.tolist(), "stored": self.stored.tolist()}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Layout":
        """Build it from plain types."""
        return cls(tuple(plain["names"]), *(np.array(plain[key], dtype=np.int64).reshape(-1, 2) for key in ("native", "stored")))


def plan_layout(dataset: RawSamples, size: WorkingSize) -> Layout:
    """Lay out a split from the headers of its images: 0.1 ms an image."""
    native = np.array([image_size(dataset, index) for index in range(len(dataset))], dtype=np.int64)
    return Layout(("image", *dataset.tasks), native, np.array([size.of(*each) for each in native.tolist()], dtype=np.int64))


def image_size(dataset: RawSamples, index: int) -> tuple[int, int]:
    """Return an image's height and width, from its file's header; a file without a good one is left to the reader to name."""
    try:
        with Image.open(dataset.files["image"][dataset.ids[index]]) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError):
        return dataset[index]["image"].shape[:2]


def size_text(size: int) -> str:
    """Say a number of bytes with a unit that leaves digits to read."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size / 2**10:.2f} KiB"


def checksum(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 that a manifest carries of its other entries."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a cache's manifest, less its checksum.

    Raises:
        CacheError: It is missing, cut short or garbled.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest.pop("sha256") != checksum(manifest):
            raise CacheError(f"{path} is garbled")
    except FileNotFoundError:
        raise CacheError(f"{path} is missing") from None
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise error if isinstance(error, CacheError) else CacheError(f"{path} is cut short or garbled ({error})") from error
    return manifest
