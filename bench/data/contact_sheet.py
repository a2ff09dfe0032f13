"""Eight images of a split with all their labels in colour, and a legend, on one PNG."""

import io
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


def contact_sheet(data: RawSplit) -> bytes:
    """Draw eight evenly spaced images of a split, one a row, with every label it has, as PNG."""
    from matplotlib.figure import Figure

    kinds = {task: DATA_SETS[data.layout.name][task].label for task in data.tasks}
    samples = [data[index] for index in spaced(len(data), SHOWN)]
    figure = Figure(figsize=(2.3 * (len(kinds) + 1), 1.85 * len(samples) + 1.1), dpi=130, layout="constrained")
    grid, legend = figure.subfigures(2, 1, height_ratios=[1.85 * len(samples), 1.1])
    axes = grid.subplots(len(samples), len(kinds) + 1, squeeze=False)
    for row, sample in zip(axes, samples, strict=True):
        shown = {"image": sample["image"]} | {task: coloured(kind, thick(task, sample[task])) for task, kind in kinds.items()}
        for ax, (name, picture) in zip(row, shown.items(), strict=True):
            ax.imshow(picture, interpolation="nearest")
            ax.set_axis_off()
            if sample is samples[0]:
                ax.set_title("Image" if name == "image" else TASKS[name].title, fontsize=11)
        row[0].text(0, -0.02, sample["id"], transform=row[0].transAxes, fontsize=6, va="top")
    _legend(legend, data.layout.name, samples, kinds)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


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
