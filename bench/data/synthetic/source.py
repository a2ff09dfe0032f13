"""The pretraining task: classify abstract objects, rendered by the same engine as the scenes.

A class is one of eight compositions of primitives in one of five texture families, neither of which the twenty object classes use in that
form. As with things in photographs, a class also leans towards a hue, with much overlap; pose, light, scale, scenery and distractors are
random. Scenery is calmer than the object in front of it.
"""

import math
from collections.abc import Callable

import numpy as np

from bench.data.synthetic.model import Model, turn
from bench.data.synthetic.primitives import Camera
from bench.data.synthetic.render import Light, Placed, expose, see, shade
from bench.data.synthetic.texture import Material, colour

SOURCE_TEXTURES = ("zigzag", "rings", "marble", "plaid", "mosaic")
_FREQUENCIES = ((2.0, 4.0), (2.0, 4.0), (2.0, 4.0), (2.0, 4.0), (4.0, 8.0))
_SCENERY_TEXTURES = ("plain", "clouds", "stripes", "checks", "patches", "gradient")
_CLASS_HUE_STEP = 0.381966  # neighbours in the list of classes lie far apart on the circle of hues
_HUE_SPREAD = 0.12
_AXES = ((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, -1.0))


def _tower(model: Model, rng: np.random.Generator, paint: int) -> None:
    for level, radius in enumerate((0.7, 0.5, 0.32)):
        y = -0.7 + 0.5 * level
        model.frustum((0, y, 0), (0, y + rng.uniform(0.3, 0.45), 0), (radius, radius), paint)


def _jack(model: Model, rng: np.random.Generator, paint: int) -> None:
    for axis in range(3):
        half = np.full(3, rng.uniform(0.1, 0.18))
        half[axis] = 0.9
        model.box((0, 0, 0), tuple(half), paint)


def _links(model: Model, rng: np.random.Generator, paint: int) -> None:
    inner, width = rng.uniform(0.6, 0.75), rng.uniform(0.1, 0.2)
    model.ring((-0.32, 0, 0), (0, 0, 1), 0.6, inner, width, paint)
    model.ring((0.32, 0, 0), (0, 1, 0), 0.6, inner, width, paint)


def _urchin(model: Model, rng: np.random.Generator, paint: int) -> None:
    model.ellipsoid((0, 0, 0), (0.4, 0.4, 0.4), paint)
    for axis in _AXES:
        start = tuple(0.3 * a for a in axis)
        model.frustum(start, tuple(0.95 * a for a in axis), (rng.uniform(0.15, 0.25), 0.0), paint)


def _arch(model: Model, rng: np.random.Generator, paint: int) -> None:
    width = rng.uniform(0.12, 0.2)
    for x in (-0.6, 0.6):
        model.box((x, -0.15, 0), (width, 0.7, 0.25), paint)
    model.box((0, 0.7, 0), (0.9, 0.16, 0.3), paint)


def _helix(model: Model, rng: np.random.Generator, paint: int) -> None:
    radius = rng.uniform(0.17, 0.24)
    for step in range(7):
        angle = step * 1.05
        model.ellipsoid((0.5 * math.cos(angle), -0.8 + 0.27 * step, 0.5 * math.sin(angle)), (radius, radius, radius), paint)


def _dumbbell(model: Model, rng: np.random.Generator, paint: int) -> None:
    model.capsule((-0.6, 0, 0), (0.6, 0, 0), rng.uniform(0.1, 0.16), paint)
    for x in (-0.65, 0.65):
        model.ellipsoid((x, 0, 0), (rng.uniform(0.2, 0.4), 0.45, 0.45), paint)


def _fan(model: Model, rng: np.random.Generator, paint: int) -> None:
    radius = rng.uniform(0.1, 0.14)
    for blade in range(5):
        angle = -0.8 + 0.4 * blade
        model.capsule((0, -0.6, 0), (1.3 * math.sin(angle), -0.6 + 1.3 * math.cos(angle), 0), radius, paint)


SOURCE_SHAPES: tuple[Callable[[Model, np.random.Generator, int], None], ...] = (
    _tower,
    _jack,
    _links,
    _urchin,
    _arch,
    _helix,
    _dumbbell,
    _fan,
)
SOURCE_CLASSES = len(SOURCE_SHAPES) * len(SOURCE_TEXTURES)


def _material(rng: np.random.Generator, class_index: int) -> Material:
    """Return the object's paint: two clearly different colours, one of them near the hue of the class."""
    texture = class_index % len(SOURCE_TEXTURES)
    base, hue = rng.uniform(*_FREQUENCIES[texture]), class_index * _CLASS_HUE_STEP % 1.0
    low, high = colour(rng, hue=(hue - _HUE_SPREAD, hue + _HUE_SPREAD), saturation=(0.4, 1.0), value=(0.4, 1.0)), colour(rng)
    while sum(abs(a - b) for a, b in zip(low, high, strict=True)) < 0.5:
        high = colour(rng, value=(0.1, 1.0))
    offset = tuple(rng.uniform(0, 16, 3))
    return Material(
        texture=SOURCE_TEXTURES[texture], low=low, high=high, frequency=(base, base, base), offset=offset, shine=rng.uniform(0, 0.3)
    )


def _calm_material(rng: np.random.Generator, frequency: tuple[float, float]) -> Material:
    """Return a paint of scenery: two shades of one muted colour."""
    low, base = colour(rng, saturation=(0.0, 0.5), value=(0.2, 0.9)), rng.uniform(*frequency)
    high = tuple(float(np.clip(channel * rng.uniform(0.75, 1.25), 0, 1)) for channel in low)
    texture, offset = str(rng.choice(_SCENERY_TEXTURES)), tuple(rng.uniform(0, 16, 3))
    return Material(texture=texture, low=low, high=high, frequency=(base, base, base), offset=offset, shine=rng.uniform(0, 0.2))


def _distractor(rng: np.random.Generator) -> Model:
    model = Model()
    paint = model.paint(_calm_material(rng, (2.0, 6.0)))
    half = tuple(rng.uniform(0.15, 0.45, 3))
    kind = rng.integers(3)
    if kind == 0:
        model.box((0, 0, 0), half, paint)
    elif kind == 1:
        model.ellipsoid((0, 0, 0), half, paint)
    else:
        model.frustum((0, -half[1], 0), (0, half[1], 0), (half[0], half[0] * rng.uniform(0, 1)), paint)
    return model


def _backdrop(rng: np.random.Generator) -> list[Placed]:
    """Return a floor below and a wall behind, each with its own texture."""
    surfaces = []
    for rotation, position in (
        (np.diag([1.0, -1.0, 1.0]) @ turn(yaw=rng.uniform(-1, 1)), (0, rng.uniform(0.9, 1.6), 6)),
        (turn(roll=math.pi / 2 + rng.uniform(-0.3, 0.3)), (0, 0, rng.uniform(7, 12))),
    ):
        model = Model()
        paint = model.paint(_calm_material(rng, (0.5, 2.5)))
        model.rectangle((0, 0, 0), (30, 30), paint, np.eye(3))
        surfaces.append(Placed(model=model, rotation=rotation, position=np.array(position, dtype=np.float64)))
    return surfaces


def _light(rng: np.random.Generator) -> Light:
    azimuth, elevation = rng.uniform(0, 2 * math.pi), rng.uniform(0.3, 1.4)
    flat = math.cos(elevation)
    direction = np.array([flat * math.cos(azimuth), -math.sin(elevation), -abs(flat * math.sin(azimuth))])
    tint = colour(rng, saturation=(0, 0.2), value=(0.6, 1.2))
    ambient = colour(rng, saturation=(0, 0.2), value=(0.3, 0.8))
    grey = (0.6, 0.6, 0.6)
    return Light(
        direction=direction,
        up=np.array([0.0, -1.0, 0.0]),
        sun=tint,
        ambient=ambient,
        haze=0.0,
        haze_depth=10.0,
        sky=(grey, grey),
        noise=rng.uniform(0.005, 0.03),
    )


def render_source_image(rng: np.random.Generator, class_index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Render one image of the pretraining task.

    Args:
        rng: Source of everything that is not the class.
        class_index: 0 .. SOURCE_CLASSES - 1: shape * number of textures + texture.
        size: Side of the square image, pixels.

    Returns:
        RGB (size, size, 3) uint8, and where the object is visible, (size, size) bool.

    Raises:
        ValueError: If the class or the size is out of range.
    """
    if not 0 <= class_index < SOURCE_CLASSES:
        raise ValueError(f"class_index is {class_index}; allowed are 0 to {SOURCE_CLASSES - 1}")
    if size < 16:
        raise ValueError(f"size is {size} pixels; ask for at least 16")
    camera = Camera(height=size, width=size, focal=size * rng.uniform(1.0, 1.6))
    model = Model()
    SOURCE_SHAPES[class_index // len(SOURCE_TEXTURES)](model, rng, model.paint(_material(rng, class_index)))
    depth = 2 * camera.focal / size / rng.uniform(0.65, 1.1)
    slack = 0.15 * depth * size / camera.focal
    pose = turn(yaw=rng.uniform(0, 2 * math.pi), pitch=rng.uniform(-0.7, 0.7), roll=rng.uniform(-0.7, 0.7))
    main = Placed(model=model, rotation=np.diag([1.0, -1.0, 1.0]) @ pose, position=np.array([*rng.uniform(-slack, slack, 2), depth]))
    placed = [main, *_backdrop(rng)]
    for _ in range(rng.integers(0, 3)):
        far = depth * rng.uniform(0.9, 1.8)
        reach = 0.5 * far * size / camera.focal
        position = np.array([rng.uniform(0.4, 1.0) * reach * rng.choice((-1, 1)), rng.uniform(-reach, reach), far])
        placed.append(Placed(model=_distractor(rng), rotation=turn(yaw=rng.uniform(0, 6), roll=rng.uniform(0, 6)), position=position))
    light, hits = _light(rng), see(placed, camera)
    image = expose(shade(placed, hits, camera, light, []), light.noise, rng.uniform(0, 0.2), rng)
    return image, hits.owner[hits.primitive] == 0
