"""A small PASCAL_MT tree, written with PIL and scipy alone: independent of the suite's own renderer."""

from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

FOLDERS = (
    "JPEGImages",
    "semseg/VOC12",
    "semseg/pascal-context",
    "human_parts",
    "sal_distill",
    "normals_distill",
    "pascal-context/trainval",
)
SIZES = {"2008_000001": (30, 41), "2008_000002": (25, 25), "2008_000003": (33, 20), "2008_000004": (24, 36), "2008_000005": (28, 31)}
SPLITS = {"train": ["2008_000001", "2008_000003", "2008_000005"], "val": ["2008_000002", "2008_000004"]}


def struct_array(rows: list[tuple], fields: str) -> np.ndarray:
    """A MATLAB struct array (1, K), as scipy would load it; (0, 0) without rows."""
    array = np.zeros((1, len(rows)) if rows else (0, 0), dtype=[(name, object) for name in fields.split()])
    for k, row in enumerate(rows):
        for name, value in zip(fields.split(), row, strict=True):
            array[0, k][name] = value
    return array


def write_parts(path: Path, objects: list[tuple[str, int, np.ndarray, list[tuple[str, np.ndarray]]]]) -> None:
    """Write PASCAL-Part's nested struct: objects are (class, class id, mask, [(part, mask), ...])."""
    rows = [
        (c, i, m.astype(np.uint8), struct_array([(n, pm.astype(np.uint8)) for n, pm in parts], "part_name mask"))
        for c, i, m, parts in objects
    ]
    anno = struct_array([(path.stem, struct_array(rows, "class class_ind mask parts"))], "imname objects")
    scipy.io.savemat(path, {"anno": anno}, do_compression=True)


def box(size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[rows, columns] = True
    return mask


def write_tree(root: Path) -> Path:
    """Write five images with every modality; the expected labels are closed forms, see the tests."""
    for folder in ("ImageSets/Context", *FOLDERS):
        (root / folder).mkdir(parents=True)
    for split, ids in SPLITS.items():
        (root / f"ImageSets/Context/{split}.txt").write_text("\n".join(ids) + "\n")
    for number, (name, size) in enumerate(SIZES.items()):
        rng = np.random.default_rng(number)
        smooth = np.linspace(20, 220, size[1])[None, :, None] + np.linspace(0, 30, size[0])[:, None, None] + np.zeros(3)
        Image.fromarray(smooth.astype(np.uint8)).save(root / f"JPEGImages/{name}.jpg", quality=95)
        semseg = Image.fromarray(semseg_of(size, number))
        semseg.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
        semseg.save(root / ("semseg/VOC12" if number % 2 else "semseg/pascal-context") / f"{name}.png")
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(root / f"sal_distill/{name}.png")
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"normals_distill/{name}.png")
        scipy.io.savemat(root / f"pascal-context/trainval/{name}.mat", {"LabelMap": rng.integers(1, 460, size).astype(np.uint16)})
        write_parts(root / f"human_parts/{name}.mat", people(size) if number == 0 else [])
    return root


def semseg_of(size: tuple[int, int], number: int) -> np.ndarray:
    label = np.full(size, number, np.uint8)
    label[:3], label[-2:] = 20, 255
    return label


def people(size: tuple[int, int]) -> list[tuple]:
    """A horse with parts, a person without, a person with three parts of which the last covers some of the first."""
    everywhere = box(size, slice(None), slice(None))
    parts = [
        ("head", box(size, slice(2, 8), slice(2, 8))),
        ("rlleg", box(size, slice(20, 25), slice(4, 9))),
        ("neck", box(size, slice(6, 12), slice(4, 9))),
    ]
    return [("horse", 13, everywhere, [("head", everywhere)]), ("person", 15, everywhere, []), ("person", 15, everywhere, parts)]
