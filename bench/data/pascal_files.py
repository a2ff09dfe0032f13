"""Decode the single files of PASCAL_MT: JPEG images, PNG labels, and the MATLAB files of PASCAL-Context and PASCAL-Part.

Every function checks what it reads, and raises DataError with the file's name; nothing here unpickles or runs what a file holds. Where a
`size` (h, w), that of the image, is given, a label of another size is brought to it, see `fitted`.
"""

import io
import json
import os
import struct
import zlib
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image, UnidentifiedImageError
from scipy.io.matlab import MatReadError
from skimage.morphology import thin

from bench.data import mat_file, png_file
from bench.data.layout import DataError
from bench.tasks import IGNORE, TASKS

Size = tuple[int, int] | None
PERSON = 15
CONTEXT_CLASSES = 459
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
ASPECT_TOLERANCE = 0.02
"""How far the proportions of a label may be off its image's, relative; one that was made at another scale is off by rounding only."""
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
    Image.DecompressionBombError,
)


def read_image(path: str) -> np.ndarray:
    """Read an image of any 8-bit mode (grey, palette, RGBA, CMYK) as RGB, uint8 (h, w, 3); alpha is dropped, EXIF rotation not applied."""
    image = open_image(path)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise DataError(f"{path} has mode {image.mode}, not 8 bits a channel: convert it to an RGB JPEG")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def read_semseg(path: str, size: Size = None) -> np.ndarray:
    """Read a palette or grey PNG of VOC class ids: uint8 (h, w), 0..20, 255 ignored."""
    image = open_image(path)
    if image.mode not in ("P", "L"):
        raise DataError(f"{path} has mode {image.mode}: a semantic label must be a palette or grey PNG that holds class ids")
    label = np.array(image)
    surplus = np.unique(label[(label >= TASKS["semseg"].channels) & (label != IGNORE)])
    if surplus.size:
        raise DataError(f"{path} holds the values {surplus[:_SHOWN].tolist()}: allowed are 0..20 and 255 (ignored)")
    return fitted(path, label, size)


def read_saliency(path: str, size: Size = None) -> np.ndarray:
    """Read a graded saliency PNG: uint8 (h, w), 1 where v / 255 > 0.5, else 0."""
    image = open_image(path)
    if image.mode not in ("L", "1", "P", "RGB", "LA", "RGBA"):
        raise DataError(f"{path} has mode {image.mode}: saliency must be an 8-bit grey PNG")
    return fitted(path, (np.array(image.convert("L")) > 127).astype(np.uint8), size)


def read_normals(path: str, size: Size = None) -> np.ndarray:
    """Read the coded normals, uint8 (h, w, 3), with n = 2 v / 255 - 1."""
    image = open_image(path)
    if image.mode not in ("RGB", "RGBA"):
        raise DataError(f"{path} has mode {image.mode}: normals must be an 8-bit RGB PNG")
    return fitted(path, np.array(image.convert("RGB")), size, cv2.INTER_CUBIC)


def read_context(path: str, size: Size = None) -> np.ndarray:
    """Read LabelMap, PASCAL-Context's 459 classes as 1..459, 0 for none: uint16 (h, w)."""
    context = load_mat(path, "LabelMap")
    if context.dtype.kind not in "buif" or context.ndim != 2:
        raise DataError(f"{path}: LabelMap must be a matrix of numbers, it is {context.dtype} of shape {context.shape}")
    with np.errstate(invalid="ignore"):
        wrong = context[~((context >= 0) & (context <= CONTEXT_CLASSES) & (context == np.floor(context)))]
    if wrong.size:
        raise DataError(f"{path} holds the value {wrong[0]}: LabelMap's classes are 1..{CONTEXT_CLASSES}; replace the file")
    return fitted(path, context.astype(np.uint16), size)


def normals_count(context: np.ndarray) -> np.ndarray:
    """Return where normals count, bool (h, w): LabelMap is one of the 170 classes that NYUD shares with it, or tvmonitor."""
    return _NORMALS_COUNT[context]


def edges_of(context: np.ndarray) -> np.ndarray:
    """Return the edge label, uint8 (h, w), 1 or 0: where the Laplacian of LabelMap is not zero, thinned to one pixel.

    The Laplacian is the four-neighbour one with mirrored borders, thinning Guo and Hall's (Communications of the ACM 32, 1989).
    """
    return thin(cv2.Laplacian(context, cv2.CV_64F) != 0).astype(np.uint8)


def read_human_parts(path: str, size: Size = None) -> np.ndarray:
    """Read PASCAL-Part's nested annotation: uint8 (h, w), the six part groups, background 0; all 255 without a person that has parts.

    Only objects of class 15 with parts count; a later part overwrites an earlier one. All masks must have the size of the first object's;
    without a `size`, a file without any object gives (0, 0).
    """
    target = own = None
    try:
        anno = _records(load_mat(path, "anno"))[0]
        for entry in _records(_field(anno, "objects", 1)):
            parts = _records(_field(entry, "parts", 3))
            own = own or np.shape(_field(entry, "mask", 2))[:2]
            if int(np.ravel(_field(entry, "class_ind", 1))[0]) != PERSON or not parts:
                continue
            target = np.zeros(own, np.uint8) if target is None else target
            for part in parts:
                name = str(np.ravel(_field(part, "part_name", 0))[0])
                if name not in PART_GROUP:
                    raise DataError(f"{path}: unknown part {name!r} of a person; known are {', '.join(PART_GROUP)}")
                target[_part_mask(path, name, _field(part, "mask", 1), own)] = PART_GROUP[name]
    except DataError:
        raise
    except (IndexError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: `anno` is not PASCAL-Part's structure (imname, objects(class, class_ind, mask, parts)): {error}"
        ) from error
    return np.full(size or own or (0, 0), IGNORE, np.uint8) if target is None else fitted(path, target, size)


def _part_mask(path: str, name: str, mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return where a part is, bool `size`: its mask is not zero."""
    if type(mask) is not np.ndarray or mask.dtype.kind not in "buif" or mask.ndim != 2 or not np.isfinite(mask).all():
        raise DataError(f"{path}: the mask of part {name!r} must be a matrix of finite numbers, 0 outside of it; replace the file")
    if mask.shape != size:
        sizes = f"part {name!r} {_shape(mask.shape)}, an object {_shape(size)}"
        raise DataError(f"{path} has masks of different sizes: {sizes}; replace the file")
    return mask != 0


def _records(array: np.ndarray) -> list[np.void]:
    """Flatten a MATLAB struct array, or a cell array of structs, to its records; what is empty, of whatever type, has none.

    Raises:
        TypeError: It holds numbers or text.
    """
    flat = []
    for item in np.ravel(array):
        if not isinstance(item, np.void | np.ndarray):
            raise TypeError(f"{type(item).__name__} {item!s:.20} where structs belong")
        flat += [item] if isinstance(item, np.void) else _records(item)
    return flat


def _field(record: np.void, name: str, position: int) -> np.ndarray:
    """Take a field by its name, or by its position where a file names it otherwise."""
    return record[name] if name in record.dtype.names else record[position]


def open_image(path: str) -> Image.Image:
    """Open and decode an image file; the checksums of a PNG are verified.

    Raises:
        DataError: It is damaged or no image.
    """
    demand_regular(path)
    try:
        data = Path(path).read_bytes()
        png_file.require_whole(data)
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image
    except UnidentifiedImageError as error:  # whose text names the buffer, not the file
        raise DataError(f"{path} cannot be read (of no image format that is known): it is damaged or no image; replace it") from error
    except _BROKEN_FILE as error:
        raise DataError(f"{path} cannot be read ({error}): it is damaged or no image; replace it") from error


def load_mat(path: str, key: str) -> np.ndarray:
    """Read one variable of a MATLAB file up to version 7.

    Raises:
        DataError: It is damaged, of version 7.3, no MATLAB file, or lacks the variable, or that is no plain array, but sparse for instance.
    """
    demand_regular(path)
    try:
        data = Path(path).read_bytes()
        mat_file.require_whole(data)
        content = scipy.io.loadmat(io.BytesIO(data), variable_names=[key])
    except NotImplementedError as error:
        raise DataError(f"{path} is a MATLAB file of version 7.3 (HDF5): save it with `save -v7`") from error
    except _BROKEN_FILE as error:
        raise DataError(f"{path} cannot be read ({error!r}): it is damaged or no MATLAB file; replace it") from error
    if key not in content:
        raise DataError(f"{path} holds no variable {key!r}: it is not the file this folder is for")
    if type(content[key]) is not np.ndarray:  # a sparse matrix, an object of a MATLAB class, a function
        raise DataError(f"{path}: {key} is a {type(content[key]).__name__}, not a plain array: save it as a full one, `full({key})`")
    return content[key]


def demand_regular(path: str) -> None:
    """Raise DataError where a path leads to a directory, a pipe or a device: opening a pipe would wait for ever."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path} cannot be read: it is a directory, a pipe or a device and no regular file; replace it")


def header_size(path: str) -> Size:
    """Return the (h, w) that an image's header tells, which a file cut short still has; None where it has none."""
    try:
        demand_regular(path)
        with Image.open(path) as image:
            return image.height, image.width
    except Exception:  # of whatever kind: it has been named when the image was read
        return None


def fitted(path: str, label: np.ndarray, size: Size, interpolation: int = cv2.INTER_NEAREST) -> np.ndarray:
    """Bring a label to its image's size, as the literature's readers do with one that was made at another scale.

    Args:
        path: Its file, for the message.
        label: (h, w) or (h, w, c), of a type that OpenCV resizes.
        size: The image's (h, w); None leaves the label as it is.
        interpolation: OpenCV's; nearest neighbour for everything but normals, which are cubic as in every other resizing of them.

    Raises:
        DataError: Its ratio of sides is not the image's (ASPECT_TOLERANCE): it is another image's label, or a transposed one.
    """
    if size is None or label.shape[:2] == size:
        return label
    if not alike(label.shape[:2], size):
        raise DataError(
            f"{path} is {_shape(label.shape[:2])} (rows x columns), its image {_shape(size)}: a label may be of another size, "
            "but must have its image's proportions; replace the file"
        )
    return cv2.resize(label, size[::-1], interpolation=interpolation)


def alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two sizes (h, w) have the same proportions within ASPECT_TOLERANCE; an empty one is like none."""
    first, second = one[0] * other[1], one[1] * other[0]
    return first > 0 and second > 0 and abs(first / second - 1) <= ASPECT_TOLERANCE


def _shape(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
