"""Place short labels beside the points of a plot: a greedy choice among fixed candidates, the same picture every time.

Force-directed packages push labels off points but not off error bars, steps and joining lines, and stop by wall-clock time. Here everything
drawn becomes weighted pixels, and a label takes the candidate place that covers the least of them.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke

_ANGLES_DEGREES = (45, 135, 90, 0, -45, 180, -90, -135, 67, 113, 22, -22, 158, -67, -113, -158)
_RADII_POINTS = (8.0, 10.0, 13.0, 17.0, 22.0, 28.0, 36.0, 46.0, 58.0, 72.0)
_LEADER_FROM_POINTS = 13.0
_LINE_WEIGHT, _LEADER_WEIGHT, _MARKER_WEIGHT, _LABEL_WEIGHT, _OUTSIDE_WEIGHT = 1.0, 3.0, 4.0, 400.0, 400.0
_CROSSED_WEIGHT = 60.0
_LEFT_OUT_FROM = 400.0


def place_labels(axes: Axes, *, x: Sequence[float], y: Sequence[float], texts: Sequence[str], colors: Sequence, size: float) -> None:
    """Write a text near each point where it covers as little as can be of what is drawn; a text further away gets a thin leader.

    A text that has no place but on another text, or across another's leader, is left out: two texts over each other tell less than one.

    Args:
        axes: Axes whose layout and limits are final.
        x: (n,) positions in data units.
        y: (n,) positions in data units.
        texts: (n,) labels.
        colors: (n,) colours of the labels.
        size: Font size in points.
    """
    scale = axes.figure.dpi / 72
    drawn, weights = _drawn_pixels(axes, step=2 * scale)
    frame = axes.get_window_extent().extents
    points = (
        axes.transData.transform(np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)]))
        if len(texts)
        else np.empty((0, 2))
    )
    crowd = [(np.hypot(*(points - point).T) < 25 * scale).sum() for point in points]
    renderer, font = axes.figure.canvas.get_renderer(), FontProperties(size=size)

    def wide(text: str) -> tuple[float, float, float]:
        return renderer.get_text_width_height_descent(text, font, ismath=False)

    placed: list[np.ndarray] = []
    leaders: list[np.ndarray] = []
    for index in sorted(range(len(texts)), key=lambda position: -crowd[position]):
        half = np.array([0.5 * wide(texts[index])[0], 0.55 * size * scale])
        best = None
        for radius in _RADII_POINTS:
            for rank, angle in enumerate(np.deg2rad(_ANGLES_DEGREES)):
                offset = radius * scale * np.array([np.cos(angle), np.sin(angle)]) + np.array([np.cos(angle) * (half[0] - half[1]), 0])
                box = np.concatenate([points[index] + offset - half, points[index] + offset + half])
                cost = _cost(box, drawn, weights, placed, frame, margin=1.2 * scale) + 0.25 * (radius - _RADII_POINTS[0]) + 0.02 * rank
                line = _leader(points[index], box, 2 * scale) if radius >= _LEADER_FROM_POINTS else points[:0]
                crossed = _crossings(line, placed) + sum(bool(_crossings(other, [box])) for other in leaders)
                if best is None or cost + _CROSSED_WEIGHT * crossed < best[0]:
                    best = (cost + _CROSSED_WEIGHT * crossed, radius, offset, box, line)
        cost, radius, offset, box, line = best
        if cost >= _LEFT_OUT_FROM:
            continue
        placed.append(box)
        if len(line):
            leaders.append(line)
            drawn, weights = np.concatenate([drawn, line]), np.append(weights, np.full(len(line), _LEADER_WEIGHT))
        leader = {"arrowstyle": "-", "color": "0.55", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2.5}
        axes.annotate(
            texts[index], (x[index], y[index]), xytext=offset / scale, textcoords="offset points", ha="center", va="center_baseline",
            fontsize=size, color=colors[index], zorder=6, arrowprops=leader if radius >= _LEADER_FROM_POINTS else None,
            path_effects=[withStroke(linewidth=1.8, foreground="white")],
        )  # fmt: skip


def _leader(point: np.ndarray, box: np.ndarray, step: float) -> np.ndarray:
    """Return points along the leader from a point to the middle of its label's box."""
    return _along(np.stack([point, (box[:2] + box[2:]) / 2]), step)


def _crossings(line: np.ndarray, boxes: Sequence[np.ndarray]) -> int:
    """Count the boxes that a leader runs through."""
    return sum(bool(((line > box[:2]) & (line < box[2:])).all(axis=1).any()) for box in boxes)


def _cost(box: np.ndarray, drawn: np.ndarray, weights: np.ndarray, placed: list[np.ndarray], frame: np.ndarray, *, margin: float) -> float:
    """Return how much a label in `box` (left, bottom, right, top in pixels) would cover."""
    low, high = box[:2] - margin, box[2:] + margin
    covered = weights[((drawn > low) & (drawn < high)).all(axis=1)].sum()
    clashes = sum(bool((low < other[2:]).all() and (high > other[:2]).all()) for other in placed)
    outside = bool((box[:2] < frame[:2]).any() or (box[2:] > frame[2:]).any())
    return covered + _LABEL_WEIGHT * clashes + _OUTSIDE_WEIGHT * outside


def _drawn_pixels(axes: Axes, *, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Sample lines, error bars and markers.

    Args:
        axes: Axes whose layout is final.
        step: Distance of samples in pixels.

    Returns:
        (m, 2) positions in pixels and (m,) weights.
    """
    samples, weights = [], []
    for line in axes.lines:
        path = line.get_transform().transform(np.column_stack([np.asarray(part, dtype=float) for part in line.get_data()]))
        if line.get_linestyle() != "None":
            samples.append(_along(path, step))
            weights.append(np.full(len(samples[-1]), _LINE_WEIGHT))
        if line.get_marker() not in ("None", None, ""):
            reach = 0.55 * line.get_markersize() * axes.figure.dpi / 72
            grid = np.stack(np.meshgrid(*[np.linspace(-reach, reach, 5)] * 2), axis=-1).reshape(-1, 2)
            samples.append((path[:, None] + grid).reshape(-1, 2))
            weights.append(np.full(len(samples[-1]), _MARKER_WEIGHT))
    for collection in axes.collections:
        if isinstance(collection, LineCollection):
            for segment in collection.get_segments():
                samples.append(_along(collection.get_transform().transform(segment), step))
                weights.append(np.full(len(samples[-1]), _LINE_WEIGHT))
    return (np.concatenate(samples), np.concatenate(weights)) if samples else (np.empty((0, 2)), np.empty(0))


def _along(path: np.ndarray, step: float) -> np.ndarray:
    """Return points along a polyline of (k, 2) pixels, `step` apart at most; horizontal and vertical reference lines too."""
    parts = [path[:1]]
    for start, end in pairwise(path):
        count = min(int(np.hypot(*(end - start)) / step) + 2, 2000)
        parts.append(start + np.linspace(0, 1, count)[:, None] * (end - start))
    return np.concatenate(parts)
