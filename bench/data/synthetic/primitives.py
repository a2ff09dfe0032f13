"""Rays against ellipsoids, boxes, frustums, capsules, rings and rectangles: hits through a z-buffer, normals from the hit points.

Every primitive is a unit shape under an affine map, so that a ray is intersected in the primitive's own coordinates; the ray parameter
is the same there, and rays have a unit z component, so the parameter is the depth in metres. Camera axes: x right, y down, z forward.
Shape letters: N primitives, P hit pixels, h x w image.
"""

from dataclasses import dataclass

import numpy as np

ELLIPSOID, BOX, FRUSTUM, CAPSULE, RING, RECTANGLE = range(6)
NEAR = 0.05  # metres: nothing closer to the camera is drawn
_TINY = np.float32(1e-12)


@dataclass(frozen=True, kw_only=True)
class Primitive:
    """One solid in the frame of the object that it belongs to.

    Attributes:
        kind: ELLIPSOID, BOX, FRUSTUM (radius 1 at local y = -1, `shape` at y = 1), CAPSULE (`shape` = half length / radius), RING (hollow
            cylinder about local y, inner radius `shape`) or RECTANGLE (local y = 0, |x| <= 1, |z| <= 1).
        center: Position (3,), metres.
        rotation: (3, 3) orthogonal, columns are the local axes.
        scale: (3,) metres per local unit.
        shape: The kind's own number, else 0.
        material: Index into the object's materials.
        part: PASCAL-Part name, or None.
    """

    kind: int
    center: np.ndarray
    rotation: np.ndarray
    scale: np.ndarray
    shape: float = 0.0
    material: int = 0
    part: str | None = None


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Pinhole camera at the origin.

    Attributes:
        height: Image rows.
        width: Image columns.
        focal: Focal length, pixels.
    """

    height: int
    width: int
    focal: float

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x/z of every column (w,) and y/z of every row (h,), float32; the principal point is the image centre."""
        columns = (np.arange(self.width, dtype=np.float64) + 0.5 - self.width / 2) / self.focal
        rows = (np.arange(self.height, dtype=np.float64) + 0.5 - self.height / 2) / self.focal
        return columns.astype(np.float32), rows.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Solids:
    """All primitives of a scene in camera coordinates, as arrays.

    Attributes:
        kind: (N,) int.
        center: (N, 3) float64, metres.
        rotation: (N, 3, 3) float64, columns are the local axes.
        scale: (N, 3) float64, metres per local unit.
        shape: (N,) float64.
    """

    kind: np.ndarray
    center: np.ndarray
    rotation: np.ndarray
    scale: np.ndarray
    shape: np.ndarray

    @property
    def to_local(self) -> np.ndarray:
        """(N, 3, 3) float32 M with local direction = camera direction @ M, and camera normal = M @ local gradient."""
        return (self.rotation / self.scale[:, None, :]).astype(np.float32)

    @property
    def eye(self) -> np.ndarray:
        """(N, 3) float32, the camera's position in local coordinates."""
        return (-(self.center[:, :, None] * self.rotation).sum(1) / self.scale).astype(np.float32)


def screen_boxes(solids: Solids, camera: Camera) -> np.ndarray:
    """Bound every primitive on the screen.

    Returns:
        (N, 4) int of row start, row stop, column start, column stop; empty where the primitive is out of view. A primitive that crosses
        the near plane gets the whole image.
    """
    reach = np.ones_like(solids.scale)
    reach[:, 1] = np.where(solids.kind == CAPSULE, solids.shape + 1, 1.0)
    reach[:, 1] = np.where(solids.kind == RECTANGLE, 0.0, reach[:, 1])
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
    offsets = signs[None] * (reach * solids.scale)[:, None]
    corners = solids.center[:, None] + (offsets[:, :, None, :] * solids.rotation[:, None]).sum(-1)
    depth = corners[..., 2]
    safe = np.maximum(depth, NEAR)
    columns = corners[..., 0] / safe * camera.focal + camera.width / 2
    rows = corners[..., 1] / safe * camera.focal + camera.height / 2
    low_high = np.stack((rows.min(1), rows.max(1), columns.min(1), columns.max(1)), 1)
    crossing = depth.min(1) < NEAR
    low_high[crossing] = (0, camera.height, 0, camera.width)
    limits = np.array([camera.height, camera.height, camera.width, camera.width], dtype=np.float64)
    boxes = np.clip(np.where([True, False, True, False], np.floor(low_high), np.ceil(low_high)), 0, limits).astype(np.int64)
    boxes[depth.max(1) < NEAR] = 0
    return boxes


def _entry_root(a: np.ndarray, b: np.ndarray, c: np.ndarray | float) -> np.ndarray:
    """Return the root of a t^2 + 2 b t + c where the ray enters, inf where it misses."""
    discriminant = b * b - a * c
    root = (-b - np.sqrt(np.maximum(discriminant, 0))) / np.where(np.abs(a) < _TINY, _TINY, a)
    return np.where(discriminant > 0, root, np.inf)


def _hit_ellipsoid(eye: np.ndarray, ray: list[np.ndarray], shape: float) -> np.ndarray:
    x, y, z = ray
    constant = eye[0] * eye[0] + eye[1] * eye[1] + eye[2] * eye[2] - 1
    return _entry_root(x * x + y * y + z * z, eye[0] * x + eye[1] * y + eye[2] * z, constant)


def _hit_box(eye: np.ndarray, ray: list[np.ndarray], shape: float) -> np.ndarray:
    enter, leave = None, None
    for origin, direction in zip(eye, ray, strict=True):
        inverse = 1 / np.where(np.abs(direction) < _TINY, _TINY, direction)
        first, second = (-1 - origin) * inverse, (1 - origin) * inverse
        near, far = np.minimum(first, second), np.maximum(first, second)
        enter = near if enter is None else np.maximum(enter, near)
        leave = far if leave is None else np.minimum(leave, far)
    return np.where(enter <= leave, enter, np.inf)


def _hit_cap(eye: np.ndarray, ray: list[np.ndarray], inner: float, top: float) -> np.ndarray:
    """Hit the end disc that faces the camera: radius 1 at y = -1, `top` at y = 1, with a hole of radius `inner`."""
    x, y, z = ray
    above = y < 0
    depth = (np.where(above, np.float32(1), np.float32(-1)) - eye[1]) / np.where(np.abs(y) < _TINY, _TINY, y)
    px, pz = eye[0] + depth * x, eye[2] + depth * z
    squared = px * px + pz * pz
    return np.where((squared <= np.where(above, np.float32(top * top), np.float32(1))) & (squared >= inner * inner), depth, np.inf)


def _hit_frustum(eye: np.ndarray, ray: list[np.ndarray], shape: float) -> np.ndarray:
    x, y, z = ray
    slope, middle = np.float32((1 - shape) / 2), np.float32((1 + shape) / 2)
    radius = middle - slope * eye[1]
    side = _entry_root(
        x * x + z * z - slope * slope * y * y,
        eye[0] * x + eye[2] * z + slope * radius * y,
        eye[0] * eye[0] + eye[2] * eye[2] - radius * radius,
    )
    with np.errstate(invalid="ignore"):  # inf * 0 where the ray misses
        side = np.where(np.abs(eye[1] + side * y) <= 1, side, np.inf)
    cap = _hit_cap(eye, ray, 0.0, shape)
    return np.minimum(np.where(side < NEAR, np.inf, side), np.where(cap < NEAR, np.inf, cap))


def _hit_capsule(eye: np.ndarray, ray: list[np.ndarray], shape: float) -> np.ndarray:
    x, y, z = ray
    across, flat = x * x + z * z, eye[0] * x + eye[2] * z
    distance = eye[0] * eye[0] + eye[2] * eye[2] - 1
    side = _entry_root(across, flat, distance)
    with np.errstate(invalid="ignore"):
        height = eye[1] + side * y
        inside = np.abs(height) <= shape
        end = eye[1] - np.where(height > 0, np.float32(shape), np.float32(-shape))
    ball = _entry_root(across + y * y, flat + end * y, distance + end * end)
    return np.where(inside, side, np.where(np.isfinite(side), ball, np.inf))


def _hit_ring(eye: np.ndarray, ray: list[np.ndarray], shape: float) -> np.ndarray:
    x, y, z = ray
    across, flat = x * x + z * z, eye[0] * x + eye[2] * z
    squared = eye[0] * eye[0] + eye[2] * eye[2]
    discriminant = flat * flat - across * (squared - np.float32(shape * shape))
    inner = (np.sqrt(np.maximum(discriminant, 0)) - flat) / np.maximum(across, _TINY)
    best = _hit_cap(eye, ray, shape, 1.0)
    best = np.where(best < NEAR, np.inf, best)
    for depth in (_entry_root(across, flat, squared - 1), np.where(discriminant > 0, inner, np.inf)):
        with np.errstate(invalid="ignore"):
            valid = (np.abs(eye[1] + depth * y) <= 1) & (depth >= NEAR)
        best = np.where(valid, np.minimum(best, depth), best)
    return best


def _hit_rectangle(eye: np.ndarray, ray: list[np.ndarray], shape: float) -> np.ndarray:
    x, y, z = ray
    depth = -eye[1] / np.where(np.abs(y) < _TINY, _TINY, y)
    return np.where((np.abs(eye[0] + depth * x) <= 1) & (np.abs(eye[2] + depth * z) <= 1), depth, np.inf)


_HITS = (_hit_ellipsoid, _hit_box, _hit_frustum, _hit_capsule, _hit_ring, _hit_rectangle)


def trace(solids: Solids, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest primitive behind every pixel.

    Returns:
        Depth (h, w) float32 in metres along the viewing axis, inf where nothing is hit; index (h, w) int32 of the primitive, -1 there.
    """
    depth = np.full((camera.height, camera.width), np.inf, dtype=np.float32)
    index = np.full((camera.height, camera.width), -1, dtype=np.int32)
    columns, rows = camera.slopes()
    to_local, eyes = solids.to_local, solids.eye
    for number, (top, bottom, left, right) in enumerate(screen_boxes(solids, camera)):
        if top >= bottom or left >= right:
            continue
        matrix = to_local[number]
        across = columns[left:right, None] * matrix[0]
        down = rows[top:bottom, None] * matrix[1] + matrix[2]
        ray = [down[:, axis, None] + across[None, :, axis] for axis in range(3)]
        found = _HITS[solids.kind[number]](eyes[number], ray, float(solids.shape[number]))
        window = (slice(top, bottom), slice(left, right))
        nearer = (found < depth[window]) & (found >= NEAR)
        np.copyto(depth[window], found, where=nearer)
        np.copyto(index[window], np.int32(number), where=nearer)
    return depth, index


def _local_gradient(kind: int, point: np.ndarray, ray_y: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Return the outward gradient (3, P) of the unit shape `kind` at local surface points (3, P)."""
    if kind == ELLIPSOID:
        return point
    if kind == CAPSULE:
        height = point[1]
        return np.stack((point[0], height - np.clip(height, -shape, shape), point[2]))
    gradient = np.zeros_like(point)
    if kind == RECTANGLE:
        gradient[1] = np.where(ray_y > 0, -1, 1)
        return gradient
    if kind == BOX:
        axis, number = np.abs(point).argmax(0), np.arange(point.shape[1])
        gradient[axis, number] = np.sign(point[axis, number])
        return gradient
    radius = np.sqrt(point[0] ** 2 + point[2] ** 2)
    cap_error = np.abs(np.abs(point[1]) - 1)
    if kind == FRUSTUM:
        slope, middle = (1 - shape) / 2, (1 + shape) / 2
        side_radius = middle - slope * point[1]
        gradient = np.stack((point[0], slope * side_radius, point[2]))
        on_cap = cap_error < np.abs(radius - side_radius)
    else:
        sign = np.where(np.abs(radius - shape) < np.abs(radius - 1), np.float32(-1), np.float32(1))
        gradient[0], gradient[2] = sign * point[0], sign * point[2]
        on_cap = cap_error < np.minimum(np.abs(radius - shape), np.abs(radius - 1))
    gradient[:, on_cap] = 0
    gradient[1, on_cap] = np.sign(point[1, on_cap])
    return gradient


def dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the scalar product over the leading axis of length 3, added in a fixed order."""
    return first[0] * second[0] + first[1] * second[1] + first[2] * second[2]


def surface_normals(solids: Solids, index: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Compute the outward unit normal at hit points.

    Args:
        solids: The scene.
        index: (P,) int, the primitive hit.
        points: (3, P) float32, camera coordinates, metres.

    Returns:
        (3, P) float32 unit vectors in camera coordinates (x right, y down, z forward: visible surfaces have mostly negative z).
    """
    matrix = np.ascontiguousarray(solids.to_local.transpose(1, 2, 0)).take(index, axis=2)
    eye, shapes, kinds = solids.eye.T.take(index, axis=1), solids.shape.astype(np.float32).take(index), solids.kind.take(index)
    rays = dot(points[:, None], matrix)
    local = eye + rays
    gradient = np.empty_like(local)
    for kind in range(len(_HITS)):
        chosen = np.flatnonzero(kinds == kind)
        if chosen.size:
            gradient[:, chosen] = _local_gradient(kind, local.take(chosen, axis=1), rays[1].take(chosen), shapes.take(chosen))
    normals = dot(gradient, matrix.transpose(1, 0, 2))
    return normals / np.sqrt(np.maximum(dot(normals, normals), _TINY))
