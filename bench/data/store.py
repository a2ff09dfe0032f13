"""Decoded samples of a split as flat arrays, one a modality: from a prepared cache, or decoded batch by batch from the data set's files.

A flat array holds sample after sample, row after row, channels last, each sample in its own size. Normals are int8, 127 times the unit
vector, zero where ignored; depth is float32; all else uint8.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from bench.data.resample import CHANNELS, SLACK_BYTES, View, place, quantised_normals, resample
from bench.tasks import IGNORE, TASKS

DTYPES = {"image": np.uint8, "classes": np.uint8, "binary": np.uint8, "normals": np.int8, "depth": np.float32}


class RawSamples(Protocol):
    """A raw data set, see `bench.data.pascal_context.PascalContext`."""

    ids: Sequence[str]
    tasks: tuple[str, ...]
    files: Mapping[str, Mapping[str, str]]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class WorkingSize(NamedTuple):
    """The resolution at which samples are kept.

    Attributes:
        longest: Larger images are reduced so that their longer side has so many pixels; None keeps every image as it is.
        square: Reduce or enlarge all to `longest` x `longest` instead, without keeping the aspect ratio.
    """

    longest: int | None = None
    square: bool = False

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width at which an image is kept."""
        if self.longest is None or (not self.square and max(height, width) <= self.longest):
            return height, width
        if self.square:
            return self.longest, self.longest
        factor = self.longest / max(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))


NATIVE = WorkingSize()


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


def resized(sample: dict[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Resize an encoded sample where its size is another: image and normals cubically, all else by nearest pixel."""
    if sample["image"].shape[:2] == size:
        return sample
    raw, kinds = flatten([sample]), {name: kind_of(name) for name in sample if name != "image"}
    batch = resample(raw.flat, kinds, place(raw.first, raw.stored, raw.native, [View()], size), size)
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    image = ((batch.pop("image")[0] * deviation + mean) * 255).round().to(torch.uint8)
    changed = {"image": image.permute(1, 2, 0).numpy()}
    for name, kind in kinds.items():
        array = batch[name][0].numpy()
        if kind == "normals":
            array = np.rint(127 * np.where(array == IGNORE, 0, array)).astype(np.int8)
        changed[name] = (array if array.ndim == 3 else array[None]).transpose(1, 2, 0)
    return {name: np.ascontiguousarray(array) for name, array in changed.items()}


class FileStore:
    """Decodes what is asked for from the data set's files, every time; for a single pass over a split.

    Args:
        dataset: Raw samples.
        size: Working resolution.
    """

    def __init__(self, dataset: RawSamples, size: WorkingSize = NATIVE) -> None:
        self.dataset, self.size, self.ids, self.tasks = dataset, size, tuple(dataset.ids), tuple(dataset.tasks)

    def samples(self, indices: Sequence[int]) -> Samples:
        """Decode samples."""
        encoded = [encode(self.dataset[index], ("image", *self.tasks)) for index in indices]
        native = np.array([sample["image"].shape[:2] for sample in encoded], dtype=np.int64)
        kept = [resized(sample, self.size.of(*each)) for sample, each in zip(encoded, native.tolist(), strict=True)]
        return flatten(kept)._replace(native=native)


class CachedStore:
    """Samples that lie decoded in flat arrays: memory-mapped files, or tensors on any device.

    Args:
        ids: Of the split.
        flat: Flat array of `image` and each task.
        stored, native: Height and width in the arrays, and of the images, int64 (N, 2).
        directory: Of the cache that the arrays are mapped from, None elsewhere.
        built: Whether that cache was built just now.
    """

    def __init__(
        self,
        ids: Sequence[str],
        flat: dict[str, Tensor],
        stored: np.ndarray,
        native: np.ndarray,
        *,
        directory: Path | None = None,
        built: bool = False,
    ) -> None:
        self.ids, self.flat, self.stored, self.native = tuple(ids), flat, stored, native
        self.directory, self.built = directory, built
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
        chosen = np.asarray(indices)
        pixels = self.stored[chosen].prod(axis=1)
        first = np.concatenate([[0], np.cumsum(pixels)])
        flat = {}
        for name, array in self.flat.items():
            channels = CHANNELS[kind_of(name)]
            flat[name] = torch.empty(first[-1] * channels + SLACK_BYTES // array.itemsize, dtype=array.dtype, pin_memory=pinned)
            source, target = array.numpy(), flat[name].numpy()  # numpy copies in this thread alone, and leaves the interpreter to others
            for at, index in enumerate(chosen):
                start = self.first[index] * channels
                target[first[at] * channels : first[at + 1] * channels] = source[start : start + pixels[at] * channels]
        return Samples(flat, first[:-1], self.stored[chosen], self.native[chosen])

    def on(self, device: torch.device | str) -> "CachedStore":
        """Copy all samples to a device; on the CPU, into this process's memory."""
        return CachedStore(self.ids, {name: array.to(device, copy=True) for name, array in self.flat.items()}, self.stored, self.native)


def first_pixels(sizes: np.ndarray) -> np.ndarray:
    """Return the first pixel of every sample, int64 (N,), from heights and widths (N, 2)."""
    return np.concatenate([[0], np.cumsum(sizes.prod(axis=1))[:-1]]).astype(np.int64)
