"""Edges: F at the best threshold of the data set (odsF) and of each image (oisF), and average precision."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.measure.edge_matching import THRESHOLDS, counts
from bench.measure.streaming import Rows, Scores, StreamingMetric
from bench.tasks import IGNORE

POOL_PIXELS = 10**6
"""Batches of fewer pixels are counted in this process: starting others would take longer."""


class EdgesMetric(StreamingMetric):
    """Precision and recall of edge pixels at the 99 thresholds 0.01 .. 0.99 of the sigmoid, counts pooled over all images.

    An image's prediction goes through non-maximum suppression and, at each threshold, thinning; labels are thinned again, because resizing
    thickens lines. A predicted and a labelled pixel are partners when they are at most `tolerance` diagonals apart, each has one partner at
    most. See `bench.measure.edge_maps` and `bench.measure.edge_matching`.

    Rows: `matched` and `predicted` (N, 99), `labelled` and `valid` (N,) pixels. Pixels labelled 255 are in none of them.

    Scores, percent: `odsf` (best F of the pooled counts, precision and recall interpolated between thresholds as the Berkeley benchmark
    does), `threshold` (where, 0 to 1), `oisf` (F of the counts pooled over images, each at its own best threshold), `ap` (mean of the
    precision at the recalls 0, 0.01, .., 1; 0 where a recall is not reached).

    Args:
        name, channels: See `StreamingMetric`.
        tolerance: Largest distance of partners, as a share of the image's diagonal.
    """

    def __init__(self, name: str, channels: int, tolerance: float) -> None:
        super().__init__(name, channels)
        self.tolerance = tolerance
        self._pool: ProcessPoolExecutor | None = None

    def sums(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the images' counts; large batches are shared out to the cores."""
        probability, label = logits[:, 0].sigmoid().cpu().numpy(), label.cpu().numpy()
        results = list(self._map(probability.size)(counts, probability, label, repeat(self.tolerance)))
        matched, predicted, labelled = (np.array(values, np.int32) for values in zip(*results, strict=True))
        valid = (label != IGNORE).sum(axis=(1, 2), dtype=np.int32)
        rows = {"matched": matched, "predicted": predicted, "labelled": labelled, "valid": valid}
        return {key: torch.from_numpy(value) for key, value in rows.items()}

    def _map(self, pixels: int) -> Any:
        processes = usable_cores()
        if self._pool is None and processes > 1 and pixels >= POOL_PIXELS:
            self._pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
        return map if self._pool is None else self._pool.map

    def compute(self) -> Scores:
        """Return the scores of all images seen, and let the processes go."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        return super().compute()

    def scores(self, rows: Rows) -> Scores:
        """Return the scores of `rows`, see the class."""
        seen = rows["valid"] > 0
        if not seen.any():
            return dict.fromkeys(("odsf", "oisf", "ap", "threshold"))
        matched, predicted = (rows[key][seen].astype(np.int64) for key in ("matched", "predicted"))
        labelled = rows["labelled"][seen].astype(np.int64)
        precision, recall = rates(matched.sum(axis=0), predicted.sum(axis=0), labelled.sum())
        best, threshold = best_f(precision, recall)
        own = f_of(*rates(matched, predicted, labelled[:, None])).argmax(axis=1)[:, None]
        chosen = (np.take_along_axis(counted, own, axis=1).sum() for counted in (matched, predicted))
        ois = f_of(*rates(*chosen, labelled.sum()))
        return {
            "odsf": float(100 * best),
            "oisf": float(100 * ois),
            "ap": float(100 * average_precision(precision, recall)),
            "threshold": float(threshold),
        }


def usable_cores() -> int:
    """Return how many processes may count edges: the cores there are, or the share of them that Ray gave a trial (OMP_NUM_THREADS)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(share)) if share.isdigit() and int(share) > 0 else cores


def rates(matched: np.ndarray, predicted: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall, 0 where nothing is predicted or labelled."""
    return matched / np.maximum(predicted, 1), matched / np.maximum(labelled, 1)


def f_of(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Return the harmonic mean of precision and recall, 0 where both are."""
    return 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)


def best_f(precision: np.ndarray, recall: np.ndarray) -> tuple[float, float]:
    """Return the largest F along the curve, linear between thresholds, and its threshold; precision and recall (99,)."""
    position = np.linspace(0, len(precision) - 1, 99 * (len(precision) - 1) + 1)
    places = np.arange(len(precision))
    curve = f_of(np.interp(position, places, precision), np.interp(position, places, recall))
    best = int(curve.argmax())
    return float(curve[best]), float(np.interp(position[best], places, THRESHOLDS))


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Return the mean precision at the recalls 0, 0.01, .., 1, linear between thresholds; 0 beyond the recalls that are reached."""
    reached = np.unique(recall)
    if len(reached) < 2:
        return 0.0
    highest = np.array([precision[recall == value].max() for value in reached])
    return float(np.interp(np.linspace(0, 1, 101), reached, highest, left=0, right=0).sum() / 100)
