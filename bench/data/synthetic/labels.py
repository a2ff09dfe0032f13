"""Labels of a rendered scene: class map with void borders, context map, visible parts, graded saliency."""

from dataclasses import dataclass

import numpy as np

from bench.data.synthetic.objects import CLASSES
from bench.data.synthetic.scenery import CONTEXT_IDS

VOID = 255
CONTEXT_OF_CLASS = (0, 2, 23, 25, 31, 34, 45, 59, 65, 72, 98, 397, 113, 207, 258, 284, 308, 347, 368, 416, 427)
"""PASCAL-Context id of each VOC class, background first."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A named part of an object.

    Attributes:
        name: PASCAL-Part name.
        mask: (h, w) bool, its visible pixels.
    """

    name: str
    mask: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A visible object.

    Attributes:
        class_id: 1 .. 20, VOC order.
        mask: (h, w) bool, its visible pixels.
        parts: Its visible parts; empty where it is not annotated.
    """

    class_id: int
    mask: np.ndarray
    parts: tuple[Part, ...]

    @property
    def class_name(self) -> str:
        """The VOC name."""
        return CLASSES[self.class_id][0]


def void_borders(instances: np.ndarray, width: int) -> np.ndarray:
    """Find the band along the borders of objects.

    Args:
        instances: (h, w) int, number of the object at each pixel, -1 for scenery.
        width: Width of the band, pixels.

    Returns:
        (h, w) bool: the pixels with a neighbour of another number at most (width + 1) // 2 rows or columns away below or to the right, or
        width // 2 above or to the left.
    """
    border = np.zeros(instances.shape, dtype=bool)
    for axis in (0, 1):
        moved, edges = np.moveaxis(instances, axis, 0), np.moveaxis(border, axis, 0)
        for step in range(1, (width + 1) // 2 + 1):
            differs = moved[:-step] != moved[step:]
            edges[:-step] |= differs
            if step <= width // 2:
                edges[step:] |= differs
    return border


def class_map(instances: np.ndarray, class_ids: list[int]) -> np.ndarray:
    """Return the semantic segmentation (h, w) uint8, 0..20, VOID along object borders (5 pixels wide at 500 pixels, at least one)."""
    lookup = np.array([*class_ids, 0], dtype=np.uint8)
    semseg = lookup[instances]
    semseg[void_borders(instances, max(1, round(max(instances.shape) / 100)))] = VOID
    return semseg


def context_map(owner: np.ndarray, class_ids: list[int], scenery: list[str]) -> np.ndarray:
    """Return the LabelMap (h, w) uint16.

    Args:
        owner: (h, w) int, the model at each pixel: objects first, then pieces of scenery, -1 for the sky.
        class_ids: Class of each object.
        scenery: Name of each piece of scenery.
    """
    ids = [CONTEXT_OF_CLASS[c] for c in class_ids] + [CONTEXT_IDS[name] for name in scenery] + [CONTEXT_IDS["sky"]]
    return np.array(ids, dtype=np.uint16)[owner]


def visible_instances(
    instances: np.ndarray, part_numbers: np.ndarray, part_names: list[str | None], class_ids: list[int], bare: list[bool]
) -> list[Instance]:
    """Collect the objects that show at least one pixel.

    Args:
        instances: (h, w) int, object at each pixel, -1 for scenery.
        part_numbers: (h, w) int, primitive at each pixel, an index into `part_names` where it belongs to an object.
        part_names: PASCAL-Part name of each primitive, None for what has none.
        class_ids: Class of each object.
        bare: Whether an object goes without annotated parts.
    """
    names = list(dict.fromkeys(name for name in part_names if name is not None))
    code_of = np.array([names.index(name) if name is not None else -1 for name in part_names])
    found = []
    for number, class_id in enumerate(class_ids):
        mask = instances == number
        if not mask.any():
            continue
        codes = np.full(mask.shape, -1)
        if not bare[number]:
            codes[mask] = code_of[part_numbers[mask]]
        shown = np.flatnonzero(np.bincount(codes[mask] + 1, minlength=len(names) + 1)[1:])
        parts = tuple(Part(name=names[code], mask=codes == code) for code in shown)
        found.append(Instance(class_id=class_id, mask=mask, parts=_whole_head(parts)))
    return found


def _whole_head(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Let `head` cover what lies on it, as in PASCAL-Part, and come first."""
    on_head = [p for p in parts if p.name in ("hair", "nose", "mouth", "leye", "reye", "lear", "rear", "beak")]
    head = [p for p in parts if p.name == "head"]
    if not head:
        return parts
    whole = np.logical_or.reduce([p.mask for p in head + on_head])
    return (Part(name="head", mask=whole), *(p for p in parts if p.name != "head"))


def saliency_map(instances: np.ndarray, depth: np.ndarray, count: int) -> np.ndarray:
    """Grade the objects: big, central and near ones are salient.

    Args:
        instances: (h, w) int, object at each pixel, -1 for scenery.
        depth: (h, w) float32, metres, inf for the sky.
        count: Number of objects.

    Returns:
        (h, w) uint8; soft edges, foreground where above 127.5.
    """
    height, width = instances.shape
    rows, columns = np.mgrid[0:height, 0:width]
    off_centre = np.maximum(np.abs(rows + 0.5 - height / 2) * 2 / height, np.abs(columns + 0.5 - width / 2) * 2 / width)
    saliency = (0.16 * (1 - off_centre)).astype(np.float32)
    masks = {number: instances == number for number in range(count)}
    masks = {number: mask for number, mask in masks.items() if mask.any()}
    distance = {number: float(np.median(depth[mask])) for number, mask in masks.items()}
    for number, mask in masks.items():
        size = min(1.0, float(np.sqrt(mask.mean() / 0.2)))
        central = 1 - float(off_centre[mask].mean())
        near = min(distance.values()) / distance[number]
        saliency[mask] = 0.08 + 0.45 * size + 0.27 * central + 0.2 * near
    padded = np.pad(saliency, 1, mode="edge")
    rows_mixed = (padded[:-2] + padded[2:]) * np.float32(0.25) + padded[1:-1] * np.float32(0.5)
    smooth = (rows_mixed[:, :-2] + rows_mixed[:, 2:]) * np.float32(0.25) + rows_mixed[:, 1:-1] * np.float32(0.5)
    return (np.clip(smooth, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
