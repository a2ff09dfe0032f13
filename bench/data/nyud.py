"""Read NYUD_MT, NYU Depth v2 (Silberman et al., ECCV 2012) as the multi-task literature passes it around.

Labels are numpy arrays beside a PNG of forty classes; arrays are read with `allow_pickle=False`, so that no code comes with the data.
"""

from tokenize import TokenError

import cv2
import numpy as np

from bench.data.layout import NYUD_MT, DataError
from bench.data.pascal_files import demand_regular, fitted, open_image, read_image
from bench.data.reader import RawSplit
from bench.tasks import DATA_SETS

_SHOWN = 5
_CLASSES = DATA_SETS["nyud"]["semseg"].channels


class NYUD(RawSplit):
    """Raw samples of one split of NYUD_MT, see `bench.data.reader.RawSplit`.

    `semseg` uint8 (h, w), 0..39, 255 ignored; `normals` float32 (h, w, 3), unit vectors, zero where ignored; `depth` float32 (h, w),
    metres, 0 where ignored; `edges` uint8 (h, w), 0 or 1.
    """

    layout = NYUD_MT

    def decode(self, path: dict[str, str]) -> dict[str, np.ndarray]:
        """Decode to the arrays that samples hold."""
        decoded = {"image": read_image(path["image"])}
        size = decoded["image"].shape[:2]
        readers = {"semseg": read_semseg, "normals": read_normals, "depth": read_depth, "edges": read_edges}
        return decoded | {task: readers[task](path[task], size) for task in self.tasks}

    @classmethod
    def read_classes(cls, path: str) -> np.ndarray:
        """Read a semantic label by itself: uint8 (h, w), 0..39, 255 ignored."""
        return read_semseg(path)


def read_semseg(path: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a PNG of 0 (ignored) and 1..40: uint8 (h, w), 0..39, 255 ignored."""
    image = open_image(path)
    if image.mode not in ("P", "L"):
        raise DataError(f"{path} has mode {image.mode}: a semantic label must be a palette or grey PNG that holds class ids")
    label = np.array(image)
    surplus = np.unique(label[label > _CLASSES])
    if surplus.size:
        raise DataError(f"{path} holds the values {surplus[:_SHOWN].tolist()}: allowed are 1..{_CLASSES} and 0 (ignored)")
    return fitted(path, label - np.uint8(1), size)  # 0 wraps around to 255


def read_normals(path: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read normals of any length: float32 (h, w, 3) unit vectors; zero, that is ignored, where the file has no length or no number."""
    normals = fitted(path, read_array(path, channels=3).astype(np.float32), size, cv2.INTER_CUBIC)
    length = np.sqrt(np.einsum("hwc,hwc->hw", normals, normals))
    counts = np.isfinite(length) & (length > 1e-3)
    return np.where(counts[..., None], normals, np.float32(0)) / np.where(counts, length, np.float32(1))[..., None]


def read_depth(path: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read depth: float32 (h, w), metres; 0, that is ignored, where the file has no positive finite number."""
    depth = fitted(path, read_array(path).astype(np.float32), size)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def read_edges(path: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read edges: uint8 (h, w), 1 where the file's value is above 0.5, else 0."""
    edges = read_array(path)
    if not (edges >= 0).all() or not (edges <= 1).all():
        raise DataError(f"{path} holds values outside of 0..1: edges must be 0 or 1")
    return fitted(path, (edges > 0.5).astype(np.uint8), size)


def read_array(path: str, channels: int | None = None) -> np.ndarray:
    """Read a `.npy` file of numbers: (h, w), or (h, w, channels). Pickled objects are refused.

    Raises:
        DataError: The file is damaged, holds no numbers, or has another shape.
    """
    demand_regular(path)
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, MemoryError, TokenError) as error:
        raise DataError(f"{path} cannot be read ({error}): it must be a .npy array of numbers; replace it") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        raise DataError(f"{path} holds no plain array of numbers; replace it")
    if channels is None and array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != (2 if channels is None else 3) or (channels is not None and array.shape[2] != channels):
        wanted = "(rows, columns)" if channels is None else f"(rows, columns, {channels})"
        raise DataError(f"{path} has the shape {array.shape}: it must be {wanted}; replace it")
    return array
