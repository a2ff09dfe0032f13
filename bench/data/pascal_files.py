"""Decode the single files of PASCAL_MT: JPEG images, PNG labels, and the MATLAB files of PASCAL-Context and PASCAL-Part.

Every function checks what it reads, and raises DataError with the file's name; nothing here unpickles or runs what a file holds.
"""

import json
import struct
import zlib
from importlib import resources

import numpy as np
import scipy.io
from PIL import Image
from scipy.io.matlab import MatReadError

from bench.errors import SuiteError
from bench.tasks import IGNORE, TASKS


class DataError(SuiteError):
    """Something in the data set is missing, unreadable or contradictory; the message names the file and the remedy."""


PERSON = 15
_PART_GROUPS = (
    "head hair lear rear lebrow rebrow leye reye mouth nose",
    "torso neck",
    "luarm ruarm",
    "llarm rlarm lhand rhand",
    "luleg ruleg",
    "llleg rlleg lfoot rfoot",
)
PART_GROUP = {name: group for group, names in enumerate(_PART_GROUPS, start=1) for name in names.split()}
VALID_CONTEXT_IDS = json.loads(resources.files("bench.data").joinpath("pascal_normals_valid_context_ids.json").read_text("utf-8"))
_NORMALS_COUNT = np.zeros(2**16, dtype=bool)
_NORMALS_COUNT[VALID_CONTEXT_IDS] = True
_SHOWN = 5
_BROKEN_FILE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    MatReadError,
)


def read_image(path: str) -> np.ndarray:
    """Read an image of any 8-bit mode (grey, palette, RGBA, CMYK) as RGB, uint8 (h, w, 3); alpha is dropped, EXIF rotation not applied."""
    image = _open(path)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise DataError(f"{path} has mode {image.mode}, not 8 bits a channel: convert it to an RGB JPEG")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def read_semseg(path: str, size: tuple[int, int]) -> np.ndarray:
    """Read a palette or grey PNG of VOC class ids: uint8 (h, w), 0..20, 255 ignored."""
    image = _open(path)
    if image.mode not in ("P", "L"):
        raise DataError(f"{path} has mode {image.mode}: a semantic label must be a palette or grey PNG that holds class ids")
    label = _sized(path, np.array(image), size)
    surplus = np.unique(label[(label >= TASKS["semseg"].channels) & (label != IGNORE)])
    if surplus.size:
        raise DataError(f"{path} holds the values {surplus[:_SHOWN].tolist()}: allowed are 0..20 and 255 (ignored)")
    return label


def read_saliency(path: str, size: tuple[int, int]) -> np.ndarray:
    """Read a graded saliency PNG: uint8 (h, w), 1 where v / 255 > 0.5, else 0."""
    image = _open(path)
    if image.mode not in ("L", "1", "P", "RGB", "LA", "RGBA"):
        raise DataError(f"{path} has mode {image.mode}: saliency must be an 8-bit grey PNG")
    return (_sized(path, np.array(image.convert("L")), size) > 127).astype(np.uint8)


def read_normals(path: str, context_path: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Read the coded normals, uint8 (h, w, 3) with n = 2 v / 255 - 1, and where they count, bool (h, w).

    They count where LabelMap is one of the 170 context classes that PASCAL-Context shares with NYUD (plus tvmonitor).
    """
    image = _open(path)
    if image.mode not in ("RGB", "RGBA"):
        raise DataError(f"{path} has mode {image.mode}: normals must be an 8-bit RGB PNG")
    coded = _sized(path, np.array(image.convert("RGB")), size)
    context = _sized(context_path, _load_mat(context_path, "LabelMap"), size)
    if context.dtype.kind not in "buif":
        raise DataError(f"{context_path}: LabelMap must hold numbers, it holds {context.dtype}")
    return coded, _NORMALS_COUNT[context.astype(np.uint16)]


def read_human_parts(path: str, size: tuple[int, int]) -> np.ndarray:
    """Read PASCAL-Part's nested annotation: uint8 (h, w), the six part groups, background 0; all 255 without a person that has parts.

    Only objects of class 15 with parts count; a later part overwrites an earlier one.
    """
    target = None
    try:
        anno = _records(_load_mat(path, "anno"))[0]
        for entry in _records(_field(anno, "objects", 1)):
            parts = _records(_field(entry, "parts", 3))
            if int(np.ravel(_field(entry, "class_ind", 1))[0]) != PERSON or not parts:
                continue
            target = np.zeros(size, np.uint8) if target is None else target
            for part in parts:
                name = str(np.ravel(_field(part, "part_name", 0))[0])
                if name not in PART_GROUP:
                    raise DataError(f"{path}: unknown part {name!r} of a person; known are {', '.join(PART_GROUP)}")
                target[_sized(path, _field(part, "mask", 1), size).astype(bool)] = PART_GROUP[name]
    except (IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: `anno` is not PASCAL-Part's structure (imname, objects(class, class_ind, mask, parts)): {error}"
        ) from error
    return np.full(size, IGNORE, np.uint8) if target is None else target


def _records(array: np.ndarray) -> list[np.void]:
    """Flatten a MATLAB struct array, or a cell array of structs, to its records."""
    flat = []
    for item in np.ravel(array):
        flat += [item] if isinstance(item, np.void) else _records(item) if isinstance(item, np.ndarray) else []
    return flat


def _field(record: np.void, name: str, position: int) -> np.ndarray:
    """Take a field by its name, or by its position where a file names it otherwise."""
    return record[name] if name in record.dtype.names else record[position]


def _open(path: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except _BROKEN_FILE as error:
        raise DataError(f"{path} cannot be read ({error}): it is damaged or no image; replace it") from error


def _load_mat(path: str, key: str) -> np.ndarray:
    try:
        content = scipy.io.loadmat(path, variable_names=[key])
    except NotImplementedError as error:
        raise DataError(f"{path} is a MATLAB file of version 7.3 (HDF5): save it with `save -v7`") from error
    except _BROKEN_FILE as error:
        raise DataError(f"{path} cannot be read ({error!r}): it is damaged or no MATLAB file; replace it") from error
    if key not in content:
        raise DataError(f"{path} holds no variable {key!r}: it is not the file this folder is for")
    return content[key]


def _sized(path: str, label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if label.shape[:2] != size:
        shape, image = " x ".join(map(str, label.shape[:2])), " x ".join(map(str, size))
        raise DataError(f"{path} is {shape} (rows x columns), its image {image}: a label must have its image's size; replace the file")
    return label
