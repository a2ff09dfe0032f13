"""Rooms and landscapes: what surrounds the objects, with PASCAL-Context ids.

Indoors floor, walls, ceiling, door, window, curtain and cabinet: ids whose normals count. Outdoors sky, ground of a kind, trees, buildings,
mountains, fences: ids whose normals do not. World axes: x right, y up, z away from the camera, metres; the camera stands above the origin.
"""

import math
from dataclasses import dataclass

import numpy as np

from bench.data.synthetic.model import Model, turn
from bench.data.synthetic.texture import Colour, Material, colour, offset_of, shade_of

CONTEXT_IDS = {
    "wall": 440,
    "floor": 158,
    "ceiling": 68,
    "door": 115,
    "window": 454,
    "curtain": 105,
    "cabinet": 46,
    "sky": 360,
    "grass": 187,
    "ground": 189,
    "road": 324,
    "sidewalk": 354,
    "water": 445,
    "tree": 420,
    "building": 44,
    "mountain": 259,
    "snow": 366,
    "fence": 144,
}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of the scenery.

    Attributes:
        name: A key of CONTEXT_IDS.
        model: Its primitives, in its own frame (y up).
        rotation: (3, 3) from the model's frame to the world's.
        position: (3,) in the world, metres.
    """

    name: str
    model: Model
    rotation: np.ndarray
    position: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """The circle on the ground that an object needs.

    Attributes:
        x: World x, metres. Likewise `z`.
        radius: Metres.
        height: Metres above the ground that the object reaches.
    """

    x: float
    z: float
    radius: float
    height: float


def _surface(
    rng: np.random.Generator, base: Colour, textures: tuple[str, ...], frequency: tuple[float, float], shine: float = 0.05
) -> Material:
    texture, step = str(rng.choice(textures)), rng.uniform(*frequency)
    spacing = (
        (step, step, 0.0) if texture == "stripes" and rng.random() < 0.5 else (step, 0.0, 0.0) if texture == "stripes" else (step,) * 3
    )
    return Material(
        texture=texture,
        low=base,
        high=shade_of(base, rng.uniform(0.6, 0.9)),
        frequency=spacing,
        offset=offset_of(rng),
        shine=shine,
        mottle=0.3,
    )


def _panel(name: str, material: Material, center: np.ndarray, half: tuple[float, float], rotation: np.ndarray) -> Piece:
    """Return a rectangle whose first axis is horizontal and third axis vertical in its own frame, for any scenery that is flat."""
    model = Model()
    model.rectangle((0, 0, 0), half, model.paint(material), turn(roll=math.pi / 2))
    return Piece(name=name, model=model, rotation=rotation, position=center)


def _ground(name: str, material: Material, half: tuple[float, float], *, height: float = 0.0, yaw: float = 0.0, x: float = 0.0) -> Piece:
    model = Model()
    model.rectangle((0, 0, 0), half, model.paint(material), np.eye(3))
    return Piece(name=name, model=model, rotation=turn(yaw=yaw), position=np.array([x, height, 0.0]))


def cabinet(rng: np.random.Generator, *, half: tuple[float, float], height: float) -> Model:
    """Return a piece of furniture with a flat top at `height`, something to put a thing on."""
    model = Model()
    base = colour(rng, hue=(0.02, 0.14), saturation=(0.05, 0.7), value=(0.2, 0.9))
    grain = rng.uniform(8, 16)
    wood = model.paint(Material(texture="wood", low=base, high=shade_of(base, 0.7), frequency=(grain,) * 3, offset=offset_of(rng)))
    dark = model.paint(Material(texture="plain", low=shade_of(base, 0.4), high=shade_of(base, 0.4), shine=0.3))
    model.box((0, height / 2, 0), (half[0], height / 2, half[1]), wood)
    for z in (-half[1] / 2, half[1] / 2):
        model.box((half[0], height / 2, z), (0.012, height * 0.36, half[1] * 0.42), dark if rng.random() < 0.3 else wood)
        model.ellipsoid((half[0] + 0.02, height / 2, z * 0.6), (0.02, 0.02, 0.02), dark)
    return model


def _wall_things(rng: np.random.Generator, wall: tuple[np.ndarray, np.ndarray, float], height: float, rotation: np.ndarray) -> list[Piece]:
    """Return what hangs on one wall, given as (its foot below the camera's axis, its direction along the floor, its half length)."""
    foot, along, length = wall
    inward = -foot / max(float(np.sqrt((foot * foot).sum())), 1e-6)
    pieces = []
    place = rng.uniform(-0.6, 0.6) * min(length, 2.5)
    middle = foot + along * place + inward * 0.02
    kind = str(rng.choice(("window", "door", "nothing")))
    if kind == "door":
        tall = min(height * 0.85, 2.1)
        base = colour(rng, hue=(0.04, 0.14), saturation=(0.0, 0.7), value=(0.25, 0.95))
        pieces.append(
            _panel(
                "door",
                _surface(rng, base, ("wood", "plain", "panes"), (0.8, 2)),
                middle + np.array([0, tall / 2, 0]),
                (0.45, tall / 2),
                rotation,
            )
        )
    if kind == "window":
        bright = colour(rng, hue=(0.5, 0.65), saturation=(0.05, 0.4), value=(0.8, 1.2))
        half = (rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.6))
        glass = Material(texture="panes", low=(0.9, 0.9, 0.88), high=bright, frequency=(1.4, 1.4, 0.0), offset=offset_of(rng), shine=0.4)
        pieces.append(_panel("window", glass, middle + np.array([0, height * 0.58, 0]), half, rotation))
        if rng.random() < 0.5:
            cloth = Material(
                texture="stripes",
                low=colour(rng, value=(0.3, 0.95)),
                high=colour(rng, value=(0.3, 0.95)),
                frequency=(rng.uniform(4, 10), 0, 0),
            )
            for sign in (-1, 1):
                center = middle + along * sign * (half[0] + 0.12) + inward * 0.04 + np.array([0, height * 0.55, 0])
                pieces.append(_panel("curtain", cloth, center, (0.22, half[1] + 0.2), rotation))
    return pieces


def room(rng: np.random.Generator, footprints: list[Footprint], eye_height: float) -> list[Piece]:
    """Build a room around the camera and the objects: no object reaches through a wall or the ceiling."""
    yaw = rng.uniform(-0.6, 0.6)
    height = max(rng.uniform(2.2, 3.0), eye_height + 0.3, max(f.height for f in footprints) + 0.2)
    floor = _surface(
        rng, colour(rng, hue=(0.02, 0.15), saturation=(0, 0.6), value=(0.25, 0.9)), ("wood", "checks", "clouds", "bricks"), (1.2, 4), 0.2
    )
    paper = _surface(rng, colour(rng, saturation=(0, 0.4), value=(0.4, 1.0)), ("plain", "stripes", "clouds", "bricks", "spots"), (1.5, 6))
    top = _surface(rng, colour(rng, saturation=(0, 0.1), value=(0.7, 1.0)), ("plain", "clouds"), (1, 2))
    pieces = [_ground("floor", floor, (40, 40), yaw=yaw), _ground("ceiling", top, (40, 40), height=height, yaw=yaw)]
    for side in range(3):  # right, back, left of the camera
        angle = yaw + side * math.pi / 2
        outward, along = np.array([math.cos(angle), 0, math.sin(angle)]), np.array([-math.sin(angle), 0, math.cos(angle)])
        needed = max(outward[0] * f.x + outward[2] * f.z + f.radius for f in footprints)
        distance = max(needed + rng.uniform(0.1, 1.6), 0.8)
        rotation = turn(yaw=angle + math.pi / 2)
        wall = _panel("wall", paper, outward * distance + np.array([0, height / 2, 0]), (40, height / 2), rotation)
        pieces.append(wall)
        pieces.extend(_wall_things(rng, (outward * distance, along, distance), height, rotation))
    return pieces


_GROUNDS = {
    "grass": ((0.17, 0.35), (0.3, 0.8), ("clouds", "patches", "spots")),
    "ground": ((0.05, 0.13), (0.2, 0.6), ("clouds", "spots")),
    "road": ((0.0, 1.0), (0.0, 0.08), ("clouds", "plain")),
    "sidewalk": ((0.0, 1.0), (0.0, 0.12), ("bricks", "checks")),
    "snow": ((0.5, 0.65), (0.0, 0.08), ("clouds", "plain")),
    "water": ((0.45, 0.65), (0.2, 0.7), ("marble", "tabby", "clouds")),
}


def _soil(rng: np.random.Generator, name: str) -> Material:
    hue, saturation, textures = _GROUNDS[name]
    value = (0.75, 1.0) if name == "snow" else (0.2, 0.7)
    return _surface(rng, colour(rng, hue, saturation, value), textures, (0.8, 3.0), shine=0.4 if name == "water" else 0.03)


def _tree(rng: np.random.Generator) -> Model:
    model = Model()
    bark = colour(rng, hue=(0.04, 0.12), saturation=(0.2, 0.6), value=(0.15, 0.5))
    green = colour(rng, hue=(0.1, 0.4), saturation=(0.3, 0.9), value=(0.15, 0.65))
    trunk = model.paint(Material(texture="stripes", low=bark, high=shade_of(bark, 0.6), frequency=(9.0, 0, 9.0)))
    crown = model.paint(Material(texture="clouds", low=green, high=shade_of(green, 0.45), frequency=(3.5,) * 3, offset=offset_of(rng)))
    height = rng.uniform(1.8, 4.0)
    model.frustum((0, 0, 0), (0, 0.6 * height, 0), (0.05 * height, 0.03 * height), trunk)
    if rng.random() < 0.35:
        model.frustum((0, 0.2 * height, 0), (0, height, 0), (0.25 * height, 0.0), crown)
        return model
    for _ in range(3):
        x, z = rng.uniform(-0.14, 0.14, 2) * height
        model.ellipsoid((x, rng.uniform(0.6, 0.8) * height, z), tuple(rng.uniform(0.18, 0.28, 3) * height), crown)
    return model


def _building(rng: np.random.Generator) -> Model:
    model = Model()
    base = colour(rng, saturation=(0, 0.5), value=(0.3, 0.95))
    step = rng.uniform(0.5, 1.0)
    front = Material(
        texture=str(rng.choice(("panes", "bricks"))),
        low=base,
        high=shade_of(base, 0.4),
        frequency=(step,) * 3,
        offset=offset_of(rng),
        shine=0.1,
    )
    half = (rng.uniform(1.5, 4), rng.uniform(1.2, 4), rng.uniform(1.5, 4))
    model.box((0, half[1], 0), half, model.paint(front))
    return model


def _fence(rng: np.random.Generator) -> Model:
    model = Model()
    base = colour(rng, hue=(0.04, 0.14), saturation=(0, 0.6), value=(0.2, 0.95))
    wood = model.paint(Material(texture="wood", low=base, high=shade_of(base, 0.7), frequency=(6.0,) * 3))
    for x in np.arange(-3.0, 3.1, 0.6):
        model.box((x, 0.45, 0), (0.05, 0.45, 0.04), wood)
    for y in (0.35, 0.75):
        model.box((0, y, 0.04), (3.2, 0.05, 0.02), wood)
    return model


def _mountain(rng: np.random.Generator) -> Model:
    model = Model()
    base = colour(rng, hue=(0.08, 0.6), saturation=(0.05, 0.4), value=(0.25, 0.6))
    rock = model.paint(Material(texture="clouds", low=base, high=shade_of(base, 0.6), frequency=(0.12,) * 3, offset=offset_of(rng)))
    model.ellipsoid((0, 0, 0), (rng.uniform(20, 45), rng.uniform(6, 18), 12), rock)
    return model


_BACKGROUND = {"tree": _tree, "building": _building, "fence": _fence, "mountain": _mountain}


def landscape(rng: np.random.Generator, footprints: list[Footprint], *, water: bool, street: bool) -> list[Piece]:
    """Build the ground and what stands behind the objects."""
    main = "water" if water else "road" if street and rng.random() < 0.5 else str(rng.choice(("grass", "grass", "ground", "snow")))
    pieces = [_ground(main, _soil(rng, main), (300, 300), yaw=rng.uniform(-1, 1))]
    if street and main != "road":
        yaw, x = rng.uniform(-1.2, 1.2), rng.uniform(-2, 2)
        pieces.append(_ground("sidewalk", _soil(rng, "sidewalk"), (3.2, 200), height=0.006, yaw=yaw, x=x))
        pieces.append(_ground("road", _soil(rng, "road"), (2.3, 200), height=0.012, yaw=yaw, x=x))
    behind = max(f.z + f.radius for f in footprints)
    names = ("mountain", "mountain") if water else ("tree", "tree", "building", "fence", "mountain")
    for _ in range(int(rng.integers(1, 6))):
        name = str(rng.choice(names))
        distance = rng.uniform(70, 120) if name == "mountain" else behind + rng.uniform(1.5, 12) + (5 if name == "building" else 0)
        yaw = rng.uniform(-0.5, 0.5) if name in ("fence", "mountain") else rng.uniform(0, 2 * math.pi)
        position = np.array([rng.uniform(-0.55, 0.55) * distance, 0.0, distance])
        pieces.append(Piece(name=name, model=_BACKGROUND[name](rng), rotation=turn(yaw=yaw), position=position))
    return pieces
