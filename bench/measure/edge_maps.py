"""From an edge probability map to thin edges: non-maximum suppression and thinning. No torch, so that worker processes start fast.

Non-maximum suppression is that of structured edge detection (Dollár and Zitnick, arXiv 1406.5549), which the evaluation of edge detectors
has used since: slight smoothing, orientation from the second derivatives of a smoother copy, comparison with both neighbours one pixel away
across the edge, and less weight near the image's border. Thinning is Guo and Hall's (Communications of the ACM 32, 1989), as in
scikit-image and MATLAB.
"""

from functools import cache

import cv2
import numpy as np

TOLERATED = 1.01
"""How much larger a neighbour across the edge must be to suppress a pixel."""

BORDER = 5
"""Pixels from the image's border over which edges fade in: smoothing and derivatives know little there."""


def triangle(image: np.ndarray, radius: int) -> np.ndarray:
    """Smooth (h, w) float32 along rows and columns by a triangle of `radius` pixels on either side; borders are mirrored."""
    kernel = np.concatenate([np.arange(1, radius + 2), np.arange(radius, 0, -1)]).astype(np.float32) / np.float32((radius + 1) ** 2)
    return cv2.sepFilter2D(image, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT)


def across(edges: np.ndarray) -> np.ndarray:
    """Return the angle across the edge at every pixel, radians in [0, pi): x right, y down, from (h, w) float32."""
    dy, dx = np.gradient(triangle(edges, 4))
    dxy, dxx = np.gradient(dx)
    dyy = np.gradient(dy, axis=0)
    return np.mod(np.arctan(dyy * np.sign(-dxy) / (dxx + np.float32(1e-5))), np.pi)


def suppress(probability: np.ndarray) -> np.ndarray:
    """Keep the crests of an edge map: (h, w) float32 in 0..1, zero beside the crests."""
    edges = triangle(np.ascontiguousarray(probability, np.float32), 1)
    angle = across(edges)
    x, y = np.cos(angle), np.sin(angle)
    rows, columns = np.indices(edges.shape, dtype=np.float32)
    keep = edges > 0
    for sign in (-1, 1):
        keep &= edges * np.float32(TOLERATED) >= _between_pixels(edges, rows + sign * y, columns + sign * x)
    height, width = edges.shape
    fade = [np.minimum(np.minimum(np.arange(n), np.arange(n)[::-1]) / BORDER, 1) for n in (height, width)]
    return (edges * keep * fade[0][:, None] * fade[1]).astype(np.float32)


def _between_pixels(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Interpolate (h, w) linearly at positions, which are clipped to the image."""
    height, width = image.shape
    rows, columns = rows.clip(0, height - 1.001), columns.clip(0, width - 1.001)
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    down, right = rows - top, columns - left
    flat, corner = image.ravel(), top * width + left
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + width] * (1 - right) + flat[corner + width + 1] * right
    return upper * (1 - down) + lower * down


def thin(mask: np.ndarray) -> np.ndarray:
    """Thin (h, w) bool to lines one pixel wide, without parting them; equal to `skimage.morphology.thin`, and much faster."""
    tables, lines, before = deletable(), mask.astype(np.uint8), None
    while before is None or not np.array_equal(before, lines):
        before = lines
        for table in tables:
            around = cv2.filter2D(lines, cv2.CV_8U, _WEIGHTS, borderType=cv2.BORDER_CONSTANT)
            lines = lines & cv2.LUT(around, table)
    return lines.astype(bool)


_RING = ((1, 2), (0, 2), (0, 1), (0, 0), (1, 0), (2, 0), (2, 1), (2, 2))
"""The eight neighbours x1..x8 of Guo and Hall, counter-clockwise from the right, as (row, column) of a 3 x 3 window."""

_WEIGHTS = np.zeros((3, 3), np.float32)
for _bit, _place in enumerate(_RING):
    _WEIGHTS[_place] = 1 << _bit


@cache
def deletable() -> tuple[np.ndarray, np.ndarray]:
    """Return, for the two half-steps of a pass, what stays of a pixel by the byte of its neighbours: uint8 (256,), 0 or 1."""
    tables = np.ones((2, 256), np.uint8)
    for code in range(256):
        x = [code >> bit & 1 for bit in range(8)]  # x[0] is x1
        crossings = sum(not x[2 * i] and (x[2 * i + 1] or x[(2 * i + 2) % 8]) for i in range(4))
        pairs = [sum(x[(2 * i - 1 + shift) % 8] or x[(2 * i + shift) % 8] for i in range(4)) for shift in (0, 1)]
        if crossings != 1 or not 2 <= min(pairs) <= 3:
            continue
        tables[0, code] = bool((x[1] or x[2] or not x[7]) and x[0])
        tables[1, code] = bool((x[5] or x[6] or not x[3]) and x[4])
    return tables[0], tables[1]
