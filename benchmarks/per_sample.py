"""Read, augment and resize a sample: image and all labels together, as the MTLoRA release (arXiv 2403.20320) does.

Files are decoded as a straightforward reader would, by PIL and `scipy.io.loadmat`, without the checks of the suite's own readers.

Order: flip, one warp (rotation and scale about the centre, size unchanged), resize to a square without keeping the aspect ratio, tensors.
Image and normals are resampled cubically, label maps by their nearest pixel.

What differs from the release, and why:

- Pixels that a warp brings in from outside of the image are ignored in every task (the release calls them class 0).
- Cubic overshoot of the image clips at 0 and 255 (it wraps around).
- A normal counts after resampling only where its nearest source pixel counted and the interpolated vector points to that pixel's side:
  beside an ignored region cubic weights can be all negative, which would turn vectors over or leave noise of unit length.
- Centres are those of pixel grids: a warp turns about ((w - 1) / 2, (h - 1) / 2), and a resize takes a label's pixel under the centre
  of the new one, so that labels and the cubic image stay aligned (cv2's plain nearest is up to half a pixel off).
"""

from typing import Any

import cv2
import numpy as np
import scipy.io
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from bench.data.pascal_files import PART_GROUP, PERSON, VALID_CONTEXT_IDS
from bench.tasks import IGNORE, TASKS

_NORMALS_COUNT = np.isin(np.arange(2**16), VALID_CONTEXT_IDS)
LABEL_MAPS = tuple(name for name, task in TASKS.items() if task.label in ("classes", "binary"))
_MEAN, _STD = np.float32(IMAGENET_DEFAULT_MEAN), np.float32(IMAGENET_DEFAULT_STD)


def read(files: dict[str, str]) -> dict[str, Any]:
    """Decode one image of PASCAL_MT and its four labels; every file is taken to be what it should be.

    Args:
        files: Path by modality: image, semseg, human_parts, saliency, normals, and context, which says where normals count.

    Returns:
        A raw sample without its id, see `bench.data.pascal_context.PascalContext`.
    """
    image = np.array(Image.open(files["image"]).convert("RGB"))
    normals = 2 * np.array(Image.open(files["normals"]).convert("RGB"), np.float32) / 255 - 1
    normals /= np.sqrt(np.einsum("hwc,hwc->hw", normals, normals))[..., None]
    normals[~_NORMALS_COUNT[scipy.io.loadmat(files["context"])["LabelMap"].astype(np.intp)]] = 0
    return {
        "image": image,
        "semseg": np.array(Image.open(files["semseg"])),
        "human_parts": _read_parts(files["human_parts"], image.shape[:2]),
        "saliency": (np.array(Image.open(files["saliency"]).convert("L")) > 127).astype(np.uint8),
        "normals": normals,
    }


def _read_parts(path: str, size: tuple[int, int]) -> np.ndarray:
    """Decode PASCAL-Part: uint8 (h, w), the six groups of a person's parts, or all 255 without a person that has any."""
    label = None
    for _, class_index, _, parts in (entry.item() for entry in scipy.io.loadmat(path)["anno"][0, 0][1].flat):
        if class_index.item() == PERSON and parts.size:
            label = np.zeros(size, np.uint8) if label is None else label
            for name, mask in (part.item() for part in parts.flat):
                label[mask.astype(bool)] = PART_GROUP[name.item()]
    return np.full(size, IGNORE, np.uint8) if label is None else label


def augment(
    sample: dict[str, Any],
    rng: np.random.Generator,
    *,
    flip: bool = True,
    rotation: float = 20.0,
    scale: tuple[float, float] = (0.75, 1.25),
) -> dict[str, Any]:
    """Flip, rotate and scale a raw sample at random; three numbers are drawn whatever the settings.

    Args:
        sample: Raw sample, see `bench.data.pascal_context.PascalContext`; it is not changed.
        rng: Source of the draws.
        flip: Mirror left and right with probability 0.5.
        rotation: The angle is uniform in [-rotation, rotation) degrees.
        scale: The zoom is uniform in [scale[0], scale[1]); above 1 enlarges.

    Returns:
        A raw sample of the same size; label maps are 255 and normals zero where the warp left the image.
    """
    mirrored = rng.random() < 0.5
    angle_deg = rng.uniform(-rotation, rotation)
    zoom = rng.uniform(*scale)
    return warp(mirror(sample) if flip and mirrored else sample, angle_deg=angle_deg, zoom=zoom)


def mirror(sample: dict[str, Any]) -> dict[str, Any]:
    """Mirror a raw sample left and right; the x component of normals changes its sign."""
    mirrored = {key: value if key == "id" else cv2.flip(value, 1) for key, value in sample.items()}
    if "normals" in sample:
        mirrored["normals"][..., 0] *= -1
    return mirrored


def warp(sample: dict[str, Any], *, angle_deg: float, zoom: float) -> dict[str, Any]:
    """Rotate (counter-clockwise as seen) and enlarge a raw sample about its centre; outside is black, 255 or zero (normals).

    Normals are vectors in the image's axes (x right, y down): they turn by the same angle. Depth is divided by the zoom, as if the camera
    had come nearer (Eigen et al., arXiv 1406.2283); outside it is 0.
    """
    if angle_deg == 0 and zoom == 1:
        return sample
    height, width = sample["image"].shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, zoom)

    def moved(array: np.ndarray, interpolation: int, outside: float) -> np.ndarray:
        border = (outside,) * 4
        return cv2.warpAffine(array, matrix, (width, height), flags=interpolation, borderMode=cv2.BORDER_CONSTANT, borderValue=border)

    warped = {"id": sample["id"], "image": moved(sample["image"], cv2.INTER_CUBIC, 0)}
    warped |= {task: moved(sample[task], cv2.INTER_NEAREST, IGNORE) for task in LABEL_MAPS if task in sample}
    if "depth" in sample:
        warped["depth"] = moved(sample["depth"], cv2.INTER_NEAREST, 0) / np.float32(zoom)
    if "normals" in sample:
        cubic, nearest = (moved(sample["normals"], flag, 0) for flag in (cv2.INTER_CUBIC, cv2.INTER_NEAREST))
        turn = np.float32(matrix[:, :2] / zoom)
        warped["normals"] = _renormalised(cubic, nearest)
        warped["normals"][..., :2] = warped["normals"][..., :2] @ turn.T
    return warped


def resize_normalise(sample: dict[str, Any], size: int) -> dict[str, Any]:
    """Resize a raw sample to (size, size) and make tensors of it.

    Returns:
        `id` str; `image` float32 (3, size, size), ImageNet mean and standard deviation; label maps uint8 (size, size), 255 ignored;
        `normals` float32 (3, size, size), unit vectors, 255 in all three channels where ignored; `depth` float32 (1, size, size),
        metres, 0 where ignored.
    """
    image = _resized(sample["image"], size, cv2.INTER_CUBIC)
    tensors = {"id": sample["id"], "image": _channels_first((image * np.float32(1 / 255) - _MEAN) / _STD)}
    for task in LABEL_MAPS:
        if task in sample:
            tensors[task] = torch.from_numpy(_resized(sample[task], size, cv2.INTER_NEAREST_EXACT))
    if "depth" in sample:
        tensors["depth"] = torch.from_numpy(_resized(sample["depth"], size, cv2.INTER_NEAREST_EXACT))[None]
    if "normals" in sample:
        normals = sample["normals"]
        if normals.shape[:2] != (size, size):
            cubic, nearest = (_resized(normals, size, flag) for flag in (cv2.INTER_CUBIC, cv2.INTER_NEAREST_EXACT))
            normals = _renormalised(cubic, nearest)
        ignored = np.einsum("hwc,hwc->hw", normals, normals) < 0.5  # unit length or zero
        tensors["normals"] = _channels_first(normals).masked_fill_(torch.from_numpy(ignored), IGNORE)
    return tensors


def _resized(array: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    return cv2.resize(array, (size, size), interpolation=interpolation)


def _channels_first(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def _renormalised(cubic: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Bring interpolated normals back to unit length.

    Args:
        cubic: Cubically resampled normals, float32 (h, w, 3).
        nearest: The same normals resampled by nearest pixel: unit vectors, zero where ignored.

    Returns:
        float32 (h, w, 3): unit vectors where `nearest` counts and `cubic` points to its side, else zero.
    """
    counts = np.einsum("hwc,hwc->hw", cubic, nearest) > 1e-3
    length = np.sqrt(np.einsum("hwc,hwc->hw", cubic, cubic))
    factor = np.where(counts, 1 / np.maximum(length, np.float32(1e-6)), np.float32(0))
    return cubic * factor[..., None]
