"""A model: primitives and materials put together in an object's own frame.

Object frame: x forward (the way the object faces), y up, z to the object's left, origin on the ground below the object's middle, metres.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from bench.data.synthetic.primitives import BOX, CAPSULE, ELLIPSOID, FRUSTUM, RECTANGLE, RING, Primitive
from bench.data.synthetic.texture import Material

Vector = tuple[float, float, float]
SIDES = (("l", 1.0), ("r", -1.0))  # PASCAL-Part prefix and the sign of z
_REACH = {RECTANGLE: 0.0}  # local y extent where it is not 1


def turn(*, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Return the (3, 3) rotation about y (yaw), then z (pitch: nose up), then x (roll), angles in radians."""
    cy, sy, cp, sp, cr, sr = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll)
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_z = np.array([[cp, -sp, 0], [sp, cp, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return about_y @ about_z @ about_x


def _frame_along(start: Vector, end: Vector) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the middle of a segment, a rotation whose local y runs along it, and its half length."""
    x, y, z = (b - a for a, b in zip(start, end, strict=True))
    length = math.sqrt(x * x + y * y + z * z) or 1e-9
    x, y, z = x / length, y / length, z / length
    flat = math.sqrt(x * x + y * y)
    side = (-y / flat, x / flat, 0.0) if flat > 1e-6 else (1.0, 0.0, 0.0)
    third = (side[1] * z - side[2] * y, side[2] * x - side[0] * z, side[0] * y - side[1] * x)
    rotation = np.array([[side[0], x, third[0]], [side[1], y, third[1]], [side[2], z, third[2]]])
    return np.array([(a + b) / 2 for a, b in zip(start, end, strict=True)]), rotation, length / 2


def reach(start: Vector, length: float, swing: float, spread: float) -> Vector:
    """Return the end of a limb that hangs from `start`, swung forward by `swing` and sideways (z) by `spread`, radians."""
    return (
        start[0] + length * math.sin(swing) * math.cos(spread),
        start[1] - length * math.cos(swing) * math.cos(spread),
        start[2] + length * math.sin(spread),
    )


@dataclass
class Model:
    """Primitives and materials of one object, filled by the methods below; each `material` argument is an index from `paint`."""

    primitives: list[Primitive] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)

    def paint(self, material: Material) -> int:
        """Add a material and return its index."""
        self.materials.append(material)
        return len(self.materials) - 1

    def _add(self, kind: int, center, rotation, scale, shape: float, material: int, part: str | None) -> None:
        rotation = np.eye(3) if rotation is None else rotation
        self.primitives.append(
            Primitive(
                kind=kind,
                center=np.asarray(center, dtype=np.float64),
                rotation=rotation,
                scale=np.asarray(scale, dtype=np.float64),
                shape=shape,
                material=material,
                part=part,
            )
        )

    def ellipsoid(
        self, center: Vector, half: Vector, material: int, *, rotation: np.ndarray | None = None, part: str | None = None
    ) -> None:
        """Add an ellipsoid with half axes `half`, metres."""
        self._add(ELLIPSOID, center, rotation, half, 0.0, material, part)

    def box(self, center: Vector, half: Vector, material: int, *, rotation: np.ndarray | None = None, part: str | None = None) -> None:
        """Add a box with half sizes `half`, metres."""
        self._add(BOX, center, rotation, half, 0.0, material, part)

    def rectangle(self, center: Vector, half: tuple[float, float], material: int, rotation: np.ndarray) -> None:
        """Add a flat rectangle in the plane of the first and third local axes."""
        self._add(RECTANGLE, center, rotation, (half[0], 1.0, half[1]), 0.0, material, None)

    def capsule(self, start: Vector, end: Vector, radius: float, material: int, *, part: str | None = None) -> None:
        """Add a capsule about the segment from `start` to `end`."""
        center, rotation, half_length = _frame_along(start, end)
        self._add(CAPSULE, center, rotation, (radius, radius, radius), half_length / radius, material, part)

    def limb(self, joints: tuple[Vector, Vector, Vector], radius: float, materials: tuple[int, int], parts: tuple[str, str]) -> None:
        """Add an upper and a thinner lower limb through three joints."""
        self.capsule(joints[0], joints[1], radius, materials[0], part=parts[0])
        self.capsule(joints[1], joints[2], radius * 0.78, materials[1], part=parts[1])

    def frustum(self, start: Vector, end: Vector, radii: tuple[float, float], material: int, *, part: str | None = None) -> None:
        """Add a cylinder or cone from `start` (first radius) to `end` (second radius)."""
        if radii[1] > radii[0]:
            start, end, radii = end, start, (radii[1], radii[0])
        center, rotation, half_length = _frame_along(start, end)
        self._add(FRUSTUM, center, rotation, (radii[0], half_length, radii[0]), radii[1] / radii[0], material, part)

    def cone(self, center: Vector, half: Vector, taper: float, material: int, *, upside_down: bool = False) -> None:
        """Add an upright elliptical frustum with half sizes `half` at its wide end, metres, and the narrow end's share of them."""
        rotation = np.diag([1.0, -1.0, 1.0]) if upside_down else None
        self._add(FRUSTUM, center, rotation, half, taper, material, None)

    def ring(self, center: Vector, axis: Vector, radius: float, inner: float, half_width: float, material: int) -> None:
        """Add a hollow cylinder about `axis`; `inner` is the inner radius as a share of `radius`."""
        end = tuple(c + a for c, a in zip(center, axis, strict=True))
        _, rotation, _ = _frame_along(center, end)
        self._add(RING, center, rotation, (radius, half_width, radius), inner, material, None)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper corner (3,) of the axis-aligned box around all primitives, metres."""
        centers = np.stack([p.center for p in self.primitives])
        reach = np.stack([p.scale * (1, _REACH.get(p.kind, 1.0) + p.shape * (p.kind == CAPSULE), 1) for p in self.primitives])
        rotations = np.abs(np.stack([p.rotation for p in self.primitives]))
        extents = (rotations * reach[:, None, :]).sum(-1)
        return (centers - extents).min(0), (centers + extents).max(0)
