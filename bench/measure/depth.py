"""Depth, by the measures of Eigen et al. (arXiv 1406.2283), pooled over all labelled pixels of a split."""

import numpy as np
import torch
from torch import Tensor

from bench.measure.scores import Rows, Scores
from bench.measure.streaming import StreamingMetric

RATIO_LIMITS = (1.25, 1.25**2, 1.25**3)
LEAST_METRES = 1e-3
"""What a prediction counts as at least where ratios are formed: a network may predict nothing or less."""


class DepthMetric(StreamingMetric):
    """Difference between predicted and labelled depth, pooled over all labelled pixels.

    Rows, each (N,): `square_sum` (square metres), `absolute_sum` (metres) and `relative_sum`, float64; `valid` and `ratio_below_<limit>`,
    pixels.

    Scores: `rmse_m` and `mae_m` (metres, lower is better); `abs_rel` (percent: mean of the difference divided by the label, lower is
    better); `ratio_below_1.25`, `..._1.5625`, `..._1.953125` (percent of pixels whose ratio, the larger over the smaller, is strictly
    below).
    """

    label_channels = (1,)

    def sums(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the images' sums; the prediction is in metres."""
        predicted, label = logits[:, 0].double(), label[:, 0].double()
        valid = label > 0
        safe = torch.where(valid, label, 1.0)
        difference = torch.where(valid, (predicted - safe).abs(), 0.0)
        positive = predicted.clamp(min=LEAST_METRES)
        ratio = torch.maximum(positive / safe, safe / positive)
        below = {_below(limit): (valid & (ratio < limit)).sum(dim=(1, 2), dtype=torch.int32) for limit in RATIO_LIMITS}
        return {
            "square_sum": difference.square().sum(dim=(1, 2)),
            "absolute_sum": difference.sum(dim=(1, 2)),
            "relative_sum": (difference / safe).sum(dim=(1, 2)),
            "valid": valid.sum(dim=(1, 2), dtype=torch.int32),
            **below,
        }

    def scores(self, rows: Rows) -> Scores:
        """Return the scores of `rows`, see the class."""
        pixels, ratios = int(rows["valid"].sum(dtype=np.int64)), [_below(limit) for limit in RATIO_LIMITS]
        if not pixels:
            return dict.fromkeys(("rmse_m", "mae_m", "abs_rel", *ratios))
        return {
            "rmse_m": float(np.sqrt(rows["square_sum"].sum() / pixels)),
            "mae_m": float(rows["absolute_sum"].sum() / pixels),
            "abs_rel": float(100 * rows["relative_sum"].sum() / pixels),
            **{key: float(100 * rows[key].sum(dtype=np.int64) / pixels) for key in ratios},
        }


def _below(limit: float) -> str:
    return f"ratio_below_{limit:.7g}"
