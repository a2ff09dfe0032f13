"""How many predicted edge pixels have a partner among the labelled ones: at 99 thresholds, one to one, within a distance. No torch.

The measure is that of the Berkeley benchmark (Martin, Fowlkes and Malik, TPAMI 2004): a predicted and a labelled pixel may be partners when
they lie at most `distance` apart, and each has one partner at most. What enters precision and recall is the largest number of partners that
is possible; it is found exactly, as a maximum flow (Dinic's algorithm), where the original approximates it by a minimum-cost assignment
with a heavy price for every pixel left alone.

Pixels without any candidate within reach are dropped beforehand, candidates are listed once for all thresholds, and thresholds between
which nothing changes share one count: that makes an image a matter of seconds.
"""

import cv2
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from bench.measure.edge_maps import suppress, thin
from bench.measure.edge_scores import THRESHOLDS

NOTHING = 255

LEVELS = np.array(THRESHOLDS, np.float32)
"""The thresholds as what crests, float32, are compared with: a crest may equal one that lies below the number it stands for."""


def counts(probability: np.ndarray, label: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Count an image's edge pixels.

    Args:
        probability: (h, w) float32 in 0..1.
        label: (h, w) uint8, 1 edge, 0 none, 255 ignored: there neither label nor prediction counts. Lines are thinned.
        tolerance: Largest distance of partners, as a share of the image's diagonal.

    Returns:
        Predicted pixels with a partner, and predicted pixels, int32 (99,) each by threshold; labelled pixels.
    """
    cv2.setNumThreads(1)
    ignored, truth = label == NOTHING, thin(label == 1)
    crests = np.where(ignored, 0, suppress(np.where(ignored, 0, probability)))
    candidates = crests >= LEVELS[0]
    number = np.cumsum(candidates.ravel()).reshape(candidates.shape) - 1
    reach = tolerance * float(np.hypot(*label.shape))
    graph = within_reach(candidates, truth, reach)
    matched, predicted = np.zeros(len(LEVELS), np.int32), np.zeros(len(LEVELS), np.int32)
    before, bins = None, np.searchsorted(LEVELS, crests[candidates], side="right")
    changes = np.bincount(bins, minlength=len(LEVELS) + 1)  # pixels that are in the lines of the threshold before, and no longer here
    for i, level in enumerate(LEVELS):
        if before is None or changes[i]:
            lines = thin(crests >= level)
            before = partners(graph, number[lines]), int(lines.sum())
        matched[i], predicted[i] = before
    return matched, predicted, int(truth.sum())


def within_reach(candidates: np.ndarray, truth: np.ndarray, reach: float) -> csr_array:
    """List which labelled pixels each candidate may be a partner of.

    Args:
        candidates, truth: (h, w) bool.
        reach: Pixels; a distance of exactly `reach` counts.

    Returns:
        Sparse (candidates, labelled pixels), both in row-major order.
    """
    radius = int(reach)
    offsets = [(dy, dx) for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1) if dy * dy + dx * dx <= reach * reach]
    labelled = np.full(truth.shape, -1, np.int32)
    labelled[truth] = np.arange(truth.sum())
    labelled = np.pad(labelled, radius, constant_values=-1)
    shift = np.array([dy * labelled.shape[1] + dx for dy, dx in offsets])
    rows, columns = np.nonzero(candidates)
    places = (rows + radius) * labelled.shape[1] + columns + radius
    found = labelled.ravel()[places[:, None] + shift]
    there = found >= 0
    starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return csr_array((np.ones(int(starts[-1]), np.int8), found[there], starts), shape=(len(places), int(truth.sum())))


def partners(graph: csr_array, chosen: np.ndarray) -> int:
    """Return the largest number of one-to-one partners of the `chosen` candidates: the maximum flow source, candidates, labels, sink.

    scipy's bipartite matching is not used: it takes exponential time on some such graphs (scipy 1.17).
    """
    part = graph[chosen[np.diff(graph.indptr)[chosen] > 0]]
    labels = np.unique(part.indices)
    left, right = part.shape[0], len(labels)
    if not left:
        return 0
    degrees = np.diff(part.indptr)
    sink = left + right + 1
    heads = np.concatenate([np.arange(1, left + 1), np.searchsorted(labels, part.indices) + left + 1, np.full(right, sink)])
    outgoing = np.concatenate([[left], degrees, np.ones(right, degrees.dtype), [0]])
    starts = np.concatenate([[0], np.cumsum(outgoing)])
    network = csr_array((np.ones(len(heads), np.int32), heads.astype(np.int32), starts.astype(np.int32)), shape=(sink + 1, sink + 1))
    return int(maximum_flow(network, 0, sink).flow_value)
