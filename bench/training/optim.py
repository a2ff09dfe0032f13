"""Optimiser and learning-rate schedule of the MTLoRA release (arXiv 2403.20320): AdamW, linear warm-up, cosine decay per iteration.

The learning rate is a pure function of the step, so that a resumed trial needs no scheduler state.
"""

import math
from typing import NamedTuple

import torch
from torch import nn

REFERENCE_BATCH_SIZE = 512


class LearningRates(NamedTuple):
    """The three learning rates of a schedule, each the absolute value at the trial's batch size."""

    peak_lr: float
    warmup_lr: float
    min_lr: float


def release_lrs(batch_size: int) -> LearningRates:
    """Scale the release's peak (5e-4), warm-up start (5e-7) and floor (5e-6) from batch 512 to `batch_size` in proportion.

    Raises:
        ValueError: The batch size is not positive; give the number of images of one optimiser step.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    scale = batch_size / REFERENCE_BATCH_SIZE
    return LearningRates(peak_lr=5e-4 * scale, warmup_lr=5e-7 * scale, min_lr=5e-6 * scale)


def learning_rate(
    step: int, *, steps_per_epoch: int, epochs: int, warmup_epochs: float, peak_lr: float, warmup_lr: float, min_lr: float
) -> float:
    """Return the learning rate of optimiser step number `step`, counted from 0.

    Rises in a line from `warmup_lr` to `peak_lr` over the warm-up, then falls along half a cosine to `min_lr`, which is reached at step
    `epochs * steps_per_epoch`. (timm's `CosineLRScheduler` with `t_in_epochs=False, warmup_prefix=True`.) The release itself applies
    the value of step n to step n + 1, because it updates the scheduler after the step; here step n gets the value of step n.

    Raises:
        ValueError: A negative step, no step at all, or a warm-up longer than the training; shorten the warm-up.
    """
    total_steps, warmup_steps = steps_per_epoch * epochs, round(warmup_epochs * steps_per_epoch)
    if step < 0 or total_steps < 1:
        raise ValueError(f"step is {step} of {epochs} epochs x {steps_per_epoch} steps; need step >= 0 and at least one step in all")
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"warmup_epochs is {warmup_epochs} of {epochs} epochs; it must be from 0 to the number of epochs")
    if step < warmup_steps:
        return warmup_lr + step * (peak_lr - warmup_lr) / warmup_steps
    if step >= total_steps:
        return min_lr
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return min_lr + 0.5 * (peak_lr - min_lr) * (1 + math.cos(math.pi * progress))


def build_optimizer(
    model: nn.Module, *, peak_lr: float, weight_decay: float = 0.05, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> torch.optim.AdamW:
    """Build AdamW over the parameters that require a gradient, in the model's order.

    Group 0 decays; group 1 does not: 1-D parameters (norms, scales) and everything named `bias`.

    Raises:
        ValueError: No parameter requires a gradient; a method leaves at least the decoders trainable.
    """
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("nothing to train: no parameter of the model requires a gradient; at least the decoders should")
    exempt = {name for name, parameter in trainable if parameter.ndim <= 1 or name.split(".")[-1] == "bias"}
    groups = [
        {"params": [parameter for name, parameter in trainable if name not in exempt], "weight_decay": weight_decay},
        {"params": [parameter for name, parameter in trainable if name in exempt], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=peak_lr, betas=betas, eps=eps, fused=True)
