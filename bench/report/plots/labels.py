"""Place short labels beside the points of a plot: a choice among fixed candidates, the same picture every time.

Force-directed packages push labels off points but not off error bars, steps and joining lines, and stop by wall-clock time. Here everything
drawn becomes weighted pixels, and a label takes the candidate place that covers the least of them. Leaders must be followed by eye: one
that runs along a line or through another leader or label costs as much as covering something. Labels are placed one by one, the most
crowded first; then each moves again, with the others where they are, and two that are in each other's way move together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke

_ANGLES_DEGREES = (45, 135, 90, 0, -45, 180, -90, -135, 67, 113, 22, -22, 158, -67, -113, -158)
_RADII_POINTS = (8.0, 10.0, 13.0, 17.0, 22.0, 28.0, 36.0, 46.0, 58.0, 72.0)
_LEADER_FROM_POINTS = 13.0
_LINE_WEIGHT, _MARKER_WEIGHT, _LABEL_WEIGHT, _OUTSIDE_WEIGHT = 1.0, 4.0, 400.0, 400.0
_CROSSED_WEIGHT = 60.0
"""Of a leader through a label, or through another leader."""

_OVERDRAWN_WEIGHT = 1.5
"""Of two points of a leader that lie on something drawn: one that crosses a line has about two, one along an error bar all of its own."""

_FAR_WEIGHT = 0.005
"""Of the square of a label's further distance in points: rather over one thin interval than where it takes a search to find its point."""

_LEFT_OUT_FROM = 400.0
_ROUNDS, _PAIRED_PLACES = 4, 32
"""How often every label may move again, and the best places of each of two labels that move together."""


@dataclass(frozen=True)
class _Places:
    """Where one label may stand.

    Attributes:
        offsets: (k, 2) from the point to the middle of the label, pixels.
        boxes: (k, 4) left, bottom, right, top in pixels, with a margin.
        leaders: (k, s, 2) pixels along the leader, NaN where there is none.
        costs: (k,) of what lies in each place whatever the other labels do.
    """

    offsets: np.ndarray
    boxes: np.ndarray
    leaders: np.ndarray
    costs: np.ndarray

    def at(self, chosen: Sequence[int] | np.ndarray) -> "_Places":
        """Return some of the places."""
        return _Places(self.offsets[chosen], self.boxes[chosen], self.leaders[chosen], self.costs[chosen])


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
    if not len(texts):
        return
    scale = axes.figure.dpi / 72
    points = axes.transData.transform(np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)]))
    renderer, font = axes.figure.canvas.get_renderer(), FontProperties(size=size)
    widths = [renderer.get_text_width_height_descent(text, font, ismath=False)[0] for text in texts]
    drawn, frame = _drawn_pixels(axes, step=2 * scale), axes.get_window_extent().extents
    candidates = [
        _places(point, np.array([0.5 * width, 0.55 * size * scale]), drawn, frame, scale)
        for point, width in zip(points, widths, strict=True)
    ]
    crowd = [(np.hypot(*(points - point).T) < 25 * scale).sum() for point in points]
    for index, place in sorted(_choose(candidates, sorted(range(len(texts)), key=lambda position: -crowd[position])).items()):
        own = candidates[index]
        leader = {"arrowstyle": "-", "color": "0.55", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2.5}
        axes.annotate(
            texts[index], (x[index], y[index]), xytext=own.offsets[place] / scale, textcoords="offset points", ha="center",
            va="center_baseline", fontsize=size, color=colors[index], zorder=6,
            arrowprops=leader if np.isfinite(own.leaders[place]).any() else None,
            path_effects=[withStroke(linewidth=1.8, foreground="white")],
        )  # fmt: skip


def _places(point: np.ndarray, half: np.ndarray, drawn: tuple[np.ndarray, np.ndarray], frame: np.ndarray, scale: float) -> _Places:
    """Return the places of a label of half a width and half a height around its point, all in pixels."""
    radii, angles = np.repeat(_RADII_POINTS, len(_ANGLES_DEGREES)), np.deg2rad(np.tile(_ANGLES_DEGREES, len(_RADII_POINTS)))
    offsets = radii[:, None] * scale * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    offsets[:, 0] += np.cos(angles) * (half[0] - half[1])
    boxes = np.concatenate([point + offsets - half, point + offsets + half], axis=1)
    count = int(2 * (max(_RADII_POINTS) * scale + half[0]) / (2 * scale))
    leaders = point + np.linspace(0, 1, count)[:, None] * offsets[:, None]
    hidden = ((leaders >= boxes[:, None, :2]) & (leaders <= boxes[:, None, 2:])).all(axis=2)  # the text covers its leader's end
    leaders[hidden | (radii < _LEADER_FROM_POINTS)[:, None]] = np.nan
    outside = (boxes[:, :2] < frame[:2]).any(axis=1) | (boxes[:, 2:] > frame[2:]).any(axis=1)
    boxes = boxes + 0.6 * scale * np.array([-1, -1, 1, 1])  # so that two labels are 1.2 points apart
    pixels, weights = drawn
    costs = np.array([weights[((pixels > box[:2]) & (pixels < box[2:])).all(axis=1)].sum() for box in boxes])
    further = radii - _RADII_POINTS[0]
    costs += (
        _OUTSIDE_WEIGHT * outside
        + 0.25 * further
        + _FAR_WEIGHT * further**2
        + 0.02 * np.tile(np.arange(len(_ANGLES_DEGREES)), len(_RADII_POINTS))
    )
    return _Places(offsets, boxes, leaders, costs + _OVERDRAWN_WEIGHT * _overdrawn(leaders, point, pixels, scale))


def _overdrawn(leaders: np.ndarray, point: np.ndarray, pixels: np.ndarray, scale: float) -> np.ndarray:
    """Return how much of each leader, in steps of two points, lies on something drawn, the surroundings of its own marker left out."""
    if not len(pixels):
        return np.zeros(len(leaders))
    cell = 2 * scale
    cells = np.floor(pixels / cell).astype(int)
    low = cells.min(axis=0) - 1
    taken = np.zeros(cells.max(axis=0) - low + 2, dtype=bool)
    for shift in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):  # as near as this it looks like one line
        taken[tuple((cells - low + shift).T)] = True
    away = np.hypot(*np.moveaxis(leaders - point, 2, 0)) > 5 * scale  # False for NaN
    at = np.floor(np.where(away[..., None], leaders, point) / cell).astype(int) - low
    inside = away & ((at >= 0) & (at < taken.shape)).all(axis=2)
    at = np.where(inside[..., None], at, 0)
    steps = np.nanmax(np.hypot(*np.moveaxis(leaders[:, :2] - point, 2, 0)), axis=1, initial=0.0)
    return (taken[at[..., 0], at[..., 1]] & inside).sum(axis=1) * steps / cell


def _choose(candidates: Sequence[_Places], order: Sequence[int]) -> dict[int, int]:
    """Return the place of each label that has one, by number.

    Args:
        candidates: The places of each label.
        order: The order in which labels are placed first.
    """
    chosen: dict[int, int] = {}

    def crowding(index: int, *, besides: int | None = None) -> np.ndarray:
        own, total = candidates[index], candidates[index].costs.copy()
        for other, place in chosen.items():
            if other not in (index, besides):
                total += _conflicts(own, candidates[other], place)
        return total

    for _ in range(1 + _ROUNDS):
        before = dict(chosen)
        for index in order:
            total = crowding(index)
            chosen.pop(index, None)
            if total.min() < _LEFT_OUT_FROM:
                chosen[index] = int(total.argmin())
        for first, second in [(a, b) for place, a in enumerate(order) for b in order[place + 1 :] if a in chosen and b in chosen]:
            if _conflicts(candidates[first].at([chosen[first]]), candidates[second], chosen[second])[0]:
                chosen[first], chosen[second] = _together(candidates, first, second, crowding)
        if chosen == before:
            break
    return chosen


def _together(candidates: Sequence[_Places], first: int, second: int, crowding: Callable[..., np.ndarray]) -> tuple[int, int]:
    """Return the best places of two labels that are in each other's way, as when their leaders cross."""
    costs = {index: crowding(index, besides=other) for index, other in ((first, second), (second, first))}
    best = {index: np.argsort(cost, kind="stable")[:_PAIRED_PLACES] for index, cost in costs.items()}
    own = candidates[first].at(best[first])
    both = np.stack([_conflicts(own, candidates[second], place) + costs[second][place] for place in best[second]], axis=1)
    at = np.unravel_index((both + costs[first][best[first], None]).argmin(), both.shape)
    return int(best[first][at[0]]), int(best[second][at[1]])


def _conflicts(own: _Places, others: _Places, place: int) -> np.ndarray:
    """Return, for each place of a label, what another one in its place costs: text on text, a leader through a text, crossed leaders."""
    box, leader = others.boxes[place], others.leaders[place]
    leader = leader[np.isfinite(leader).all(axis=1)]
    clash = ((own.boxes[:, :2] < box[2:]) & (own.boxes[:, 2:] > box[:2])).all(axis=1)
    through = ((own.leaders > box[:2]) & (own.leaders < box[2:])).all(axis=2).any(axis=1)
    cost = _LABEL_WEIGHT * clash + _CROSSED_WEIGHT * through
    if len(leader):
        covered = ((leader > own.boxes[:, None, :2]) & (leader < own.boxes[:, None, 2:])).all(axis=2).any(axis=1)
        cost += _CROSSED_WEIGHT * (covered + 1.0 * _crossed(own.leaders, leader))
    return cost


def _crossed(leaders: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return which of some leaders, (k, s, 2) with NaN where nothing is drawn, cross another one, (t, 2)."""
    known = np.isfinite(leaders).all(axis=2)
    last = leaders[np.arange(len(leaders)), np.maximum(known.sum(axis=1) - 1, 0)]

    def side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
        along, across = end - start, point - start
        return along[..., 0] * across[..., 1] - along[..., 1] * across[..., 0]

    start = leaders[:, 0]
    apart = (side(start, last, other[0]) * side(start, last, other[-1]) < 0) & (
        side(other[0], other[-1], start) * side(other[0], other[-1], last) < 0
    )
    return apart  # False for NaN


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
