"""Feed batches, ready on the trial's device: what sample i of epoch e looks like depends on (seed, epoch, i) alone.

One data path for training and evaluation: samples come from a store (`bench.data.store`), flip, warp and resize are one resampling of the
whole batch on the device (`bench.data.resample`). Neither the mode, nor the number of workers, nor the batch a sample is in changes a bit.

On a CPU a worker is a thread that makes whole batches ahead; the kernels leave the interpreter to others. On a GPU workers copy samples to
page-locked memory, and copy and resampling of the next batch run on a stream of their own beside the present step.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.data.buffers import Buffers
from bench.data.layout import DataError
from bench.data.native import kernels
from bench.data.resample import CHANNELS, Placement, View, place, resample
from bench.data.store import DTYPES, CachedStore, Store, kind_of

MODES = ("files", "cache", "device")
_ORDER, _AUGMENTATION = range(2)  # first word of a seed, so that no two streams coincide
_AHEAD = 2
"""Batches that every worker is ahead."""


class Augmentation(NamedTuple):
    """What a training sample may undergo: `flip` with probability 0.5, a turn of up to `rotation` degrees, a zoom out of `scale`."""

    flip: bool = True
    rotation: float = 20.0
    scale: tuple[float, float] = (0.75, 1.25)


class Feed:
    """The batches of a split.

    A batch is a dict: `id` list of B str; `image` float32 (B, 3, H, W); class and binary maps uint8 (B, H, W), 255 ignored; `normals`
    float32 (B, 3, H, W), unit vectors, 255 in all channels where ignored; `depth` float32 (B, 1, H, W), 0 where ignored. H and W are
    `image_size`.

    Args:
        store: The split's samples.
        batch_size: Images a batch. Training drops the last incomplete batch, evaluation keeps all.
        image_size: Side of the square output, pixels.
        mode: "files" where the store decodes files, "cache" where it maps a cache, "device" where its arrays lie on `device`.
        augmentation: For training: shuffle and augment. None: the order of the split, only resized.
        seed: The trial's seed.
        workers: Threads that work ahead; 0 makes a batch when it is asked for.
        device: Where the batches go.

    Raises:
        DataError: Training with fewer images than one batch: lower the batch size.
    """

    def __init__(
        self,
        store: Store,
        batch_size: int,
        *,
        image_size: int,
        mode: str,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if augmentation is not None and len(store.ids) < batch_size:
            count = len(store.ids)
            raise DataError(f"{count} training images make no batch of {batch_size}: lower the batch size to {count} or less")
        self.store, self.batch_size, self.size, self.mode = store, batch_size, (image_size, image_size), mode
        self.augmentation, self.seed, self.workers, self.device = augmentation, seed, workers, torch.device(device)
        self.buffers = Buffers()
        self.kinds = {task: kind_of(task) for task in store.tasks}

    @property
    def ids(self) -> Sequence[str]:
        """The image ids of the split, in its order."""
        return self.store.ids

    def __call__(self, epoch: int = 0) -> Iterator[dict[str, Any]]:
        """Give the batches of an epoch."""
        ready = _ahead(lambda chosen: self._from_host(chosen, epoch), self._chosen(epoch), self.workers)
        yield from ready if self.device.type == "cpu" else self._beside_the_steps(ready)

    def first(self) -> dict[str, Any]:
        """Give the first batch of epoch 0, without working ahead."""
        host = self._from_host(self._chosen(0)[0], 0)
        return host if self.device.type == "cpu" else self._finished(*host)

    def describe(self) -> dict[str, Any]:
        """Return how the batches are made, for the record: mode, kernel, workers, and bytes read for an image."""
        compiled = self.device.type == "cpu" and kernels() is not None
        pixels = float(np.mean(self.store.stored.prod(axis=1))) if isinstance(self.store, CachedStore) else None
        per_pixel = sum(CHANNELS[kind] * np.dtype(DTYPES[kind]).itemsize for kind in ("image", *self.kinds.values()))
        return {
            "mode": self.mode,
            "kernel": "compiled" if compiled else "torch",
            "workers": 0 if self.mode == "device" and self.device.type != "cpu" else self.workers,
            "bytes_per_image": None if pixels is None else pixels * per_pixel,
        }

    def _chosen(self, epoch: int) -> list[list[int]]:
        """Return the indices of every batch of an epoch."""
        count, size = len(self.store.ids), self.batch_size
        order = list(range(count)) if self.augmentation is None else epoch_order(count, seed=self.seed, epoch=epoch)
        stop = count if self.augmentation is None else count - count % size
        return [order[start : start + size] for start in range(0, stop, size)]

    def _from_host(self, chosen: list[int], epoch: int) -> Any:
        """Do a worker's part: on a CPU the whole batch, else ids, samples and their placement for `_finished`."""
        apart = self.device.type != "cpu" and isinstance(self.store, CachedStore) and self.mode != "device"
        samples = self.store.gathered(chosen, pinned=True) if apart else self.store.samples(chosen)
        placement = place(samples.first, samples.stored, samples.native, self.views(chosen, epoch), self.size)
        parts = ([self.store.ids[index] for index in chosen], samples.flat, placement)
        return self._finished(*parts) if self.device.type == "cpu" else parts

    def _finished(self, ids: list[str], flat: dict[str, Tensor], placement: Placement) -> dict[str, Any]:
        """Bring the parts to the device and resample them there."""
        flat = {name: array.to(self.device, non_blocking=True) for name, array in flat.items()}
        return {"id": ids} | resample(flat, self.kinds, placement.to(self.device), self.size, self.buffers.empty)

    def _beside_the_steps(self, ready: Iterator[Any]) -> Iterator[dict[str, Any]]:
        """Keep one batch ahead on a stream of its own (CUDA)."""
        stream, ahead = torch.cuda.Stream(self.device), None
        for parts in ready:
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                following = self._finished(*parts)
            event = stream.record_event()
            if ahead is not None:
                yield _handed_over(*ahead, self.device)
            ahead = (following, event)
        if ahead is not None:
            yield _handed_over(*ahead, self.device)

    def views(self, chosen: Sequence[int], epoch: int) -> list[View]:
        """Draw how samples are looked at; three numbers a sample are drawn whatever the settings."""
        if self.augmentation is None:
            return [View()] * len(chosen)
        return [draw(self.augmentation, np.random.default_rng((_AUGMENTATION, self.seed, epoch, index))) for index in chosen]


def draw(augmentation: Augmentation, rng: np.random.Generator) -> View:
    """Draw a view: mirrored with probability 0.5, angle and zoom uniform in their ranges."""
    mirrored, angle, zoom = rng.random() < 0.5, rng.uniform(-augmentation.rotation, augmentation.rotation), rng.uniform(*augmentation.scale)
    return View(augmentation.flip and mirrored, angle, zoom)


def epoch_order(count: int, *, seed: int, epoch: int) -> list[int]:
    """Shuffle the indices 0..count-1 for one epoch."""
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(count).tolist()


def _handed_over(batch: dict[str, Any], event: torch.cuda.Event, device: torch.device) -> dict[str, Any]:
    """Let the present stream wait for a batch, and keep its memory until that stream is through with it."""
    current = torch.cuda.current_stream(device)
    current.wait_event(event)
    for value in batch.values():
        if isinstance(value, Tensor):
            value.record_stream(current)
    return batch


def _ahead(make: Callable[[list[int]], Any], chosen: Sequence[list[int]], workers: int) -> Iterator[Any]:
    """Make batches in order, by so many threads ahead."""
    if not workers:
        yield from map(make, chosen)
        return
    pool, waiting = ThreadPoolExecutor(workers, thread_name_prefix="feed"), deque[Future]()
    try:
        for indices in chosen:
            waiting.append(pool.submit(make, indices))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
