"""Procedural solid textures: a scalar in [0, 1] from three texture coordinates, and the materials that use them.

Value noise on a lattice follows the idea of Perlin, "An image synthesizer", SIGGRAPH 1985. Only sums, products, divisions, square roots
and table look-ups touch the pixels, no transcendental function and no BLAS: those differ in the last bit between processors, and the
same seed has to give the same bytes.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_LATTICE = 16  # period of the noise in lattice cells, a power of two
_TABLE = np.random.default_rng(20240331).random(_LATTICE**3, dtype=np.float32)

Colour = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Material:
    """Surface look of one or more primitives of one object.

    Attributes:
        texture: A key of `TEXTURES`.
        low: RGB in [0, 1] where the texture is 0.
        high: RGB in [0, 1] where the texture is 1.
        frequency: Texture periods per metre along the three object axes.
        offset: Shift of the texture coordinates, in periods.
        shine: Strength of the specular highlight, 0 (matt) to 1.
        mottle: Strength of the slow brightness variation, 0 to 1.
    """

    texture: str
    low: Colour
    high: Colour
    frequency: tuple[float, float, float] = (4.0, 4.0, 4.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shine: float = 0.1
    mottle: float = 0.2


def colour(
    rng: np.random.Generator,
    hue: tuple[float, float] = (0.0, 1.0),
    saturation: tuple[float, float] = (0.0, 1.0),
    value: tuple[float, float] = (0.2, 0.9),
) -> Colour:
    """Draw an RGB colour, uniform in a box of HSV; hues wrap around at 1."""
    return colorsys.hsv_to_rgb(rng.uniform(*hue) % 1.0, rng.uniform(*saturation), rng.uniform(*value))


def shade_of(base: Colour, factor: float) -> Colour:
    """Return the colour made darker (factor < 1) or lighter (factor > 1), clipped to [0, 1]."""
    return tuple(min(1.0, channel * factor) for channel in base)


def offset_of(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw a shift of the texture coordinates, so that no two objects show the same stretch of a texture."""
    return tuple(rng.uniform(0, 16, 3))


def value_noise(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Interpolate a random lattice smoothly.

    Args:
        x: Texture coordinate, float32, any shape; one lattice cell per unit. Likewise `y` and `z`.

    Returns:
        Float32 in [0, 1), same shape.
    """
    corners, weights = [], []
    for coordinate, stride in ((x, _LATTICE**2), (y, _LATTICE), (z, 1)):
        cell = np.floor(coordinate)
        fraction = coordinate - cell
        low = cell.astype(np.int32) & (_LATTICE - 1)
        corners.append((low * stride, ((low + 1) & (_LATTICE - 1)) * stride))
        weights.append(fraction * fraction * (3 - 2 * fraction))
    (x0, x1), (y0, y1), (z0, z1) = corners
    wx, wy, wz = weights
    edges = []
    for xi in (x0, x1):
        for yi in (y0, y1):
            base = xi + yi
            near = _TABLE.take(base + z0)
            edges.append(near + wz * (_TABLE.take(base + z1) - near))
    left = edges[0] + wy * (edges[1] - edges[0])
    right = edges[2] + wy * (edges[3] - edges[2])
    return left + wx * (right - left)


def _fraction(value: np.ndarray) -> np.ndarray:
    return value - np.floor(value)


def _triangle(value: np.ndarray) -> np.ndarray:
    return np.abs(_fraction(value) - np.float32(0.5)) * 2


def _sharpen(value: np.ndarray, threshold: float, slope: float) -> np.ndarray:
    return np.clip((value - np.float32(threshold)) * np.float32(slope) + np.float32(0.5), 0, 1)


def _random_of_cell(x: np.ndarray, y: np.ndarray, z: np.ndarray, salt: int) -> np.ndarray:
    index = np.floor(x).astype(np.int32) * 73 + np.floor(y).astype(np.int32) * 179 + np.floor(z).astype(np.int32) * 283 + salt
    return _TABLE.take(index & (_LATTICE**3 - 1))


def _plain(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.zeros_like(x)


def _gradient(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.clip(y, 0, 1)


def _stripes(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _sharpen(_triangle(x + y + z), 0.5, 5)


def _checks(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.mod(np.floor(x) + np.floor(y) + np.floor(z), 2)


def _clouds(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _sharpen(value_noise(x, y, z) * np.float32(0.65) + value_noise(2 * x, 2 * y, 2 * z) * np.float32(0.35), 0.5, 2)


def _patches(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _sharpen(value_noise(x, y, z), 0.52, 14)


def _spots(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    squared = np.zeros_like(x)
    for axis, coordinate in enumerate((x, y, z)):
        centre = np.float32(0.35) + np.float32(0.3) * _random_of_cell(x, y, z, 11 * axis + 5)
        squared += (_fraction(coordinate) - centre) ** 2
    radius = np.float32(0.15) + np.float32(0.25) * _random_of_cell(x, y, z, 97)
    return _sharpen(radius - np.sqrt(squared), 0.0, 10)


def _tabby(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _sharpen(_triangle(x + np.float32(0.5) * value_noise(2 * x, y, z)), 0.55, 4)


def _wood(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    slow = np.float32(0.2)
    return _triangle(np.sqrt(z * z + y * y) + np.float32(0.8) * value_noise(slow * x, y, z))


def _bricks(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    shifted = (x + z) * np.float32(0.5) + np.float32(0.5) * np.mod(np.floor(y), 2)
    return ((_fraction(y) > 0.14) & (_fraction(shifted) > 0.07)).astype(np.float32)


def _panes(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    across, up = _fraction(x + z), _fraction(y)
    return ((across > 0.2) & (across < 0.85) & (up > 0.25) & (up < 0.85)).astype(np.float32)


def _zigzag(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _sharpen(_triangle(y + _triangle(x + z) * np.float32(0.7)), 0.5, 5)


def _rings(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _sharpen(_triangle(np.sqrt(x * x + y * y + z * z)), 0.45, 6)


def _marble(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    half = np.float32(0.5)
    return _triangle((x + y) * half + 2 * value_noise(x, y, z)) ** 3


def _plaid(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    half = np.float32(0.5)
    return half * (_sharpen(_triangle(x + z), 0.6, 8) + _sharpen(_triangle(y), 0.6, 8))


def _mosaic(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return _random_of_cell(x, y, z, 41)


TEXTURES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": _plain,
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "clouds": _clouds,
    "patches": _patches,
    "spots": _spots,
    "tabby": _tabby,
    "wood": _wood,
    "bricks": _bricks,
    "panes": _panes,
    "zigzag": _zigzag,
    "rings": _rings,
    "marble": _marble,
    "plaid": _plaid,
    "mosaic": _mosaic,
}
