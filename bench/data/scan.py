"""Read every file of a split once, in all cores: which are broken, which images lack labels, how much is void. No torch."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bench.data import nyud, pascal_files
from bench.data.depth_values import DepthScan, scan_depth
from bench.data.information import Shown, shown
from bench.data.layout import LAYOUTS, DataError, Layout
from bench.data.normal_values import NormalsScan, scan_normals
from bench.tasks import IGNORE
from bench.workers import pool as pool_of

IN_PROCESS = 64
"""Splits of fewer images are read in this process: starting others would take longer."""


class ImageScan(NamedTuple):
    """What one image's files hold.

    Attributes:
        problems: (modality, message) of every file that is broken, of other proportions than its image or out of range.
        labelled: By task, whether any pixel has a label; a task whose files are missing or broken is not in it.
        void: By task that can leave pixels out, the share of the pixels without a label.
        depth: What values a file of depth holds, None without one.
        normals: The same of an array of normals.
        size: Rows and columns, by the header where the image is cut short; None where there is none.
        shown: What the labelled pixels show, by task.
        resized: Rows and columns of the labels that have another size than their image and are brought to it, by modality.
    """

    problems: tuple[tuple[str, str], ...]
    labelled: dict[str, bool]
    void: dict[str, float]
    depth: DepthScan | None
    normals: NormalsScan | None
    size: tuple[int, int] | None
    shown: Shown
    resized: dict[str, tuple[int, int]]


def scan(
    layout: Layout, files: Sequence[Mapping[str, str | None]], progress: Callable[[int], None], processes: int | None = None
) -> list[ImageScan]:
    """Scan images.

    Args:
        layout: The layout that the files are of.
        files: One mapping an image, from modality to path, None where a file is missing.
        progress: Called with 1 after each image.
        processes: Worker processes; by default one a core, and none for few images.
    """
    processes = processes or (1 if len(files) < IN_PROCESS else os.cpu_count() or 1)
    work, found = partial(scan_image, layout.name), []

    def collect(results: Any) -> list[ImageScan]:
        for result in results:
            found.append(result)
            progress(1)
        return found

    if processes == 1:
        return collect(map(work, files))
    with pool_of(processes) as pool:
        return collect(pool.map(work, files, chunksize=16))


def scan_image(layout: str, files: Mapping[str, str | None]) -> ImageScan:
    """Read all files of one image, each on its own, so that one broken file hides no other.

    Labels must have the image's proportions; where no header tells its size either, they must agree with one another.
    """
    problems, labelled, void, shapes, labels = [], {}, {}, {}, {}
    size = depth = normals = None
    if files["image"] is not None:
        with _naming(problems, "image", files["image"]):
            size = pascal_files.read_image(files["image"]).shape[:2]
        size = size or pascal_files.header_size(files["image"])
    for modality, read in READERS[layout].items():
        path = files.get(modality)
        if path is None:
            continue
        with _naming(problems, modality, path):
            label = read(path)
            if label.size:  # parts of an image that shows no object have no size
                shapes[modality] = label.shape[:2]
                label = pascal_files.fitted(path, label, size)
            labels[modality] = label
            for task, has_label in LABELLED[layout].get(modality, {}).items():
                labelled[task] = bool(has_label(label))
            for task, ignored in VOID[layout].get(modality, {}).items():
                void[task] = float(ignored(label).mean()) if label.size else 1.0
            if modality == "depth":
                depth = scan_depth(nyud.read_array(path))
            elif read is nyud.read_normals:
                normals = scan_normals(nyud.read_array(path, channels=3))
    if size is None:
        problems += disagreeing(files, shapes)
    resized = {modality: shape for modality, shape in shapes.items() if modality in labels and size is not None and shape != size}
    return ImageScan(tuple(problems), labelled, void, depth, normals, size, shown(LAYOUTS[layout], labels), resized)


@contextmanager
def _naming(problems: list[tuple[str, str]], modality: str, path: str) -> Iterator[None]:
    """Turn whatever a file's reading raises into a problem: one that no reader foresaw must not end the check of all others."""
    try:
        yield
    except DataError as error:
        problems.append((modality, str(error)))
    except Exception as error:
        problems.append((modality, f"{path} cannot be read ({type(error).__name__}: {error}); replace it"))


def disagreeing(files: Mapping[str, str | None], shapes: Mapping[str, tuple[int, int]]) -> list[tuple[str, str]]:
    """Name the labels of an image of unknown size whose proportions are not those of most; all where none are.

    Args:
        files: Path by modality.
        shapes: Rows and columns of the labels that could be read, by modality.

    Returns:
        (modality, message) of each.
    """
    like = {modality: sum(pascal_files.alike(shape, other) for other in shapes.values()) for modality, shape in shapes.items()}
    most = max(like.values(), default=0)
    undecided = list(like.values()).count(most) > most  # several groups are the largest
    sizes = ", ".join(f"{modality} {height} x {width}" for modality, (height, width) in shapes.items())
    said = f"the labels of the image, whose own size is not known, differ in proportions (rows x columns): {sizes}; replace the file"
    return [(modality, f"{files[modality]}: {said}") for modality, count in like.items() if undecided or count < most]


def _any_class(label: np.ndarray) -> bool:
    return bool((label != IGNORE).any())


def _always(label: np.ndarray) -> bool:
    return True


def _any_normal(context: np.ndarray) -> bool:
    return bool(pascal_files.normals_count(context).any())


def _ignored(label: np.ndarray) -> np.ndarray:
    return label == IGNORE


def _no_context(context: np.ndarray) -> np.ndarray:
    return ~pascal_files.normals_count(context)


def _no_vector(normals: np.ndarray) -> np.ndarray:
    return ~normals.any(axis=2)


def _zero(depth: np.ndarray) -> np.ndarray:
    return depth == 0


READERS: Mapping[str, Mapping[str, Callable[[str], np.ndarray]]] = {
    "pascal_context": {
        "semseg": pascal_files.read_semseg,
        "human_parts": pascal_files.read_human_parts,
        "saliency": pascal_files.read_saliency,
        "normals": pascal_files.read_normals,
        "context": pascal_files.read_context,
    },
    "nyud": {
        "semseg": nyud.read_semseg,
        "normals": nyud.read_normals,
        "depth": nyud.read_depth,
        "edges": nyud.read_edges,
    },
}
LABELLED: Mapping[str, Mapping[str, Mapping[str, Callable[[np.ndarray], bool]]]] = {
    "pascal_context": {
        "semseg": {"semseg": _any_class},
        "human_parts": {"human_parts": _any_class},
        "saliency": {"saliency": _always},
        "context": {"normals": _any_normal, "edges": _always},
    },
    "nyud": {
        "semseg": {"semseg": _any_class},
        "normals": {"normals": np.any},
        "depth": {"depth": np.any},
        "edges": {"edges": _always},
    },
}
"""By layout and modality: which tasks' labels a file decides on, and whether it holds any."""
VOID: Mapping[str, Mapping[str, Mapping[str, Callable[[np.ndarray], np.ndarray]]]] = {
    "pascal_context": {"semseg": {"semseg": _ignored}, "human_parts": {"human_parts": _ignored}, "context": {"normals": _no_context}},
    "nyud": {"semseg": {"semseg": _ignored}, "normals": {"normals": _no_vector}, "depth": {"depth": _zero}},
}
"""By layout and modality: where a file leaves pixels of a task without a label. Saliency and edges label every pixel."""
