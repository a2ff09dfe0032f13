"""Training and evaluation of one model: the same few lines for every method."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.config import RecipeConfig
from bench.heartbeat import beat
from bench.measure.metrics import metric_of
from bench.measure.panels import Panels
from bench.training.checkpoint import FitState, load_checkpoint, save_checkpoint
from bench.training.held_out import HeldOut
from bench.training.losses import total_loss
from bench.training.optim import build_optimizer, learning_rate

WARMUP_STEPS = 3
"""Steps at the start of a process that are not timed."""

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class DivergedError(RuntimeError):
    """The loss is no longer finite."""


class StepClock:
    """Appends the seconds of each step to a list, but for the first `WARMUP_STEPS`."""

    def __init__(self, device: torch.device, seconds: list[float]) -> None:
        self.device, self.seconds, self.skip = device, seconds, WARMUP_STEPS

    @contextmanager
    def step(self) -> Iterator[None]:
        """Time the block, to the end of what it queued on a GPU."""
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if self.skip == 0:
            self.seconds.append(time.perf_counter() - started)
        self.skip = max(self.skip - 1, 0)


def fit(
    model: nn.Module,
    loader_of_epoch: Callable[..., Iterable[dict[str, Any]]],
    recipe: RecipeConfig,
    *,
    steps_per_epoch: int,
    device: torch.device,
    checkpoint: Path,
    identity: str,
    on_epoch: Callable[[dict[str, Any]], None],
    held_out: HeldOut | None = None,
) -> FitState:
    """Train to the last epoch, from the checkpoint where there is one.

    Args:
        model: On `device`; parameters with `requires_grad` train.
        loader_of_epoch: Called with `epoch` (0 first), gives its batches; the batches depend on the epoch alone.
        recipe: Length, schedule, precision.
        steps_per_epoch: Number of batches an epoch.
        device: Where the batches go.
        checkpoint: File written after each epoch, atomically.
        identity: Of code and data; a checkpoint of another identity, or a damaged one, is not used: training starts again.
        on_epoch: Called with the epoch's line of the history.
        held_out: How the held-out images are evaluated, None without any. Evaluation leaves training as it is.

    Returns:
        The history, one line an epoch; the seconds of every step but the first three of each process; peaks of the CUDA allocator in
        training, bytes; what was measured at the best epoch on the held-out images.

    Raises:
        DivergedError: A loss is not finite.
    """
    optimizer = build_optimizer(model, peak_lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    state = load_checkpoint(checkpoint, identity, model, optimizer, scaler)
    clock = StepClock(device, state.step_seconds)
    for epoch in range(state.epoch, recipe.epochs):
        batches = waited_for(loader_of_epoch(epoch=epoch), state)
        line = train_epoch(model, batches, recipe, optimizer, scaler, clock, epoch=epoch, steps=steps_per_epoch)
        state.history.append(line)
        state.epoch = epoch + 1
        update_peaks(state, device)
        if held_out is not None and held_out.is_due(epoch + 1, recipe.epochs):
            state.best = held_out.measure(line, state.best)
            forget_peaks(device)
        save_checkpoint(checkpoint, identity, state, model, optimizer, scaler)
        on_epoch(line)
    return state


def train_epoch(
    model: nn.Module,
    batches: Iterable[dict[str, Any]],
    recipe: RecipeConfig,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    clock: StepClock,
    *,
    epoch: int,
    steps: int,
) -> dict[str, Any]:
    """Train one epoch (0 first) of `steps` batches; return its line of the history.

    Raises:
        DivergedError: A loss is not finite; the message says where.
    """
    started, sums = time.perf_counter(), {}
    model.train()
    for i, batch in enumerate(batches):
        with clock.step():
            lr = set_learning_rate(optimizer, epoch * steps + i, steps, recipe)
            try:
                losses = train_step(model, to_device(batch, clock.device), recipe, optimizer, scaler)
            except DivergedError as error:
                raise DivergedError(f"epoch {epoch + 1}, step {i + 1} of {steps}: {error}") from None
            beat()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value / steps
    return {"epoch": epoch + 1, "loss": sums.pop("total"), "losses": sums, "lr": lr, "seconds": time.perf_counter() - started}


def waited_for(batches: Iterable[dict[str, Any]], state: FitState) -> Iterator[dict[str, Any]]:
    """Give the batches, and add the time that each takes to come to the state."""
    batches, started = iter(batches), time.perf_counter()
    while (batch := next(batches, None)) is not None:
        state.wait_seconds += time.perf_counter() - started
        yield batch
        del batch  # its memory may serve the next
        started = time.perf_counter()


def train_step(
    model: nn.Module, batch: dict[str, Any], recipe: RecipeConfig, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> dict[str, float]:
    """Take one optimiser step; return the losses, "total" among them.

    Raises:
        DivergedError: The total loss is not finite; no step was taken.
    """
    with autocast(batch["image"].device, recipe.precision):
        total, losses = total_loss(model(batch["image"]), batch, model.tasks)
    values = {"total": total.item()} | {task: loss.item() for task, loss in losses.items()}  # also waits for the device
    if not math.isfinite(values["total"]):
        raise DivergedError(f"the loss is {values}; a lower learning rate or precision fp32 may help")
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(total).backward()
    scaler.unscale_(optimizer)
    if recipe.clip_norm is not None:
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], recipe.clip_norm)
    scaler.step(optimizer)
    scaler.update()
    return values


def autocast(device: torch.device, precision: str) -> Any:
    """Return the autocast context of a precision; nothing for fp32."""
    return torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, steps_per_epoch: int, recipe: RecipeConfig) -> float:
    """Set and return the learning rate of a step (0 first)."""
    lr = learning_rate(
        step,
        steps_per_epoch=steps_per_epoch,
        epochs=recipe.epochs,
        warmup_epochs=recipe.warmup_epochs,
        peak_lr=recipe.peak_lr,
        warmup_lr=recipe.warmup_lr,
        min_lr=recipe.min_lr,
    )
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Move the tensors of a batch."""
    return {key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value for key, value in batch.items()}


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: Iterable[dict[str, Any]], device: torch.device, panels: Panels | None = None
) -> tuple[dict, dict[str, np.ndarray]]:
    """Evaluate in fp32.

    Args:
        model: On `device`.
        loader: Batches of the split.
        device: Where the batches go.
        panels: What keeps the predictions of a few images, or None.

    Returns:
        The metrics a task, and the per-image sums that they were computed from, keyed `task/name`, with the image ids under `id`.
    """
    model.eval()
    metrics, ids = {name: metric_of(task) for name, task in model.table.items()}, []
    for batch in loader:
        ids += batch["id"]
        batch = to_device(batch, device)
        outputs = model(batch["image"])
        for task, metric in metrics.items():
            metric.update(outputs[task], batch[task])
            beat()
        if panels is not None:
            panels.update(batch, outputs)
    sums = {f"{task}/{name}": values for task, metric in metrics.items() for name, values in metric.per_image().items()}
    return {task: metric.compute() for task, metric in metrics.items()}, {"id": np.array(ids)} | sums


def update_peaks(state: FitState, device: torch.device) -> None:
    """Raise the recorded peaks to those of this process."""
    if device.type == "cuda":
        state.peak_allocated_bytes = max(state.peak_allocated_bytes or 0, torch.cuda.max_memory_allocated(device))
        state.peak_reserved_bytes = max(state.peak_reserved_bytes or 0, torch.cuda.max_memory_reserved(device))


def forget_peaks(device: torch.device) -> None:
    """Start the allocator's peaks anew: what ran between two epochs is no part of training."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
