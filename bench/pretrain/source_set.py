"""The images of the pretraining task with their labels, rendered by several processes."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from bench.data.synthetic.source import SOURCE_CLASSES, render_source_image
from bench.pretrain.config import PretrainError
from bench.workers import pool as pool_of

IMAGE_SIZE = 64
PATCH_SIZE = 8
_RENDER_CHUNK = 250

Job = tuple[int, int, int, int]


class SourceSet(NamedTuple):
    """Images of the pretraining task.

    Attributes:
        images: RGB (N, 64, 64, 3) uint8.
        classes: (N,) int64, the classes in turn.
        shares: (N, 8, 8) float32, the share of each patch of 8 x 8 pixels on which the image's object is visible, 0 to 1.
    """

    images: np.ndarray
    classes: np.ndarray
    shares: np.ndarray


def render_source_set(count: int, *, seed: int, split: int, processes: int, progress: Callable[[int], None] | None = None) -> SourceSet:
    """Render images of the pretraining task.

    Args:
        count: Number of images.
        seed: An image depends on (seed, split, its index) only.
        split: 0 for training, 1 for the held-out images.
        processes: Processes that render; 1 renders in this one.
        progress: Told how many images are done.

    Raises:
        PretrainError: If `processes` is below 1.
    """
    if processes < 1:
        raise PretrainError(f"processes is {processes}; it must be at least 1")
    patches = IMAGE_SIZE // PATCH_SIZE
    images, shares = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8), np.empty((count, patches, patches), np.float32)
    jobs = [(seed, split, first, min(first + _RENDER_CHUNK, count)) for first in range(0, count, _RENDER_CHUNK)]
    for (_, _, first, last), chunk in zip(jobs, _rendered(jobs, processes), strict=True):
        images[first:last], shares[first:last] = chunk
        if progress:
            progress(last)
    return SourceSet(images, np.arange(count) % SOURCE_CLASSES, shares)


def _rendered(jobs: list[Job], processes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if processes == 1:
        yield from map(_render_chunk, jobs)
        return
    with pool_of(processes) as pool:
        yield from pool.map(_render_chunk, jobs)


def _render_chunk(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Render the images first to last - 1 of a split: RGB (n, 64, 64, 3) uint8, shares of the object (n, 8, 8) float64."""
    seed, split, first, last = job
    drawn = [render_source_image(np.random.default_rng((seed, split, i)), i % SOURCE_CLASSES, IMAGE_SIZE) for i in range(first, last)]
    masks, patches = np.stack([mask for _, mask in drawn]), IMAGE_SIZE // PATCH_SIZE
    return np.stack([image for image, _ in drawn]), masks.reshape(-1, patches, PATCH_SIZE, patches, PATCH_SIZE).mean((2, 4))
