"""Scores of edges from per-image counts, as the Berkeley benchmark computes them. No torch."""

from collections.abc import Mapping

import numpy as np

THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))
STEPS = 99
"""Points of the curve between two thresholds, the second included."""


def edge_scores(rows: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Return `odsf`, `oisf`, `ap` (percent) and `threshold`, see `bench.measure.edges.EdgesMetric`.

    Args:
        rows: `matched` and `predicted` (N, 99), `labelled` and `valid` (N,) pixels; an image without valid pixels takes no part.
    """
    seen = rows["valid"] > 0
    if not seen.any():
        return dict.fromkeys(("odsf", "oisf", "ap", "threshold"))
    matched, predicted = (rows[key][seen].astype(np.int64) for key in ("matched", "predicted"))
    labelled = rows["labelled"][seen].astype(np.int64)
    precision, recall = rates(matched.sum(axis=0), predicted.sum(axis=0), labelled.sum())
    best, threshold = best_f(precision, recall)
    own = f_of(*rates(matched, predicted, labelled[:, None])).argmax(axis=1)[:, None]
    chosen = (np.take_along_axis(counted, own, axis=1).sum() for counted in (matched, predicted))
    return {
        "odsf": float(100 * best),
        "oisf": float(100 * f_of(*rates(*chosen, labelled.sum()))),
        "ap": float(100 * average_precision(precision, recall)),
        "threshold": float(threshold),
    }


def resampled_odsf(rows: Mapping[str, np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Return `odsf` for every resample of the images, the best threshold chosen anew in each.

    Args:
        rows: As `edge_scores` takes them, N images.
        counts: (B, N) float, how often each image is drawn in each of B resamples.

    Returns:
        (B,) percent.
    """
    matched, predicted, labelled = (counts @ rows[key].astype(np.float64) for key in ("matched", "predicted", "labelled"))
    return 100 * best_f(*rates(matched, predicted, labelled[:, None]))[0]


def rates(matched: np.ndarray, predicted: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall, 0 where nothing is predicted or labelled."""
    return matched / np.maximum(predicted, 1), matched / np.maximum(labelled, 1)


def f_of(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Return the harmonic mean of precision and recall, 0 where both are."""
    return 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)


def best_f(precision: np.ndarray, recall: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest F along the curve, linear between thresholds, and its threshold: (...,) each, from (..., 99)."""
    curves = f_of(_between(precision), _between(recall))
    best = curves.argmax(axis=-1)
    return np.take_along_axis(curves, best[..., None], -1)[..., 0], _between(np.array(THRESHOLDS))[best]


def _between(values: np.ndarray) -> np.ndarray:
    """Interpolate (..., K) linearly to (..., (K - 1) * STEPS + 1)."""
    share = np.arange(STEPS) / STEPS
    inner = values[..., :-1, None] * (1 - share) + values[..., 1:, None] * share
    return np.concatenate([inner.reshape(*values.shape[:-1], -1), values[..., -1:]], axis=-1)


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Return the mean precision at the recalls 0, 0.01, .., 1, linear between thresholds; 0 beyond the recalls that are reached.

    As in the Berkeley benchmark's `collect_eval_bdry`, a curve of a single recall encloses no area: its value is 0, however precise it is.
    So a map that is the same at all thresholds (a binary one) has an odsF and no AP. Where thresholds share a recall the best precision
    counts.
    """
    reached = np.unique(recall)
    if len(reached) < 2:
        return 0.0
    highest = np.array([precision[recall == value].max() for value in reached])
    return float(np.interp(np.linspace(0, 1, 101), reached, highest, left=0, right=0).sum() / 100)
