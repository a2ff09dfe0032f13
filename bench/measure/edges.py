"""Edges: F at the best threshold of the data set (odsF) and of each image (oisF), and average precision."""

import os
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.measure.edge_matching import counts
from bench.measure.edge_scores import edge_scores
from bench.measure.scores import Rows, Scores
from bench.measure.streaming import StreamingMetric
from bench.tasks import IGNORE
from bench.workers import pool as pool_of

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
    precision at the recalls 0, 0.01, .., 1; 0 where a recall is not reached, and 0 for a curve of a single recall, as there).

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
            self._pool = pool_of(processes)
        return map if self._pool is None else self._pool.map

    def compute(self) -> Scores:
        """Return the scores of all images seen, and let the processes go."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        return super().compute()

    def scores(self, rows: Rows) -> Scores:
        """Return the scores of `rows`, see the class."""
        return edge_scores(rows)


def usable_cores() -> int:
    """Return how many processes may count edges: the cores there are, or the share of them that Ray gave a trial (OMP_NUM_THREADS)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(share)) if share.isdigit() and int(share) > 0 else cores
