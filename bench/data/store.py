"""Decoded samples of a split as flat arrays, one a modality: from a prepared cache, or decoded batch by batch from the data set's files.

A flat array holds sample after sample, row after row, channels last, each sample in its own size. Normals are int8, 127 times the unit
vector, zero where ignored; depth is float32; all else uint8.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from bench.data.resample import CHANNELS, SLACK_BYTES, quantised_normals
from bench.tasks import TASKS

DTYPES = {"image": np.uint8, "classes": np.uint8, "binary": np.uint8, "normals": np.int8, "depth": np.float32}


class RawSamples(Protocol):
    """A raw data set, see `bench.data.pascal_context.PascalContext`."""

    ids: Sequence[str]
    tasks: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class Samples(NamedTuple):
    """Some samples in flat arrays.

    Attributes:
        flat: Flat array of `image` and each task, followed by `SLACK_BYTES`.
        first: First pixel of each sample in the arrays, int64 (B,).
        stored: Height and width of each in the arrays, int64 (B, 2).
        native: Height and width of its image, int64 (B, 2).
    """

    flat: dict[str, Tensor]
    first: np.ndarray
    stored: np.ndarray
    native: np.ndarray


class Store(Protocol):
    """What a feed reads: `ids` of the split, `tasks`, and samples by index."""

    ids: Sequence[str]
    tasks: tuple[str, ...]

    def samples(self, indices: Sequence[int]) -> Samples:
        """Return samples; the arrays may hold others as well."""
        ...


def kind_of(name: str) -> str:
    """Return the kind of a modality: "image", or a task's label."""
    return "image" if name == "image" else TASKS[name].label


def encode(sample: Mapping[str, Any], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Turn a raw sample's `image` and tasks into arrays (h, w, channels) of the stored types."""
    encoded = {}
    for name in names:
        array, kind = sample[name], kind_of(name)
        array = quantised_normals(array) if kind == "normals" else np.ascontiguousarray(array, DTYPES[kind])
        encoded[name] = array.reshape(*array.shape[:2], CHANNELS[kind])
    return encoded


def flatten(encoded: Sequence[Mapping[str, np.ndarray]]) -> Samples:
    """Lay encoded samples out one after the other."""
    sizes = np.array([sample["image"].shape[:2] for sample in encoded], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(sizes.prod(axis=1))[:-1]])
    flat = {}
    for name in encoded[0]:
        parts = [sample[name].reshape(-1) for sample in encoded]
        flat[name] = torch.from_numpy(np.concatenate([*parts, np.zeros(SLACK_BYTES // parts[0].itemsize, parts[0].dtype)]))
    return Samples(flat, first, sizes, sizes)


class FileStore:
    """Decodes what is asked for from the data set's files, every time; for a single pass over a split.

    Args:
        dataset: Raw samples.
    """

    def __init__(self, dataset: RawSamples) -> None:
        self.dataset, self.ids, self.tasks = dataset, tuple(dataset.ids), tuple(dataset.tasks)

    def samples(self, indices: Sequence[int]) -> Samples:
        """Decode samples."""
        return flatten([encode(self.dataset[index], ("image", *self.tasks)) for index in indices])


class CachedStore:
    """Samples that lie decoded in flat arrays: memory-mapped files, or tensors on any device.

    Args:
        ids: Of the split.
        flat: Flat array of `image` and each task.
        stored, native: Height and width in the arrays, and of the images, int64 (N, 2).
    """

    def __init__(self, ids: Sequence[str], flat: dict[str, Tensor], stored: np.ndarray, native: np.ndarray) -> None:
        self.ids, self.flat, self.stored, self.native = tuple(ids), flat, stored, native
        self.tasks = tuple(name for name in flat if name != "image")
        self.first = first_pixels(stored)

    @property
    def bytes(self) -> int:
        """Size of the arrays."""
        return sum(array.nbytes for array in self.flat.values())

    def samples(self, indices: Sequence[int]) -> Samples:
        """Point at samples in the whole arrays; nothing is copied."""
        chosen = np.asarray(indices)
        return Samples(self.flat, self.first[chosen], self.stored[chosen], self.native[chosen])

    def gathered(self, indices: Sequence[int], *, pinned: bool) -> Samples:
        """Copy samples into arrays of their own, in page-locked memory where they go on to a GPU."""
        chosen, pixels = np.asarray(indices), self.stored.prod(axis=1)
        first = np.concatenate([[0], np.cumsum(pixels[chosen])])
        flat = {}
        for name, array in self.flat.items():
            channels = CHANNELS[kind_of(name)]
            flat[name] = torch.empty(first[-1] * channels + SLACK_BYTES // array.itemsize, dtype=array.dtype, pin_memory=pinned)
            for place, index in enumerate(chosen):
                source = array[self.first[index] * channels : (self.first[index] + pixels[index]) * channels]
                flat[name][first[place] * channels : first[place + 1] * channels] = source
        return Samples(flat, first[:-1], self.stored[chosen], self.native[chosen])

    def on(self, device: torch.device | str) -> "CachedStore":
        """Copy all samples to a device; on the CPU, into this process's memory."""
        return CachedStore(self.ids, {name: array.to(device, copy=True) for name, array in self.flat.items()}, self.stored, self.native)


def first_pixels(sizes: np.ndarray) -> np.ndarray:
    """Return the first pixel of every sample, int64 (N,), from heights and widths (N, 2)."""
    return np.concatenate([[0], np.cumsum(sizes.prod(axis=1))[:-1]]).astype(np.int64)
