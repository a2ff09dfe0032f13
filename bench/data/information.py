"""Whether the labels of a split tell anything: one class only, no foreground, or normals that all point one way teach nothing. No torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.data.findings import Finding
from bench.data.layout import Layout
from bench.data.pascal_files import normals_count
from bench.tasks import DATA_SETS, IGNORE

Shown = Mapping[str, frozenset[float]]
"""By task, what an image's labelled pixels show: classes, 0 and 1 of a binary label, octants of normals, least and largest depth."""

_REMEDY = {
    "classes": "look at the labels of this task: there is nothing to tell apart",
    "binary": "look at the labels of this task: there is nothing to tell apart",
    "saliency": "look at the values of this task's files: 0 is background, 255 foreground, and 128 or more count as foreground",
    "normals": "look at how these normals are coded: a component runs from -1 to 1, which 2 v - 1 makes of values in 0..1",
    "depth": "look at the labels of this task: there is nothing to tell apart",
}


def shown(layout: Layout, labels: Mapping[str, np.ndarray]) -> dict[str, frozenset[float]]:
    """Look at the labels of one image.

    Args:
        layout: Their layout.
        labels: By modality, as the readers of `bench.data.scan` return them; those that cannot be read are not in it.
    """
    found: dict[str, frozenset[float]] = {}
    for task, needed in layout.needed.items():
        kind, label = DATA_SETS[layout.name][task].label, labels.get(needed[0])
        if label is None or not label.size:
            continue
        if kind == "classes":
            values: Any = np.flatnonzero(np.bincount(label.ravel(), minlength=IGNORE + 1)[:IGNORE])
        elif kind == "binary" and needed[0] == "context":  # edges lie where classes meet
            values = {0, int(label.min() != label.max())}
        elif kind == "normals":
            values = _octants(label, labels.get("context"))
        else:
            known = label[label > 0] if kind == "depth" else label
            values = (known.min(), known.max()) if known.size else ()
        found[task] = frozenset(float(value) for value in values)
    return found


def _octants(normals: np.ndarray, context: np.ndarray | None) -> np.ndarray:
    """Return the octants, 0 to 7, into which the normals point, (h, w, 3) of bytes or vectors; bit by bit: x, y and z negative."""
    negative = normals < (128 if normals.dtype == np.uint8 else 0)
    octant = negative[..., 0] + 2 * negative[..., 1].view(np.uint8) + 4 * negative[..., 2].view(np.uint8)
    if normals.dtype != np.uint8:
        octant = octant[normals.any(axis=2)]
    elif context is not None and context.shape == octant.shape:
        octant = octant[normals_count(context)]
    return np.flatnonzero(np.bincount(octant.ravel(), minlength=8))


def information_findings(layout: Layout, split: str, images: Sequence[Shown]) -> list[Finding]:
    """Warn of every task of which all images of a split, taken together, show one thing only."""
    findings = []
    for task, kind in ((task, spec.label) for task, spec in DATA_SETS[layout.name].items()):
        seen = [one[task] for one in images if one.get(task)]
        values = frozenset[float]().union(*seen)
        if len(values) == 1:
            text = _said(task, kind, next(iter(values)), len(seen))
            findings.append(Finding(f"{split} {task} information", "warn", text, _REMEDY.get(task, _REMEDY[kind])))
    return findings


def _said(task: str, kind: str, value: float, count: int) -> str:
    if kind == "classes":
        return f"the labels of {count} images show one class of {task} only: {value:.0f}"
    if kind == "binary":
        return f"{100 * value:.0f} % of the pixels of {count} images are foreground of {task}"
    if kind == "normals":
        sign = "no component is negative" if value == 0 else "no component changes its sign"
        return f"the normals of {count} images all point into one octant: {sign}"
    return f"every depth of {count} images is {value:.4g}"
