"""Streaming metrics of the dense tasks, one row of sums an image.

Definitions follow the PASCAL-Context multi-task evaluation that the MTLoRA release (arXiv 2403.20320) and its relatives use, written anew.
Every metric keeps counts per image (for normals and depth also float64 sums), on the logits' device but for edges, which a CPU counts; a
score is a function of those rows alone, so that statistics can later resample or pair images without running a model again. Two things
differ from the release: a batch of one image is scored as an image (there: as H images of one row), and for normals "mean" and "rmse" are
what their names say.

IoU, F and shares are percentages, angles degrees, depth metres. A score that is undefined (nothing labelled) is None, never NaN.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench.measure.depth import DepthMetric
from bench.measure.edges import EdgesMetric
from bench.measure.scores import (
    ANGLE_LIMITS_DEG,
    SALIENCY_THRESHOLDS,
    Rows,
    Scores,
    normals_scores,
    saliency_scores,
    segmentation_scores,
)
from bench.measure.streaming import StreamingMetric
from bench.tasks import IGNORE, TASKS, Task

ANGLE_BINS_PER_DEG = 100


class SegmentationMetric(StreamingMetric):
    """Intersection over union of class maps: counts pooled over all images, then one IoU a class.

    Rows, each (N, C) pixels by class: `intersection`, `predicted`, `labelled`. Pixels labelled 255 are in none of them.

    Scores: `miou` (percent, mean over all C classes, one that never appears counts 0), `miou_present` (mean over the classes in label or
    prediction), `pixel_accuracy`, `iou/<k>` (None for a class that never appears).
    """

    def sums(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the images' counts from a confusion matrix an image, rows label, columns prediction."""
        batch, classes = logits.shape[:2]
        label, valid = label.long(), label != IGNORE
        if (valid & (label >= classes)).any():
            raise ValueError(f"{self.name}: the label holds class {int(label[valid].max())}; allowed are 0 to {classes - 1} and {IGNORE}")
        image = torch.arange(batch, device=label.device)[:, None, None]
        cell = (image * classes + label) * classes + logits.max(dim=1).indices  # faster than argmax on a CPU
        confusion = _count(cell, valid, (batch, classes, classes))
        return {
            "intersection": confusion.diagonal(dim1=1, dim2=2).clone(),
            "predicted": confusion.sum(dim=1, dtype=torch.int32),
            "labelled": confusion.sum(dim=2, dtype=torch.int32),
        }

    def scores(self, rows: Rows) -> Scores:
        """Return the scores of `rows`, see the class."""
        return segmentation_scores(rows)


class SaliencyMetric(StreamingMetric):
    """IoU and F of the foreground per image at the 15 thresholds 0.20, 0.25, ..., 0.90 of the sigmoid (foreground: strictly above).

    Rows: `intersection` and `predicted` (N, 15), `labelled` and `valid` (N,) pixels. Pixels labelled 255 are in none of them; an image
    without any other pixel takes no part in the means.

    Scores: `miou` (percent, mean over images at the best threshold: the protocol's oracle), `threshold` (that threshold, 0 to 1),
    `miou_at_0.5`, `max_f` (F1 of the mean precision and the mean recall, at its own best threshold). Empty label and empty prediction:
    IoU 1, but precision and recall 0, as the protocol has it.
    """

    def sums(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the images' counts from one histogram an image over (label, number of thresholds exceeded)."""
        thresholds = torch.tensor(SALIENCY_THRESHOLDS, device=logits.device)
        exceeded = torch.bucketize(logits[:, 0].sigmoid(), thresholds)  # not right=True: a threshold met exactly is not exceeded
        batch, bins = len(logits), len(thresholds) + 1
        image = torch.arange(batch, device=label.device)[:, None, None]
        cell = (image * 2 + (label == 1)) * bins + exceeded
        counts = _count(cell, label != IGNORE, (batch, 2, bins))
        above = counts.flip(-1).cumsum(-1, dtype=torch.int32).flip(-1)[..., 1:]
        return {
            "intersection": above[:, 1].clone(),
            "predicted": above.sum(dim=1, dtype=torch.int32),
            "labelled": counts[:, 1].sum(dim=-1, dtype=torch.int32),
            "valid": counts.sum(dim=(1, 2), dtype=torch.int32),
        }

    def scores(self, rows: Rows) -> Scores:
        """Return the scores of `rows`, see the class."""
        return saliency_scores(rows)


class NormalsMetric(StreamingMetric):
    """Angle between predicted and labelled normal, pooled over all labelled pixels.

    Rows, each (N,): `angle_sum` (degrees) and `angle_square_sum` (degrees squared), float64; `valid` and `within_<limit>`, pixels.

    Scores: `mean_deg`, `median_deg`, `rmse_deg` (degrees, lower is better); `within_11.25`, `within_22.5`, `within_30` (percent of pixels
    strictly below). The median comes from one histogram over all images with bins of 0.01 degrees, so it is right to 0.005 degrees, and it
    is the one score that the rows do not give back (`scores` leaves it out): 18,000 bins an image would outweigh all else in a record.
    """

    label_channels = (3,)

    def __init__(self, name: str, channels: int) -> None:
        super().__init__(name, channels)
        self._histogram: Tensor | None = None

    def sums(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the images' sums, and add the angles to the histogram of the median."""
        valid = (label != IGNORE).all(dim=1)
        angle = torch.where(valid, angle_deg(logits, label), 0.0)
        bins = 180 * ANGLE_BINS_PER_DEG
        histogram = _count((angle * ANGLE_BINS_PER_DEG).long().clamp(max=bins - 1), valid, (bins,), dtype=torch.int64)
        self._histogram = histogram if self._histogram is None else self._histogram + histogram
        within = {f"within_{limit:g}": (valid & (angle < limit)).sum(dim=(1, 2), dtype=torch.int32) for limit in ANGLE_LIMITS_DEG}
        return {
            "angle_sum": angle.sum(dim=(1, 2)),
            "angle_square_sum": angle.square().sum(dim=(1, 2)),
            "valid": valid.sum(dim=(1, 2), dtype=torch.int32),
            **within,
        }

    def scores(self, rows: Rows) -> Scores:
        """Return the scores of `rows` but the median, see the class."""
        return normals_scores(rows)

    def compute(self) -> Scores:
        """Return the scores of all images seen, the median included."""
        scores = super().compute()
        cumulative = self._histogram.cumsum(dim=0).cpu().numpy()
        pixels = int(cumulative[-1])
        middle = np.searchsorted(cumulative, [(pixels - 1) // 2, pixels // 2], side="right")  # bins of the two middle ranks
        return scores | {"median_deg": float((middle.mean() + 0.5) / ANGLE_BINS_PER_DEG) if pixels else None}


def angle_deg(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle between vectors in dim 1 in degrees, (B, 3, H, W) any float -> (B, H, W) float64.

    Kahan's form 2 * atan2(|a - b|, |a + b|) of the unit vectors: exact near 0 and 180 degrees, where the arc cosine of a clamped dot
    product loses half of the digits. In float64, so that the batch size (and with it the vectorisation) moves no angle over a limit. A zero
    vector is at 90 degrees to everything.
    """
    first, second = (vector.double() / length(vector.double()).clamp(min=1e-12)[:, None] for vector in (first, second))
    return torch.rad2deg(2 * torch.atan2(length(first - second), length(first + second)))


def length(vectors: Tensor) -> Tensor:
    """Return the Euclidean length over dim 1, (B, C, H, W) -> (B, H, W); much faster than `vector_norm` on a CPU."""
    return vectors.square().sum(dim=1).sqrt()


def _count(cell: Tensor, valid: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.int32) -> Tensor:
    """Count how often each flat cell index of `shape` occurs among the valid entries, without indexing by a mask."""
    cells = int(np.prod(shape))
    return torch.where(valid, cell, cells).flatten().bincount(minlength=cells + 1)[:cells].reshape(shape).to(dtype)


_METRIC_CLASSES: dict[str, type[StreamingMetric]] = {
    "semseg": SegmentationMetric,
    "human_parts": SegmentationMetric,
    "saliency": SaliencyMetric,
    "normals": NormalsMetric,
    "edges": EdgesMetric,
    "depth": DepthMetric,
}


def metric_of(task: Task) -> StreamingMetric:
    """Return a new metric of a task, as the data set has it."""
    extra = {} if task.tolerance is None else {"tolerance": task.tolerance}
    return _METRIC_CLASSES[task.name](task.name, task.channels, **extra)


METRICS: dict[str, Callable[[], StreamingMetric]] = {name: partial(metric_of, TASKS[name]) for name in _METRIC_CLASSES}
