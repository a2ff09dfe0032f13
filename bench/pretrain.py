"""Pretrain the demo's backbone: classify rendered abstract objects (`bench.data.synthetic.source`), keep the Swin without its head.

The recipe is Swin's (arXiv 2103.14030) in small: AdamW, linear warm-up and cosine, label smoothing, stochastic depth, mild augmentation.
It runs on the CPU, where the same seed, thread count and versions give the same file to the bit.
"""

import dataclasses
import datetime
import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor
from torch.nn import functional

from bench import provenance
from bench.data.synthetic.source import SOURCE_CLASSES, render_source_image
from bench.errors import SuiteError
from bench.model.backbone import DEMO_BACKBONE, DEMO_WEIGHTS
from bench.record import write_atomically
from bench.training.optim import build_optimizer, learning_rate

IMAGE_SIZE = 64
MAX_BYTES = 4_000_000
MAX_ACCURACY_CHANGE = 0.01
_TRAIN, _HELD_OUT = 0, 1
_RENDER_CHUNK = 250
_EVALUATION_BATCH = 250

Progress = Callable[[str, int, int, str], None]
"""Called as (stage "render" or "train", done, total, text about the loss)."""


class PretrainError(SuiteError):
    """The pretraining cannot run as asked, or gave a file that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that can change the weights, on one machine.

    Attributes:
        seed: Of the images, the initial weights, the order and the augmentation.
        images, held_out: Images to train on, and to measure the accuracy on.
        epochs, warmup_epochs: Length of training, and of the linear warm-up in it.
        batch_size: Images a step; the last incomplete batch of an epoch is dropped.
        peak_lr: Learning rate at the top of the schedule.
        weight_decay: AdamW's, on all but biases and 1-D parameters.
        label_smoothing: Share of the target that is spread over all classes.
        drop_path: Stochastic depth of the last block.
        clip_norm: Largest norm of the gradient.
        threads: CPU threads of torch; their number changes the order of sums.
    """

    seed: int = 0
    images: int = 24_000
    held_out: int = 2_000
    epochs: int = 10
    warmup_epochs: float = 1
    batch_size: int = 64
    peak_lr: float = 1e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    drop_path: float = 0.05
    clip_norm: float = 5.0
    threads: int = 2

    def __post_init__(self) -> None:
        for name in ("held_out", "epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise PretrainError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.images < self.batch_size:
            raise PretrainError(f"images is {self.images}, less than one batch of {self.batch_size}; render more or shrink the batch")
        if self.peak_lr <= 0:
            raise PretrainError(f"peak_lr is {self.peak_lr}; it must be above 0")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise PretrainError(f"warmup_epochs is {self.warmup_epochs}; it must be at least 0 and less than epochs = {self.epochs}")


def pretrain(out: Path = DEMO_WEIGHTS.parent, *, processes: int = 2, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Render the source set, train the demo's backbone on it, and write `<backbone>.safetensors` and `.json` (the manifest).

    Args:
        out: Directory of the two files; made where it does not exist.
        processes: Processes that render; they do not change the images.
        progress: Told how far the work is.
        **settings: Fields of `PretrainConfig`.

    Returns:
        The manifest: command, settings, source accuracy (share of the held-out images that are right), hash, versions, seconds.

    Raises:
        PretrainError: A setting is out of range, the loss diverged, or the file is too large or worse than the model it was made from.
    """
    unknown = set(settings) - {f.name for f in dataclasses.fields(PretrainConfig)}
    if unknown:
        allowed = ", ".join(f.name for f in dataclasses.fields(PretrainConfig))
        raise PretrainError(f"unknown settings {sorted(unknown)}; allowed: {allowed}")
    config = PretrainConfig(**settings)
    started_at, start = datetime.datetime.now(datetime.UTC), time.perf_counter()
    (images, labels), (held_images, held_labels) = _render_both(config, processes, progress)
    rendered = time.perf_counter()
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            swin, losses = train(images, labels, config, progress=progress)
        trained = time.perf_counter()
        accuracy = source_accuracy(swin, held_images, held_labels)
        packed = pack_backbone(swin)
        stored_accuracy = accuracy_as_stored(swin, packed, held_images, held_labels, trained_accuracy=accuracy)
    finally:
        torch.set_num_threads(threads_before)
    seconds = {"render": rendered - start, "train": trained - rendered, "total": time.perf_counter() - start}
    manifest = _describe(swin, packed, config) | {
        "source_accuracy": stored_accuracy,
        "source_accuracy_float32": accuracy,
        "chance_accuracy": 1 / SOURCE_CLASSES,
        "epoch_losses": losses,
        "source_sha256": hashlib.sha256(images.tobytes() + held_images.tobytes()).hexdigest(),
        "started_at": started_at.isoformat(timespec="seconds"),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    write_atomically(Path(out) / manifest["file"], packed)
    write_atomically(Path(out) / f"{DEMO_BACKBONE}.json", json.dumps(manifest, indent=1, allow_nan=False) + "\n")
    return manifest


def _render_both(config: PretrainConfig, processes: int, progress: Progress | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Render the training and the held-out images, with one count of progress."""
    total, sets = config.images + config.held_out, []
    for split, count, before in ((_TRAIN, config.images, 0), (_HELD_OUT, config.held_out, config.images)):

        def told(done: int, before: int = before) -> None:
            if progress:
                progress("render", before + done, total, "")

        sets.append(render_source_set(count, seed=config.seed, split=split, processes=processes, progress=told))
    return sets


def _describe(swin: SwinTransformer, packed: bytes, config: PretrainConfig) -> dict[str, Any]:
    """Return the part of the manifest that says what the file is and how to remake it."""
    return {
        "backbone": DEMO_BACKBONE,
        "file": f"{DEMO_BACKBONE}.safetensors",
        "sha256": hashlib.sha256(packed).hexdigest(),
        "bytes": len(packed),
        "dtype": "float16",
        "parameters": sum(value.numel() for value in backbone_state(swin).values()),
        "command": command_of(config),
        **dataclasses.asdict(config),
        "image_size": IMAGE_SIZE,
        "source_classes": SOURCE_CLASSES,
        "env": provenance.environment(config.threads) | {"device": "cpu", "deterministic": True},
    }


def command_of(config: PretrainConfig) -> str:
    """Return the command line that remakes the weights; settings that have their default are left out."""
    changed = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if getattr(config, f.name) != f.default}
    return " ".join(["python run_suite.py pretrain", *[f"--{name.replace('_', '-')} {value}" for name, value in changed.items()]])


def render_source_set(
    count: int, *, seed: int, split: int, processes: int, progress: Callable[[int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Render images of the pretraining task, the classes in turn.

    Args:
        count: Number of images.
        seed: An image depends on (seed, split, its index) only.
        split: 0 for training, 1 for the held-out images.
        processes: Processes that render; 1 renders in this one.
        progress: Told how many images are done.

    Returns:
        RGB images (count, 64, 64, 3) uint8, and their classes (count,) int64.

    Raises:
        PretrainError: If `processes` is below 1.
    """
    if processes < 1:
        raise PretrainError(f"processes is {processes}; it must be at least 1")
    images = np.empty((count, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    jobs = [(seed, split, first, min(first + _RENDER_CHUNK, count)) for first in range(0, count, _RENDER_CHUNK)]
    for (_, _, first, last), chunk in zip(jobs, _rendered(jobs, processes), strict=True):
        images[first:last] = chunk
        if progress:
            progress(last)
    return images, np.arange(count) % SOURCE_CLASSES


def _rendered(jobs: list[tuple[int, int, int, int]], processes: int) -> Iterator[np.ndarray]:
    if processes == 1:
        yield from map(_render_chunk, jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_render_chunk, jobs)


def _render_chunk(job: tuple[int, int, int, int]) -> np.ndarray:
    seed, split, first, last = job
    return np.stack(
        [render_source_image(np.random.default_rng((seed, split, i)), i % SOURCE_CLASSES, IMAGE_SIZE) for i in range(first, last)]
    )


def train(
    images: np.ndarray, labels: np.ndarray, config: PretrainConfig, *, progress: Progress | None = None
) -> tuple[SwinTransformer, list[float]]:
    """Train a classifier from scratch; seeds torch's global generator.

    Args:
        images: RGB (N, 64, 64, 3) uint8.
        labels: Classes (N,) int64.
        config: The settings.
        progress: Told after every step.

    Returns:
        The Swin with its final norm and classifier, in training mode; and the mean loss of each epoch.

    Raises:
        PretrainError: The loss is no longer finite.
    """
    torch.manual_seed(config.seed)
    swin = timm.create_model(DEMO_BACKBONE, num_classes=SOURCE_CLASSES, drop_path_rate=config.drop_path)
    optimizer = build_optimizer(swin, peak_lr=config.peak_lr, weight_decay=config.weight_decay)
    generator = torch.Generator().manual_seed(config.seed)
    pixels, classes = torch.from_numpy(images), torch.from_numpy(labels)
    steps_per_epoch = len(pixels) // config.batch_size
    total_steps, losses = config.epochs * steps_per_epoch, []
    swin.train()
    for epoch in range(config.epochs):
        order, loss_sum = torch.randperm(len(pixels), generator=generator), 0.0
        for i in range(steps_per_epoch):
            step, chosen = epoch * steps_per_epoch + i, order[i * config.batch_size : (i + 1) * config.batch_size]
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, steps_per_epoch, config)
            loss_sum += _step(swin, optimizer, augment(pixels[chosen], generator), classes[chosen], config)
            if progress:
                progress("train", step + 1, total_steps, f"epoch {epoch + 1} of {config.epochs}, mean loss {loss_sum / (i + 1):.3f}")
        losses.append(round(loss_sum / steps_per_epoch, 4))
    return swin, losses


def _learning_rate(step: int, steps_per_epoch: int, config: PretrainConfig) -> float:
    return learning_rate(
        step,
        steps_per_epoch=steps_per_epoch,
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
        peak_lr=config.peak_lr,
        warmup_lr=config.peak_lr / 100,
        min_lr=config.peak_lr / 100,
    )


def _step(swin: SwinTransformer, optimizer: torch.optim.Optimizer, batch: Tensor, classes: Tensor, config: PretrainConfig) -> float:
    loss = functional.cross_entropy(swin(batch), classes, label_smoothing=config.label_smoothing)
    if not torch.isfinite(loss):
        raise PretrainError(f"the loss became {loss.item()}; lower peak_lr (now {config.peak_lr})")
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(swin.parameters(), config.clip_norm)
    optimizer.step()
    return loss.item()


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, crop, zoom and change the colours of each image at random, and normalise.

    Args:
        images: RGB (B, H, W, 3) uint8.
        generator: Source of the draws.

    Returns:
        (B, 3, H, W) float32 with ImageNet mean and standard deviation: zoom 0.8 to 1.3 about a point up to 0.15 image widths off the
        centre, reflected where the window leaves the image; brightness, contrast and saturation times 0.7 to 1.3.
    """
    count = len(images)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    window = 1 / uniform(0.8, 1.3)
    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0] = window * (torch.randint(0, 2, (count,), generator=generator) * 2 - 1)
    transform[:, 1, 1] = window
    transform[:, :, 2] = uniform(-0.3, 0.3, 2)
    x = images.permute(0, 3, 1, 2).float() / 255
    grid = functional.affine_grid(transform, x.shape, align_corners=False)
    x = functional.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (uniform(0.7, 1.3, 1, 1, 1) for _ in range(3))
    x = x * brightness
    x = (x - x.mean((1, 2, 3), keepdim=True)) * contrast + x.mean((1, 2, 3), keepdim=True)
    grey = x.mean(1, keepdim=True)
    return normalised(((x - grey) * saturation + grey).clamp(0, 1))


def normalised(x: Tensor) -> Tensor:
    """Apply ImageNet's mean and standard deviation to RGB (B, 3, H, W) in 0 .. 1."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (x - mean) / std


@torch.inference_mode()
def source_accuracy(swin: SwinTransformer, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share, 0 to 1, of the images (N, 64, 64, 3) uint8 whose class (N,) is predicted; leaves the Swin in evaluation mode."""
    swin.eval()
    right = 0
    for first in range(0, len(images), _EVALUATION_BATCH):
        batch = torch.from_numpy(images[first : first + _EVALUATION_BATCH]).permute(0, 3, 1, 2).float() / 255
        predicted = swin(normalised(batch)).argmax(1).numpy()
        right += int((predicted == labels[first : first + _EVALUATION_BATCH]).sum())
    return right / len(images)


def backbone_state(swin: SwinTransformer) -> dict[str, Tensor]:
    """Return the state dict without the final norm and the classifier."""
    return {key: value for key, value in swin.state_dict().items() if not key.startswith(("norm.", "head."))}


def pack_backbone(swin: SwinTransformer) -> bytes:
    """Return the backbone as the bytes of a float16 safetensors file.

    Raises:
        PretrainError: More than 4 MB, the most that the repository keeps.
    """
    packed = safetensors.torch.save({key: value.half().contiguous() for key, value in backbone_state(swin).items()})
    if len(packed) > MAX_BYTES:
        raise PretrainError(f"the weights take {len(packed)} bytes, more than {MAX_BYTES}; use a smaller backbone")
    return packed


def accuracy_as_stored(swin: SwinTransformer, packed: bytes, images: np.ndarray, labels: np.ndarray, *, trained_accuracy: float) -> float:
    """Put the stored float16 backbone under the trained head and return the accuracy that it has.

    Raises:
        PretrainError: The rounding moved the accuracy by more than one point.
    """
    swin.load_state_dict({key: value.float() for key, value in safetensors.torch.load(packed).items()}, strict=False)
    accuracy = source_accuracy(swin, images, labels)
    if abs(accuracy - trained_accuracy) > MAX_ACCURACY_CHANGE:
        raise PretrainError(
            f"float16 moved the source accuracy from {trained_accuracy:.4f} to {accuracy:.4f}; train with a smaller peak_lr"
        )
    return accuracy
