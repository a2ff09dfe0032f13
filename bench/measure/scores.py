"""Scores of the tasks from per-image sums. No torch: the training computes its metrics here, and so do the report's paired tests.

A score is a function of sums over images, so it can be had for any selection or weighting of images. `bench/measure/metrics.py` says what
the rows hold and what each score means; a score that is undefined (nothing labelled) is None, never NaN.
"""

from collections.abc import Callable, Mapping

import numpy as np

from bench.measure.edge_scores import resampled_odsf

Rows = Mapping[str, np.ndarray]
Scores = dict[str, float | None]

SALIENCY_THRESHOLDS = tuple(percent / 100 for percent in range(20, 91, 5))
ANGLE_LIMITS_DEG = (11.25, 22.5, 30.0)


def segmentation_scores(rows: Rows) -> Scores:
    """Return `miou`, `miou_present`, `pixel_accuracy` and `iou/<k>`, in percent, from counts pooled over the images.

    Args:
        rows: `intersection`, `predicted`, `labelled`, each (N, C) pixels by class.
    """
    intersection, predicted, labelled = (rows[key].sum(axis=0, dtype=np.int64) for key in ("intersection", "predicted", "labelled"))
    classes = len(labelled)
    if not labelled.sum():
        return dict.fromkeys(("miou", "miou_present", "pixel_accuracy", *(f"iou/{k}" for k in range(classes))))
    union = predicted + labelled - intersection
    present = union > 0
    iou = 100 * intersection / np.maximum(union, 1)
    return {
        "miou": float(iou.mean()),
        "miou_present": float(iou[present].mean()),
        "pixel_accuracy": float(100 * intersection.sum() / labelled.sum()),
        **{f"iou/{k}": float(iou[k]) if present[k] else None for k in range(classes)},
    }


def saliency_scores(rows: Rows) -> Scores:
    """Return `miou` (percent, at the best threshold), `threshold`, `miou_at_0.5` and `max_f`, from means over the images.

    Args:
        rows: `intersection` and `predicted` (N, 15), `labelled` and `valid` (N,) pixels; an image without valid pixels takes no part.
    """
    seen = rows["valid"] > 0
    if not seen.any():
        return dict.fromkeys(("miou", "miou_at_0.5", "max_f", "threshold"))
    intersection, predicted = rows["intersection"][seen], rows["predicted"][seen]
    labelled = rows["labelled"][seen][:, None]
    iou = _foreground_iou(intersection, predicted, labelled).mean(axis=0)
    precision = (intersection / np.maximum(predicted, 1)).mean(axis=0)
    recall = (intersection / np.maximum(labelled, 1)).mean(axis=0)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    best = int(iou.argmax())
    return {
        "miou": float(100 * iou[best]),
        "miou_at_0.5": float(100 * iou[SALIENCY_THRESHOLDS.index(0.5)]),
        "max_f": float(100 * f1.max()),
        "threshold": SALIENCY_THRESHOLDS[best],
    }


def _foreground_iou(intersection: np.ndarray, predicted: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Return the images' IoU (0 to 1) at every threshold; 1 where label and prediction are both empty."""
    union = predicted + labelled - intersection
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)


def normals_scores(rows: Rows) -> Scores:
    """Return `mean_deg`, `rmse_deg` (degrees) and the shares `within_<limit>` (percent); the median cannot be had from sums.

    Args:
        rows: `angle_sum`, `angle_square_sum`, `valid` and `within_<limit>`, each (N,).
    """
    pixels, limits = int(rows["valid"].sum(dtype=np.int64)), [f"within_{limit:g}" for limit in ANGLE_LIMITS_DEG]
    if not pixels:
        return dict.fromkeys(("mean_deg", "rmse_deg", *limits))
    return {
        "mean_deg": float(rows["angle_sum"].sum() / pixels),
        "rmse_deg": float(np.sqrt(rows["angle_square_sum"].sum() / pixels)),
        **{key: float(100 * rows[key].sum(dtype=np.int64) / pixels) for key in limits},
    }


def resampled_miou(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Return `miou` of `segmentation_scores` for every resample of the images.

    Args:
        rows: As `segmentation_scores` takes them, N images.
        counts: (B, N) float, how often each image is drawn in each of B resamples.

    Returns:
        (B,) percent.
    """
    intersection, predicted, labelled = (counts @ rows[key].astype(np.float64) for key in ("intersection", "predicted", "labelled"))
    return (100 * intersection / np.maximum(predicted + labelled - intersection, 1)).mean(axis=1)


def resampled_saliency(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Return `miou` of `saliency_scores` for every resample, the best threshold chosen anew in each; arguments as `resampled_miou`."""
    seen = (rows["valid"] > 0).astype(np.float64)
    iou = _foreground_iou(rows["intersection"], rows["predicted"], rows["labelled"][:, None])
    return 100 * ((counts @ (iou * seen[:, None])) / np.maximum(counts @ seen, 1)[:, None]).max(axis=1)


def resampled_mean_deg(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Return `mean_deg` of `normals_scores` for every resample, in degrees; arguments as `resampled_miou`."""
    return (counts @ rows["angle_sum"]) / np.maximum(counts @ rows["valid"].astype(np.float64), 1)


def resampled_rmse_m(rows: Rows, counts: np.ndarray) -> np.ndarray:
    """Return `rmse_m` of depth (`bench.measure.depth`) for every resample, in metres; arguments as `resampled_miou`."""
    return np.sqrt((counts @ rows["square_sum"]) / np.maximum(counts @ rows["valid"].astype(np.float64), 1))


RESAMPLED: Mapping[str, Callable[[Rows, np.ndarray], np.ndarray]] = {
    "semseg": resampled_miou,
    "human_parts": resampled_miou,
    "saliency": resampled_saliency,
    "normals": resampled_mean_deg,
    "edges": resampled_odsf,
    "depth": resampled_rmse_m,
}
"""Per task: its headline metric for resampled images. A task that is not here is tested over seeds alone."""
