"""Feed batches: what sample i of epoch e looks like depends on (seed, epoch, i) alone, never on workers, batch size or device."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from bench.data.layout import DataError
from bench.data.reader import RawSplit
from bench.data.transforms import augment, resize_normalise

_ORDER, _AUGMENTATION = range(2)  # first word of a seed, so that no two streams coincide


class Transformed(Dataset):
    """Samples of `dataset` as tensors of `image_size`, augmented for (seed, epoch) when `train`; see `bench.data.transforms`."""

    def __init__(
        self,
        dataset: RawSplit,
        *,
        image_size: int,
        train: bool,
        seed: int = 0,
        epoch: int = 0,
        flip: bool = True,
        rotation: float = 20.0,
        scale: tuple[float, float] = (0.75, 1.25),
    ) -> None:
        self.dataset, self.image_size, self.train, self.seed, self.epoch = dataset, image_size, train, seed, epoch
        self.flip, self.rotation, self.scale = flip, rotation, scale

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.dataset[index]
        if self.train:
            rng = np.random.default_rng((_AUGMENTATION, self.seed, self.epoch, index))
            sample = augment(sample, rng, flip=self.flip, rotation=self.rotation, scale=self.scale)
        return resize_normalise(sample, self.image_size)


def build_loader(
    dataset: RawSplit,
    batch_size: int,
    *,
    train: bool,
    image_size: int,
    seed: int = 0,
    epoch: int = 0,
    workers: int = 0,
    device: torch.device | str = "cpu",
    **augmentation: Any,
) -> DataLoader:
    """Build the loader of one epoch; its batches stay in host memory.

    A batch is a dict: `id` list of B str; `image` float32 (B, 3, H, W); class and binary maps uint8 (B, H, W), 255
    ignored; `normals` float32 (B, 3, H, W), 255 in all channels where ignored; `depth` float32 (B, 1, H, W), metres, 0 where ignored.
    H = W = image_size.

    Args:
        dataset: Raw samples; with `keep_raw` and workers they are decoded here first, so that workers share them.
        batch_size: Images a batch. Training drops the last incomplete batch, validation keeps all.
        train: Shuffle and augment; otherwise the order of the split, only resized.
        image_size: Side of the square output, pixels.
        seed: The trial's seed.
        epoch: Number of the epoch.
        workers: Forked loader processes; 0 loads in this process.
        device: Where the batches will go: memory is pinned for CUDA.
        augmentation: `flip`, `rotation` (degrees) and `scale` of `augment`, where not its defaults.

    Raises:
        DataError: Training with fewer images than one batch: lower the batch size.
    """
    if train and len(dataset) < batch_size:
        raise DataError(f"{len(dataset)} training images make no batch of {batch_size}: lower the batch size to {len(dataset)} or less")
    cv2.setNumThreads(0)
    if workers and dataset.keep_raw:
        dataset.preload()
    return DataLoader(
        Transformed(dataset, image_size=image_size, train=train, seed=seed, epoch=epoch, **augmentation),
        batch_size=batch_size,
        sampler=epoch_order(len(dataset), seed=seed, epoch=epoch) if train else range(len(dataset)),
        drop_last=train,
        num_workers=workers,
        worker_init_fn=_use_one_thread,
        multiprocessing_context="fork" if workers else None,
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator().manual_seed(seed),  # its own: torch's global stream must not depend on the loader
    )


def epoch_order(count: int, *, seed: int, epoch: int) -> Sequence[int]:
    """Shuffle the indices 0..count-1 for one epoch."""
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(count).tolist()


def _use_one_thread(worker: int) -> None:
    """Keep a worker to one core: the processes are the parallelism."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
