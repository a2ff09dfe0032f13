"""Qualitative panels: the same validation images, per task and row, with ground truth and error maps, as RGB arrays.

The pictures come from the files that `bench.measure.panels` describes (uint8, thinned); of every row the lowest seed that has them is
shown. Which images, is fixed before training, by their labels alone (`bench.data.shown`); nothing is picked by how a prediction looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np

from bench.record import RecordError, read_arrays
from bench.tasks import IGNORE

WHITE = 255
_RIGHT, _WRONG = (225, 225, 225), (213, 94, 0)
_UNKNOWN = (150, 170, 200)
"""Colour of ignored pixels in maps where white means something."""

ANGLE_LIMIT_DEG = 45.0
DEPTH_STEPS_PER_METRE = 25
DEPTH_ERROR_LIMIT_METRES = 1.0
ERRORS = {
    "classes": "orange: wrong class; blue-grey: no label",
    "binary": "darker: further from the label",
    "normals": f"darker: larger angle, black from {ANGLE_LIMIT_DEG:g}°; blue-grey: no label",
    "depth": f"darker: larger error, black from {DEPTH_ERROR_LIMIT_METRES:g} m; blue-grey: no label",
}
"""How an error map reads, per kind of label."""

UNITS = {"classes": " % wrong", "binary": " % wrong at 0.5", "normals": "° on average", "depth": " m on average"}


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One row's pictures of one task.

    Attributes:
        label, task, kind: Row, task and kind of its labels.
        run_id: The trial that predicted.
        ids: (n,) image ids.
        images, truth, prediction, error: n uint8 RGB pictures (h, w, 3) each.
        errors: (n,) error of an image at this resolution, unit in `UNITS`; None where nothing is labelled.
    """

    label: str
    task: str
    kind: str
    run_id: str
    ids: tuple[str, ...]
    images: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    error: np.ndarray
    errors: tuple[float | None, ...]


def load_panels(plan: Mapping, records: Sequence[Mapping], directory: Path) -> list[Panel]:
    """Return the panels of every row and task whose trials kept predictions, in the order of the plan.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: As `bench.record.load_records` returns them.
        directory: `results/<suite>/records`.
    """
    by_id, panels = {record["run_id"]: record for record in records}, []
    for row in plan["rows"]:
        own = sorted((by_id[run_id] for run_id in row["run_ids"] if run_id in by_id), key=lambda record: record["seed"])
        kept = [record for record in own if record["status"] == "ok" and record.get("panels") and (directory / record["panels"]).exists()]
        for task in row["tasks"]:
            record = next((record for record in kept if task in record["tasks"]), None)
            if record is not None:
                panels.append(_panel(row["label"], task, record, directory))
    return [panel for panel in panels if panel is not None]


def _panel(label: str, task: str, record: Mapping, directory: Path) -> Panel | None:
    """Read one panel; None where the scenes' files are gone or damaged, which `bench.report.loading` names."""
    own = read_arrays(directory / record["panels"])
    scenes = [directory / f"{own['scenes']}-{what}.npz" for what in ("image", task)]
    if f"{task}/prediction" not in own or not all(path.exists() for path in scenes):
        return None
    try:
        images, labels = (read_arrays(path)["map"] for path in scenes)
    except RecordError:
        return None
    kind, prediction = str(own[f"{task}/kind"]), own[f"{task}/prediction"]
    pictures = [error_map(kind, guess, truth) for guess, truth in zip(prediction, labels, strict=True)]
    return Panel(
        label=label,
        task=task,
        kind=kind,
        run_id=record["run_id"],
        ids=tuple(str(name) for name in own["id"]),
        images=images,
        truth=colours(kind, labels, is_label=True),
        prediction=colours(kind, prediction, is_label=False),
        error=np.stack([picture for picture, _ in pictures]),
        errors=tuple(error for _, error in pictures),
    )


def colours(kind: str, maps: np.ndarray, *, is_label: bool) -> np.ndarray:
    """Turn uint8 maps (..., h, w), normals (..., h, w, 3), into RGB (..., h, w, 3); ignored pixels of labels are white or bluish grey."""
    if kind == "normals":
        ignored = (maps == 0).all(axis=-1, keepdims=True)
        return np.where(ignored, WHITE, maps).astype(np.uint8)
    if kind == "classes":
        return np.where((maps == IGNORE)[..., None], WHITE, class_colours()[maps]).astype(np.uint8)
    if kind == "depth":
        table = (255 * mpl.colormaps["viridis"](np.linspace(0, 1, 256))[:, :3]).astype(np.uint8)
        return np.where((maps == 0)[..., None] & is_label, WHITE, table[maps]).astype(np.uint8)
    grey = np.where(maps == 1, 255, 0) if is_label else maps
    return np.where((maps == IGNORE)[..., None] & is_label, _UNKNOWN, grey[..., None]).astype(np.uint8)


def class_colours() -> np.ndarray:
    """Return a colour an index, (256, 3) uint8: the bits of the index spread over the three channels, so that neighbours differ much."""
    index, table = np.arange(256), np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            table[:, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit) if 3 * bit + channel < 8 else 0
    return table.astype(np.uint8)


def error_map(kind: str, prediction: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Return the picture of one image's error, (h, w, 3) uint8, and the error itself, see `UNITS`; ignored pixels are bluish grey."""
    if kind == "classes":
        valid, wrong = label != IGNORE, prediction != label
        picture = np.where(wrong[..., None], _WRONG, _RIGHT)
        values = 100.0 * wrong
    elif kind == "binary":
        valid = label != IGNORE
        distance = np.abs(prediction / 255 - label)
        picture, values = _dark(distance), 100.0 * ((prediction > 127) != (label == 1))
    elif kind == "normals":
        valid, values = (label != 0).any(axis=-1), angle_deg(prediction, label)
        picture = _dark(values / ANGLE_LIMIT_DEG)
    else:
        valid, values = label > 0, np.abs(prediction.astype(float) - label) / DEPTH_STEPS_PER_METRE
        picture = _dark(values / DEPTH_ERROR_LIMIT_METRES)
    picture = np.where(valid[..., None], picture, _UNKNOWN).astype(np.uint8)
    return picture, float(values[valid].mean()) if valid.any() else None


def angle_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the angle between normals encoded as uint8 (h, w, 3), degrees (h, w)."""
    vectors = [array / 127.5 - 1 for array in (first, second)]
    dot = np.einsum("hwc,hwc->hw", *vectors) / np.maximum(np.prod([np.linalg.norm(vector, axis=-1) for vector in vectors], axis=0), 1e-9)
    return np.degrees(np.arccos(np.clip(dot, -1, 1)))


def _dark(share: np.ndarray) -> np.ndarray:
    """Return a grey picture (h, w, 3), white where the share is 0 and black where it is 1 or more."""
    return np.repeat((255 * (1 - np.clip(share, 0, 1)))[..., None], 3, axis=-1)
