"""From placed models to pixels: assembly, deferred shading, sky, lens and sensor.

Lambert reflection, a hemispheric ambient term and a slight Blinn highlight (Blinn, "Models of light reflection", SIGGRAPH 1977) on the true
normals, with soft contact shadows on the ground. Shape letters: N primitives, M materials, P hit pixels, h x w image.
"""

from dataclasses import dataclass

import numpy as np

from bench.data.synthetic.model import Model
from bench.data.synthetic.primitives import Camera, Solids, dot, surface_normals, trace
from bench.data.synthetic.texture import TEXTURES, Colour, Material, value_noise


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A model in the camera's frame: camera point = `rotation` @ object point + `position`.

    Attributes:
        model: What is placed.
        rotation: (3, 3) orthogonal; a reflection, because object frames are y-up and left-handed.
        position: (3,) metres.
    """

    model: Model
    rotation: np.ndarray
    position: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Light:
    """Illumination and sensor.

    Attributes:
        direction: (3,) unit vector towards the light, camera coordinates.
        up: (3,) unit vector, the world's up in camera coordinates.
        sun: RGB strength of the directional light.
        ambient: RGB strength of the ambient light.
        haze: Share of the sky's colour mixed in at `haze_depth` metres, 0 to 1.
        haze_depth: Metres.
        sky: Two RGB colours, at the horizon and above it.
        noise: Standard deviation of the sensor noise, in units of full scale.
    """

    direction: np.ndarray
    up: np.ndarray
    sun: Colour
    ambient: Colour
    haze: float
    haze_depth: float
    sky: tuple[Colour, Colour]
    noise: float


@dataclass(frozen=True, kw_only=True)
class Hits:
    """What the camera sees.

    Attributes:
        depth: (h, w) float32, metres along the viewing axis, inf where nothing is hit.
        primitive: (h, w) int32, index over all primitives of all models in order, -1 where nothing is hit.
        owner: (N + 1,) int64, the model of each primitive, -1 last, so that owner[primitive] works on the whole image.
        normals: (h, w, 3) float32, camera coordinates (x right, y down, z forward), (0, 0, -1) where nothing is hit.
    """

    depth: np.ndarray
    primitive: np.ndarray
    owner: np.ndarray
    normals: np.ndarray


def assemble(placed: list[Placed]) -> Solids:
    """Bring the primitives of all models into camera coordinates."""
    rotation = np.concatenate([np.repeat(p.rotation[None], len(p.model.primitives), 0) for p in placed])
    position = np.concatenate([np.repeat(p.position[None], len(p.model.primitives), 0) for p in placed])
    primitives = [primitive for p in placed for primitive in p.model.primitives]
    centers = np.stack([p.center for p in primitives])
    local = np.stack([p.rotation for p in primitives])
    return Solids(
        kind=np.array([p.kind for p in primitives]),
        center=(rotation * centers[:, None, :]).sum(-1) + position,
        rotation=(rotation[:, :, :, None] * local[:, None, :, :]).sum(2),
        scale=np.stack([p.scale for p in primitives]),
        shape=np.array([p.shape for p in primitives], dtype=np.float64),
    )


def see(placed: list[Placed], camera: Camera) -> Hits:
    """Trace all models and compute the normals of the visible surfaces."""
    solids = assemble(placed)
    depth, primitive = trace(solids, camera)
    owner = np.concatenate([np.full(len(p.model.primitives), number) for number, p in enumerate(placed)] + [np.array([-1])])
    normals = np.zeros((camera.height, camera.width, 3), dtype=np.float32)
    normals[..., 2] = -1
    seen = primitive >= 0
    normals[seen] = surface_normals(solids, primitive[seen], _points(depth, seen, camera)).T
    return Hits(depth=depth, primitive=primitive, owner=owner, normals=normals)


def _points(depth: np.ndarray, seen: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the camera coordinates (3, P) of the pixels where `seen`."""
    columns, rows = camera.slopes()
    row, column = np.nonzero(seen)
    distance = depth[seen]
    return np.stack((columns[column] * distance, rows[row] * distance, distance))


def _texture_maps(placed: list[Placed]) -> tuple[list[Material], np.ndarray]:
    """Return all materials, and the maps (3, 4, M) float32 from homogeneous camera points to their texture coordinates."""
    materials, maps = [], []
    for p in placed:
        for material in p.model.materials:
            matrix = np.array(material.frequency)[:, None] * p.rotation.T
            offset = np.array(material.offset) - (matrix * p.position).sum(1)
            materials.append(material)
            maps.append(np.concatenate((matrix, offset[:, None]), 1))
    return materials, np.stack(maps, -1).astype(np.float32)


def _albedo(placed: list[Placed], numbers: np.ndarray, points: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate the textures at `points` (3, P) with material `numbers` (P,); return RGB (3, P) and shine (P,)."""
    materials, maps = _texture_maps(placed)
    per_pixel = maps.take(numbers, axis=2)
    coordinates = [dot(row[:3], points) + row[3] for row in per_pixel]
    kinds = list(TEXTURES)
    kind_of = np.array([kinds.index(m.texture) for m in materials])
    kind = kind_of.take(numbers)
    mask = np.zeros(points.shape[1], dtype=np.float32)
    for number in sorted(set(kind_of.tolist())):
        chosen = np.flatnonzero(kind == number)
        if chosen.size:
            mask[chosen] = TEXTURES[kinds[number]](*(c.take(chosen) for c in coordinates))
    finest = np.array([max(m.frequency) for m in materials], dtype=np.float32).take(numbers)
    sharpness = np.clip(np.float32(focal) / (points[2] * finest * 3) - np.float32(0.3), 0, 1)  # fades what the pixels cannot resolve
    mask = np.float32(0.5) + (mask - np.float32(0.5)) * np.where(kind < 2, np.float32(1), sharpness)
    look = np.array([(*m.low, *m.high, m.shine, m.mottle) for m in materials], dtype=np.float32).T.take(numbers, axis=1)
    colours = look[:3] + (look[3:6] - look[:3]) * mask
    slow = np.float32(0.45)
    mottle = value_noise(*(c * slow for c in coordinates)) - np.float32(0.5)
    return colours * (1 + look[7] * sharpness * mottle), look[6]


def _sky(x: np.ndarray, y: np.ndarray, light: Light) -> np.ndarray:
    """Return the sky's RGB (3, P) for viewing directions (x, y, 1), both (P,)."""
    up = light.up.astype(np.float32)
    elevation = np.clip((x * up[0] + y * up[1] + up[2]) / np.sqrt(1 + x * x + y * y), 0, 1)
    clouds = value_noise(x * 4 + 7, y * 9 + 3, elevation * 5) * np.float32(0.5)
    mix = np.clip(2 * elevation - clouds + np.float32(0.2), 0, 1)
    low, high = (np.array(c, dtype=np.float32)[:, None] for c in light.sky)
    return low + (high - low) * mix


def _lit(albedo: np.ndarray, shine: np.ndarray, points: np.ndarray, normals: np.ndarray, light: Light, shadows: list) -> np.ndarray:
    """Return the reflected RGB (3, P); the arguments are as in `shade`, for hit pixels only, channels first."""
    direction, up = (v.astype(np.float32)[:, None] for v in (light.direction, light.up))
    lambert, upness = np.maximum(dot(normals, direction), 0), dot(normals, up)
    open_sky = np.float32(0.75) + np.float32(0.25) * upness
    for foot, radius in shadows:
        offset = (points - foot.astype(np.float32)[:, None]) * np.float32(1 / radius)
        kept = 1 - np.float32(0.6) * np.maximum(1 - dot(offset, offset), 0) * (upness > 0.95)
        open_sky, lambert = open_sky * kept, lambert * kept
    distance = np.sqrt(dot(points, points))
    half_way = direction - points / distance
    highlight = np.maximum(dot(normals, half_way), 0) ** 2 / (dot(half_way, half_way) + np.float32(1e-6))
    for _ in range(4):  # squared five times in all: to the power 32
        highlight = highlight * highlight
    sun, ambient, haze_colour = (np.array(c, dtype=np.float32)[:, None] for c in (light.sun, light.ambient, light.sky[0]))
    reflected = albedo * (lambert * sun + open_sky * ambient) + shine * highlight * sun
    far = np.float32(light.haze) * distance / (distance + np.float32(light.haze_depth))
    return reflected + (haze_colour - reflected) * far


def shade(placed: list[Placed], hits: Hits, camera: Camera, light: Light, shadows: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Colour what the camera sees, before lens and sensor.

    Args:
        placed: The models.
        hits: What `see` returned for them.
        camera: The camera.
        light: The illumination.
        shadows: Contact shadows as (camera point (3,) of an object's foot, radius in metres), cast on surfaces that face up.

    Returns:
        RGB (h, w, 3) float32, full scale 1.
    """
    image = np.empty((*hits.depth.shape, 3), dtype=np.float32)
    seen = hits.primitive >= 0
    if not seen.all():
        columns, rows = camera.slopes()
        row, column = np.nonzero(~seen)
        image[row, column] = _sky(columns[column], rows[row], light).T
    first = np.cumsum([0] + [len(p.model.materials) for p in placed])
    material_of = np.array([first[i] + q.material for i, p in enumerate(placed) for q in p.model.primitives])
    points = _points(hits.depth, seen, camera)
    albedo, shine = _albedo(placed, material_of.take(hits.primitive[seen]), points, camera.focal)
    image[seen] = _lit(albedo, shine, points, np.ascontiguousarray(hits.normals[seen].T), light, shadows).T
    return image


def expose(image: np.ndarray, noise: float, blur: float, rng: np.random.Generator) -> np.ndarray:
    """Apply lens blur and sensor noise.

    Args:
        image: RGB (h, w, 3) float32, full scale 1.
        noise: Standard deviation of the noise in units of full scale; bright pixels get up to twice that.
        blur: Weight of each of the two neighbours in a three-tap filter along rows and columns, 0 to 0.25.
        rng: Source of the noise.

    Returns:
        RGB (h, w, 3) uint8.
    """
    weight = np.float32(blur)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[1:-1] * (1 - 2 * weight) + (padded[:-2] + padded[2:]) * weight
    smooth = rows[:, 1:-1] * (1 - 2 * weight) + (rows[:, :-2] + rows[:, 2:]) * weight
    grain = rng.standard_normal(smooth.shape, dtype=np.float32) * np.float32(noise)
    noisy = smooth + grain * (1 + np.clip(smooth, 0, 1))
    return (np.clip(noisy, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
