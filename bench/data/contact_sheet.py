"""Eight images of a split with all their labels in colour, and a legend, on one PNG.

The images are chosen by what they show: every task that has labels in any image looked at appears, and as many panels as possible hold
something; among images that show the same tasks the choice is even over the split. The same data gives the same sheet.
"""

import io
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from bench.data.reader import RawSplit
from bench.data.synthetic.writer import voc_palette
from bench.tasks import DATA_SETS, IGNORE, TASKS

SHOWN = 8
CLASS_NAMES = {
    "pascal_context": {
        "semseg": [
            "background",
            "aeroplane",
            "bicycle",
            "bird",
            "boat",
            "bottle",
            "bus",
            "car",
            "cat",
            "chair",
            "cow",
            "diningtable",
            "dog",
            "horse",
            "motorbike",
            "person",
            "pottedplant",
            "sheep",
            "sofa",
            "train",
            "tvmonitor",
        ],
        "human_parts": ["background", "head", "torso", "upper arms", "lower arms", "upper legs", "lower legs"],
    },
    "nyud": {
        "semseg": [
            "wall",
            "floor",
            "cabinet",
            "bed",
            "chair",
            "sofa",
            "table",
            "door",
            "window",
            "bookshelf",
            "picture",
            "counter",
            "blinds",
            "desk",
            "shelves",
            "curtain",
            "dresser",
            "pillow",
            "mirror",
            "floor-mat",
            "clothes",
            "ceiling",
            "books",
            "refrigerator",
            "television",
            "paper",
            "towel",
            "shower-curtain",
            "box",
            "whiteboard",
            "person",
            "night-stand",
            "toilet",
            "sink",
            "lamp",
            "bathtub",
            "bag",
            "other-structure",
            "other-furniture",
            "other-prop",
        ],
    },
}
_IGNORED = (222, 222, 222)
_LARGEST_DEPTH = 10.0


def spaced(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` evenly spaced indices below `count`."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int)).tolist()


def coloured(kind: str, label: np.ndarray) -> np.ndarray:
    """Colour a label, see `bench.tasks`, as uint8 (h, w, 3); light grey where it is ignored."""
    if kind == "classes":
        palette = np.array(voc_palette(), np.uint8).reshape(256, 3)
        palette[0], palette[IGNORE] = (40, 40, 40), _IGNORED
        return palette[label]
    if kind == "binary":
        return np.array([(40, 40, 40), (255, 196, 0), _IGNORED], np.uint8)[np.where(label == IGNORE, 2, label)]
    if kind == "normals":
        return np.where(label.any(axis=2, keepdims=True), 127.5 * (label + 1), _IGNORED).round().astype(np.uint8)
    from matplotlib import colormaps

    colours = (255 * colormaps["viridis_r"](np.clip(label / _LARGEST_DEPTH, 0, 1))[..., :3]).astype(np.uint8)
    return np.where((label > 0)[..., None], colours, np.array(_IGNORED, np.uint8))


def thick(task: str, label: np.ndarray) -> np.ndarray:
    """Draw lines three pixels wide, so that they survive being shown small; leave all other labels."""
    return cv2.dilate(label, np.ones((3, 3), np.uint8)) if task == "edges" else label


def telling(shows: np.ndarray, wanted: int) -> list[int]:
    """Choose rows so that every column which any row has is there, and as many entries as possible are True.

    Args:
        shows: bool (images, tasks): whether an image shows anything of a task. Tasks are few (the work grows as 4 to their number).
        wanted: How many to choose; all where there are fewer. At least the number of tasks.

    Returns:
        Indices of images, in order.
    """
    alike: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(shows):
        alike[sum(1 << task for task in np.flatnonzero(row))].append(index)
    # Most panels for every pair of (tasks covered, images taken), pattern after pattern: a knapsack, so that no choice is better.
    best: dict[tuple[int, int], tuple[int, tuple[tuple[int, int], ...]]] = {(0, 0): (0, ())}
    for pattern in sorted(alike, key=lambda pattern: (-pattern.bit_count(), pattern)):
        for (covered, taken), (panels, picks) in list(best.items()):
            for more in range(1, min(len(alike[pattern]), wanted - taken) + 1):
                reached = (covered | pattern, taken + more)
                gained = panels + more * pattern.bit_count()
                if gained > best.get(reached, (-1, ()))[0]:
                    best[reached] = gained, (*picks, (pattern, more))
    count = min(wanted, len(shows))
    covered = max((key[0] for key in best if key[1] == count), key=lambda tasks: (tasks.bit_count(), best[tasks, count][0]))
    return sorted(alike[pattern][place] for pattern, more in best[covered, count][1] for place in spaced(len(alike[pattern]), more))


def emptiness(kind: str, label: np.ndarray) -> str | None:
    """Say why a label shows nothing, see `bench.tasks`; None where it shows something."""
    if kind == "binary":
        return None if (label == 1).any() else "no label" if (label == IGNORE).all() else "no foreground"
    return None if (label != IGNORE if kind == "classes" else label > 0 if kind == "depth" else label != 0).any() else "no label"


def contact_sheet(data: RawSplit, indices: Sequence[int] | None = None) -> bytes:
    """Draw images of a split, one a row, with every label it has, as PNG; a panel without a label says so.

    Args:
        data: The split.
        indices: Of the images; by default eight, evenly spaced.
    """
    from matplotlib.figure import Figure

    kinds = {task: DATA_SETS[data.layout.name][task].label for task in data.tasks}
    samples = [data[index] for index in (spaced(len(data), SHOWN) if indices is None else indices)]
    figure = Figure(figsize=(2.3 * (len(kinds) + 1), 1.85 * len(samples) + 1.1), dpi=130, layout="constrained")
    grid, legend = figure.subfigures(2, 1, height_ratios=[1.85 * len(samples), 1.1])
    axes = grid.subplots(len(samples), len(kinds) + 1, squeeze=False)
    for ax, name in zip(axes[0], ("image", *kinds), strict=True):
        ax.set_title("Image" if name == "image" else TASKS[name].title, fontsize=11)
    for row, sample in zip(axes, samples, strict=True):
        row[0].imshow(sample["image"], interpolation="nearest")
        row[0].text(0, -0.02, sample["id"], transform=row[0].transAxes, fontsize=6, va="top")
        for ax, (task, kind) in zip(row[1:], kinds.items(), strict=True):
            _panel(ax, coloured(kind, thick(task, sample[task])), emptiness(kind, sample[task]))
        for ax in row:
            ax.set_axis_off()
    _legend(legend, data.layout.name, samples, kinds)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _panel(ax: Any, picture: np.ndarray, empty: str | None) -> None:
    ax.imshow(picture if empty is None else np.full_like(picture, 248), interpolation="nearest")
    if empty is not None:
        ax.text(0.5, 0.5, empty, transform=ax.transAxes, fontsize=9, color="0.35", ha="center", va="center")


def _legend(figure: Any, layout: str, samples: list[dict[str, Any]], kinds: dict[str, str]) -> None:
    """Explain the colours: the classes that the sheet shows, and what stands for edges, normals and depth."""
    from matplotlib.patches import Patch

    lines, left = [task for task, kind in kinds.items() if kind == "classes"], 0.0
    for task in lines:
        shown = np.unique(np.concatenate([sample[task].ravel() for sample in samples]))
        names = [(k, CLASS_NAMES[layout][task][k]) for k in shown.tolist() if k != IGNORE]
        handles = [Patch(facecolor=coloured("classes", np.array([[k]], np.uint8))[0, 0] / 255, label=name) for k, name in names]
        figure.legend(handles=handles, title=TASKS[task].title, ncols=6 if len(names) > 8 else 2, fontsize=7, title_fontsize=8,
                      loc="upper left", bbox_to_anchor=(left, 1.0), frameon=False)  # fmt: skip
        left += 0.55
    text = ["Light grey: ignored."]
    if "normals" in kinds:
        text.append("Normals: red x (right), green y (down), blue z (towards the viewer).")
    if "depth" in kinds:
        text.append("Depth: yellow near, violet 10 m.")
    figure.text(0.01, 0.02, " ".join(text), fontsize=8)
