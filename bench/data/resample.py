"""Flip, rotate, scale and resize a batch in one resampling per modality: on a GPU in torch, on a CPU by kernels that give the same bits.

A map from output pixels to source pixels is one affine function a sample: the composition of resize, warp and flip, in signed 32.32 fixed
point. Label maps and depth take the source pixel under the centre of the new one. Image and normals are interpolated cubically (Keys'
kernel with a = -0.75, as OpenCV's and torch's) at positions rounded to 1/1024 pixel: four rows with weights of 10 bits, the sums rounded to
1/32, then four columns with weights of 10 bits. Every such sum is of integers below 2^24 in float32 and hence exact in any order, and
every later operation is one IEEE operation: so neither the number of threads, nor the composition of a batch, nor the kernel changes a bit.

Depth is divided by the zoom, as if the camera had come nearer (Eigen et al., arXiv 1406.2283). Outside of the source every label is
ignored and the image black; near the border the cubic kernel repeats the border's pixels.

A normal counts after resampling only where its nearest source pixel counted and the interpolated vector points to that pixel's side:
beside an ignored region, whose vectors are zero, cubic weights can be all negative, which would turn vectors over or leave noise of unit
length.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from bench.data.native import kernels
from bench.tasks import IGNORE

_FRACTION, _STEPS = 32, 10
_SUM_BITS, _ROW_BITS, _VECTOR_BITS = 15, 5, 11
_AGREE = 256
"""Least product of an interpolated normal (times 2032) with its nearest pixel's (times 127): 0.001 of the largest."""

_GROUP = 32
"""Samples that torch resamples at once: positions and weights of 32 at 448 px take about 1 GB of a GPU for the moment."""

SLACK_BYTES = 64
"""A flat array goes on for so long after its last pixel: the CPU's kernel reads whole vectors."""

CHANNELS = {"image": 3, "classes": 1, "binary": 1, "normals": 3, "depth": 1}
"""Channels a pixel of a kind of map in a flat array."""


Allocator = Callable[..., Tensor]
"""Called like `torch.empty` with a shape and a dtype."""


class View(NamedTuple):
    """How a sample is looked at: mirrored left and right first, then turned counter-clockwise and enlarged about its centre."""

    mirrored: bool = False
    angle_deg: float = 0.0
    zoom: float = 1.0


class Placement(NamedTuple):
    """Where the pixels of a batch come from.

    Attributes:
        samples: int64 (B, 9): first pixel in the flat arrays, width, height; the map x = x0 + i xi + j xj and y likewise, as xj, xi, x0,
            yj, yi, y0 in units of 2^-32 pixel.
        turns: float32 (B, 5): the matrix, row by row, that turns the x and y components of normals; and the factor of depth.
    """

    samples: Tensor
    turns: Tensor

    def to(self, device: torch.device) -> "Placement":
        """Return it on a device."""
        return Placement(self.samples.to(device, non_blocking=True), self.turns.to(device, non_blocking=True))


def place(first: np.ndarray, stored: np.ndarray, native: np.ndarray, views: Sequence[View], size: tuple[int, int]) -> Placement:
    """Compose flip, warp and resize.

    Args:
        first: First pixels of the samples in the flat arrays, int64 (B,).
        stored: Heights and widths in the flat arrays, int64 (B, 2).
        native: Heights and widths of the images; a view turns and enlarges in their pixels, whatever the stored size is.
        views: One a sample.
        size: Height and width of the output.
    """
    (height, width), (own_height, own_width) = stored.T.astype(float), native.T.astype(float)
    mirrored, angle, zoom = (np.array(column, dtype=float) for column in zip(*views, strict=True))
    sign, (cos, sin) = 1 - 2 * mirrored, (np.cos(np.radians(angle)), np.sin(np.radians(angle)))
    step_x, step_y, centre_x, centre_y = own_width / size[1], own_height / size[0], (own_width - 1) / 2, (own_height - 1) / 2
    start_x, start_y = step_x / 2 - 0.5 - centre_x, step_y / 2 - 0.5 - centre_y
    to_x, to_y = width / own_width, height / own_height
    x = np.stack([cos * step_x, -sin * step_y, cos * start_x - sin * start_y]) * sign / zoom
    y = np.stack([sin * step_x, cos * step_y, sin * start_x + cos * start_y]) / zoom
    x[2], y[2] = x[2] + centre_x + 0.5, y[2] + centre_y + 0.5
    x, y = x * to_x, y * to_y
    x[2], y[2] = x[2] - 0.5, y[2] - 0.5
    fixed = np.rint(np.concatenate([x, y]) * 2.0**_FRACTION).astype(np.int64)
    samples = np.stack([first.astype(np.int64), stored[:, 1], stored[:, 0], *fixed], axis=1)
    turns = np.stack([cos * sign, sin, -sin * sign, cos, 1 / zoom], axis=1).astype(np.float32)
    return Placement(torch.from_numpy(np.ascontiguousarray(samples)), torch.from_numpy(turns))


def resample(
    flat: Mapping[str, Tensor], kinds: Mapping[str, str], placement: Placement, size: tuple[int, int], empty: Allocator = torch.empty
) -> dict[str, Tensor]:
    """Make a batch from flat arrays.

    Args:
        flat: `image` uint8 and the tasks' maps: class and binary maps uint8, normals int8 (127 times the unit vector, zero where ignored),
            depth float32 (metres, 0 where ignored); each one-dimensional, pixel after pixel, channels last, followed by `SLACK_BYTES`.
        kinds: Kind of each task's map, see `bench.tasks.Task.label`.
        placement: On the arrays' device.
        size: Height and width of the batch.
        empty: Where the compiled kernel takes memory from.

    Returns:
        `image` float32 (B, 3, H, W), ImageNet mean and deviation; class and binary maps uint8 (B, H, W), 255 ignored; normals float32
        (B, 3, H, W), unit vectors, 255 in all channels where ignored; depth float32 (B, 1, H, W), 0 where ignored.
    """
    if flat["image"].device.type == "cpu" and kernels() is not None:
        return resample_compiled(flat, kinds, placement, size, empty)
    groups = zip(*(tensor.split(_GROUP) for tensor in placement), strict=True)
    parts = [resample_torch(flat, kinds, Placement(*group), size) for group in groups]
    return parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def quantised_normals(normals: np.ndarray) -> np.ndarray:
    """Turn unit vectors, float32 (..., 3), zero where ignored, into int8; the direction moves by 0.18 degrees (root mean square)."""
    return np.rint(normals * np.float32(127)).astype(np.int8)


def cubic_weights() -> np.ndarray:
    """Return the weights of the four neighbours at each of 1024 positions between two pixels: float32 (1024, 4), integers of sum 1024."""
    a, t = -0.75, np.arange(1 << _STEPS)[:, None] / (1 << _STEPS)
    distance = np.abs(t + np.array([1, 0, -1, -2]))
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    weights = np.rint(np.where(distance <= 1, near, far) * (1 << _STEPS))
    weights[np.arange(len(weights)), weights.argmax(axis=1)] += (1 << _STEPS) - weights.sum(axis=1)
    return weights.astype(np.float32)


_WEIGHTS = torch.from_numpy(cubic_weights())
_INTEGER_WEIGHTS = _WEIGHTS.to(torch.int16)
_SCALE = torch.tensor([1 / (255 * deviation) for deviation in IMAGENET_DEFAULT_STD], dtype=torch.float32)
_SHIFT = torch.tensor([-mean / std for mean, std in zip(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, strict=True)], dtype=torch.float32)


class _Batch(ctypes.Structure):
    """The struct Batch of resample.c."""

    _fields_ = (
        ("samples", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("count", "height", "width")),
        *((name, ctypes.c_void_p) for name in ("weights", "image", "scale", "shift", "image_out", "normals", "turns", "normals_out")),
        *((name, ctypes.c_int64) for name in ("byte_maps", "float_maps")),
        *((name, ctypes.c_void_p) for name in ("bytes", "bytes_out", "floats", "floats_out", "work")),
    )


def resample_compiled(
    flat: Mapping[str, Tensor], kinds: Mapping[str, str], placement: Placement, size: tuple[int, int], empty: Allocator = torch.empty
) -> dict[str, Tensor]:
    """Do what `resample` does on the CPU with the compiled kernel; other threads run meanwhile."""
    samples, turns, count = placement.samples.contiguous(), placement.turns.contiguous(), len(placement.samples)
    batch = {"image": empty((count, 3, *size), dtype=torch.float32)}
    for task, kind in kinds.items():
        channels = {"normals": (3,), "depth": (1,)}.get(kind, ())
        batch[task] = empty((count, *channels, *size), dtype=torch.float32 if channels else torch.uint8)
    byte_maps = [task for task, kind in kinds.items() if kind in ("classes", "binary")]
    float_maps = [task for task, kind in kinds.items() if kind == "depth"]
    normals = next((task for task, kind in kinds.items() if kind == "normals"), None)
    work = torch.empty(9 * size[1], dtype=torch.int32)
    tables = [
        (ctypes.c_void_p * len(tasks))(*(tensors[task].data_ptr() for task in tasks))
        for tasks in (byte_maps, float_maps)
        for tensors in (flat, batch)
    ]
    kernels().resample(
        ctypes.byref(
            _Batch(
                samples.data_ptr(),
                *(count, *size),
                *(tensor.data_ptr() for tensor in (_INTEGER_WEIGHTS, flat["image"], _SCALE, _SHIFT, batch["image"])),
                flat[normals].data_ptr() if normals else None,
                turns.data_ptr(),
                batch[normals].data_ptr() if normals else None,
                *(len(byte_maps), len(float_maps)),
                *map(ctypes.addressof, tables),
                work.data_ptr(),
            )
        )
    )
    return batch


def resample_torch(flat: Mapping[str, Tensor], kinds: Mapping[str, str], placement: Placement, size: tuple[int, int]) -> dict[str, Tensor]:
    """Do what `resample` does in torch, on any device."""
    samples, device = placement.samples, flat["image"].device
    i, j = torch.arange(size[0], device=device)[:, None], torch.arange(size[1], device=device)
    first, width, height, xj, xi, x0, yj, yi, y0 = samples[:, :, None, None].unbind(1)
    x, y = x0 + i * xi + j * xj, y0 + i * yi + j * yj
    column, row = (x + (1 << _FRACTION - 1)) >> _FRACTION, (y + (1 << _FRACTION - 1)) >> _FRACTION
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    nearest = torch.where(inside, first + row * width + column, first)
    neighbours = _Neighbours(x, y, first, width, height)
    black = torch.zeros((), device=device)
    image = torch.where(inside[..., None], neighbours.cubic(flat["image"]), black) * 2.0**-_SUM_BITS
    image = image.clamp(0, 255) * _SCALE.to(device)
    batch = {"image": (image + _SHIFT.to(device)).permute(0, 3, 1, 2).contiguous()}
    for task, kind in kinds.items():
        own = _pixels(flat[task], CHANNELS[kind]).index_select(0, nearest.flatten()).view(*nearest.shape, -1)
        if kind == "normals":
            own = torch.where(inside[..., None], own.float(), black)
            batch[task] = _normals(neighbours.cubic(flat[task]), own, placement.turns)
        else:
            outside = 0.0 if kind == "depth" else IGNORE
            own = torch.where(inside, own[..., 0], torch.full((), outside, dtype=own.dtype, device=device))
            batch[task] = (own * placement.turns[:, 4, None, None])[:, None] if kind == "depth" else own
    return batch


class _Neighbours:
    """The sixteen neighbours of every output pixel and their weights; arguments int64 (B, H, W) or (B, 1, 1)."""

    def __init__(self, x: Tensor, y: Tensor, first: Tensor, width: Tensor, height: Tensor) -> None:
        half, shift, mask = 1 << _FRACTION - _STEPS - 1, _FRACTION - _STEPS, (1 << _STEPS) - 1
        x, y = (x + half) >> shift, (y + half) >> shift
        weights, zero = _WEIGHTS.to(x.device), torch.zeros_like(width)
        self.across, self.down = weights[x & mask], weights[y & mask]
        self.columns = [((x >> _STEPS) + k - 1).clamp(zero, width - 1) for k in range(4)]
        self.rows = [first + ((y >> _STEPS) + k - 1).clamp(zero, height - 1) * width for k in range(4)]

    def cubic(self, flat: Tensor) -> Tensor:
        """Interpolate three channels: float32 (B, H, W, 3), times 2^15, exact."""
        pixels, total = _pixels(flat, 3), 0.0
        for c, column in enumerate(self.columns):
            line = 0.0
            for r, row in enumerate(self.rows):
                values = pixels.index_select(0, (row + column).flatten()).view(*column.shape, 3)
                line = line + values.float() * self.down[..., r, None]
            line = ((line + 2 ** (_ROW_BITS - 1)) * 2.0**-_ROW_BITS).floor()
            total = total + line * self.across[..., c, None]
        return total


def _pixels(flat: Tensor, channels: int) -> Tensor:
    """View a flat array as pixels (P, channels), without the slack's last bytes."""
    return flat[: len(flat) // channels * channels].view(-1, channels)


def _normals(cubic: Tensor, own: Tensor, turns: Tensor) -> Tensor:
    """Bring interpolated normals back to unit length and turn them; `cubic` and `own` float32 (B, H, W, 3), `turns` (B, 5)."""
    x, y, z = ((cubic + 2 ** (_VECTOR_BITS - 1)) * 2.0**-_VECTOR_BITS).floor().unbind(-1)
    counts = x * own[..., 0] + y * own[..., 1] + z * own[..., 2] > _AGREE
    # In float64: torch's float32 root is not always the nearest number, and which one it is may differ between machines.
    factor = 1 / (x * x + y * y + z * z).clamp(min=1).double().sqrt().float()
    a, b, c, d = turns[:, :4, None, None].unbind(1)
    turned = torch.stack([(a * x + b * y) * factor, (c * x + d * y) * factor, z * factor], dim=1)
    return torch.where(counts[:, None], turned, torch.full((), float(IGNORE), device=x.device))
