"""Losses of the dense tasks and their weighted sum.

The protocol is PASCAL-Context multi-task learning as in the MTLoRA release (arXiv 2403.20320): cross-entropy for semantic segmentation and
human parts, class-balanced binary cross-entropy for saliency (the weighting of HED, arXiv 1504.06375), L1 on unit vectors for normals. One
difference: where nothing of a batch is labelled, the release's cross-entropy is NaN; here every loss is 0 and has zero gradient.

Edges and depth are those of the release's relatives (ASTMT, arXiv 1904.08918; MTI-Net, arXiv 2001.06902): binary cross-entropy with the
fixed weight 0.95 for edge pixels and 0.05 for the others, and L1 in metres.

All losses are computed in float32, under autocast as well, and sum by deterministic reductions.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.tasks import IGNORE, TASKS

EDGE_WEIGHT = 0.95


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Average the cross-entropy over the labelled pixels.

    Args:
        logits: (B, C, H, W), any float type.
        label: (B, H, W) class indices, uint8; 255 is ignored.

    Returns:
        Scalar float32; 0 where no pixel is labelled.
    """
    per_pixel = F.cross_entropy(logits.float(), label.long(), ignore_index=IGNORE, reduction="none")
    return per_pixel.sum() / (label != IGNORE).sum().clamp(min=1)


def balanced_binary_cross_entropy(logits: Tensor, label: Tensor, positive_weight: float | None = None) -> Tensor:
    """Weigh foreground against background: (w * positives' sum + (1 - w) * negatives' sum) / pixels.

    Args:
        logits: (B, 1, H, W), any float type.
        label: (B, H, W), 1 foreground, 0 background, uint8; 255 counts neither in the sums nor in the shares.
        positive_weight: w; by default the share of background among the labelled pixels of the whole batch, so that a batch of one class
            has loss 0.

    Returns:
        Scalar float32; 0 where no pixel is labelled.
    """
    positive, valid = label == 1, label != IGNORE
    pixels = valid.sum().clamp(min=1)
    w = (valid & ~positive).sum() / pixels if positive_weight is None else pixels.new_tensor(positive_weight, dtype=torch.float32)
    weight = torch.where(positive, w, 1 - w) * valid
    per_pixel = F.binary_cross_entropy_with_logits(logits[:, 0].float(), positive.float(), reduction="none")
    return (weight * per_pixel).sum() / pixels


def normals_l1(logits: Tensor, label: Tensor) -> Tensor:
    """Average the absolute difference between the unit-length prediction and the label over all labelled entries (three a pixel).

    Args:
        logits: (B, 3, H, W), any float type and length; divided by its length, at least 1e-12.
        label: (B, 3, H, W) unit vectors, float; 255 in all three channels where ignored.

    Returns:
        Scalar float32; 0 where no pixel is labelled.
    """
    logits, valid = logits.float(), label != IGNORE
    # Not vector_norm: over a strided dim it is fifty times slower on a CPU. Clamped, because the root has no gradient at 0.
    prediction = logits / logits.square().sum(dim=1, keepdim=True).clamp(min=1e-24).sqrt()
    difference = (prediction - label.float()).abs()
    return torch.where(valid, difference, 0.0).sum() / valid.sum().clamp(min=1)


def depth_l1(logits: Tensor, label: Tensor) -> Tensor:
    """Average the absolute difference over the labelled pixels.

    Args:
        logits: (B, 1, H, W) metres, any float type.
        label: (B, 1, H, W) metres, float; 0 is ignored.

    Returns:
        Scalar float32, metres; 0 where no pixel is labelled.
    """
    valid = label > 0
    return torch.where(valid, (logits.float() - label.float()).abs(), 0.0).sum() / valid.sum().clamp(min=1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "semseg": cross_entropy,
    "human_parts": cross_entropy,
    "saliency": balanced_binary_cross_entropy,
    "normals": normals_l1,
    "edges": partial(balanced_binary_cross_entropy, positive_weight=EDGE_WEIGHT),
    "depth": depth_l1,
}


def total_loss(outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], tasks: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum the tasks' losses with the weights of `bench.tasks`.

    Args:
        outputs: Logits by task, (B, channels, H, W).
        batch: Labels by task, at the logits' resolution: (B, H, W); normals (B, 3, H, W), depth (B, 1, H, W).
        tasks: Names of the tasks that count.

    Returns:
        The weighted sum (scalar float32, with graph) and each task's unweighted loss (scalar float32, detached).

    Raises:
        ValueError: `tasks` is empty, or the outputs or the batch lack one of them; request only tasks that model and data provide.
    """
    missing = [task for task in tasks if task not in outputs or task not in batch]
    if missing or not tasks:
        raise ValueError(
            f"tasks without output or label: {missing}" if missing else "no task to train; give at least one of " + ", ".join(LOSSES)
        )
    device_type = next(iter(outputs.values())).device.type
    with torch.autocast(device_type, enabled=False):
        losses = {task: LOSSES[task](outputs[task], batch[task]) for task in tasks}
        total = torch.stack([TASKS[task].loss_weight * loss for task, loss in losses.items()]).sum()
    return total, {task: loss.detach() for task, loss in losses.items()}
