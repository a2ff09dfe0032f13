"""One scene: sample what is in it, look at it through a camera, label what is seen.

Everything depends on one numpy Generator. World axes: x right, y up, z away from the camera, which stands above the origin; metres.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.data.synthetic.labels import Instance, class_map, context_map, saliency_map, visible_instances
from bench.data.synthetic.model import Model, turn
from bench.data.synthetic.objects import CLASSES, PERSON
from bench.data.synthetic.primitives import Camera
from bench.data.synthetic.render import Hits, Light, Placed, expose, see, shade
from bench.data.synthetic.scenery import Footprint, Piece, cabinet, landscape, room
from bench.data.synthetic.texture import colour

AEROPLANE, BIRD, BOAT, BOTTLE, POTTEDPLANT, TVMONITOR = 1, 3, 4, 5, 16, 20
SETTINGS = {
    "indoor": (5, 8, 9, 11, 12, 16, 18, 20),
    "street": (2, 6, 7, 12, 14, 19),
    "field": (1, 2, 3, 8, 10, 12, 13, 14, 17),
    "water": (1, 3, 4, 4, 4),
}
_SETTING_SHARES = (0.38, 0.25, 0.25, 0.12)
_PERSON_SHARE, _BARE_SHARE = 0.27, 0.15


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A rendered image and its labels.

    Attributes:
        image: (h, w, 3) uint8 RGB.
        semseg: (h, w) uint8, 0..20, 255 along object borders.
        label_map: (h, w) uint16, PASCAL-Context ids.
        normals: (h, w, 3) float32 unit vectors: x right, y down, z towards the viewer; the sky has (0, 0, 1).
        saliency: (h, w) uint8, graded.
        depth: (h, w) float32, metres along the viewing axis, inf for the sky.
        instances: The visible objects with their masks and parts.
    """

    image: np.ndarray
    semseg: np.ndarray
    label_map: np.ndarray
    normals: np.ndarray
    saliency: np.ndarray
    depth: np.ndarray
    instances: list[Instance]


@dataclass(frozen=True, kw_only=True)
class Item:
    """An object in the world.

    Attributes:
        class_id: 1 .. 20.
        model: Its primitives.
        yaw: Heading, radians.
        position: (3,) of the object frame's origin, metres.
        bare: Goes without annotated parts.
    """

    class_id: int
    model: Model
    yaw: float
    position: np.ndarray
    bare: bool

    def footprint(self) -> Footprint:
        """Return the circle that the object needs on the ground."""
        low, high = self.model.bounds()
        radius = math.hypot(max(-low[0], high[0]), max(-low[2], high[2]))
        return Footprint(x=float(self.position[0]), z=float(self.position[2]), radius=radius, height=float(self.position[1] + high[1]))


def draw_classes(rng: np.random.Generator, setting: str | None = None) -> tuple[str, list[int]]:
    """Draw the setting, unless it is given, and the classes of one to five objects, the main one first; half hold a person."""
    setting = setting or str(rng.choice(tuple(SETTINGS), p=_SETTING_SHARES))
    choices = SETTINGS[setting]
    count = int(rng.choice((1, 2, 3, 4, 5), p=(0.3, 0.28, 0.2, 0.13, 0.09)))
    person_share = 0.0 if setting == "water" else _PERSON_SHARE  # nobody walks on water
    return setting, [PERSON if rng.random() < person_share else int(rng.choice(choices)) for _ in range(count)]


def _base_height(rng: np.random.Generator, class_id: int, setting: str) -> float:
    """Draw the height of an object's base above the ground: things on furniture, things in the air."""
    if class_id == BOTTLE or (class_id in (TVMONITOR, POTTEDPLANT) and rng.random() < 0.6):
        return rng.uniform(0.35, 0.8) if rng.random() < 0.8 else 0.0
    if class_id == AEROPLANE and (setting == "water" or rng.random() < 0.5):
        return rng.uniform(1.0, 5.0)
    if class_id == BIRD and (setting == "water" or rng.random() < 0.3):
        return rng.uniform(0.3, 1.5)
    return 0.05 if class_id == BOAT else 0.0


def _heading(rng: np.random.Generator, class_id: int) -> float:
    """Draw a yaw: any, but screens and most persons turn their front to the camera, more or less."""
    if class_id == TVMONITOR or (class_id == PERSON and rng.random() < 0.5):
        return -math.pi / 2 + rng.uniform(-1.1, 1.1)
    return rng.uniform(0, 2 * math.pi)


def place_items(rng: np.random.Generator, classes: list[int], setting: str, camera: Camera) -> list[Item]:
    """Place the main object so that it fills a good part of the view, the others around it where there is room."""
    items: list[Item] = []
    taken: list[Footprint] = []
    main_depth = 0.0
    for class_id in classes:
        model = CLASSES[class_id][1](rng)
        low, high = model.bounds()
        radius, extent = math.hypot(max(-low[0], high[0]), max(-low[2], high[2])), float(max(high - low))
        base, bare = _base_height(rng, class_id, setting), bool(rng.random() < _BARE_SHARE)
        for _ in range(6):
            if items:
                depth = main_depth * rng.uniform(0.75, 2.2) + rng.uniform(0, 1)
                x = depth * rng.uniform(-0.5, 0.5) * camera.width / camera.focal
            else:
                share = rng.uniform(0.95, 1.9)  # objects cover a good quarter of the pixels, as in PASCAL VOC
                depth = main_depth = camera.focal * extent / (share * max(camera.width, camera.height)) + 0.4 + 0.6 * radius
                x = depth * rng.uniform(-0.2, 0.2) * camera.width / camera.focal
            yaw = _heading(rng, class_id)
            if depth - radius > 0.3 and all(math.hypot(x - f.x, depth - f.z) > 0.75 * (radius + f.radius) for f in taken):
                items.append(Item(class_id=class_id, model=model, yaw=yaw, position=np.array([x, base, depth]), bare=bare))
                taken.append(items[-1].footprint())
                break
    return items


def _supports(rng: np.random.Generator, items: list[Item]) -> list[Piece]:
    """Put a cabinet under what stands above the ground indoors."""
    pieces = []
    for item in items:
        if item.position[1] > 0.1:
            low, high = item.model.bounds()
            half = (max(-low[0], high[0]) + rng.uniform(0.03, 0.15), max(-low[2], high[2]) + rng.uniform(0.05, 0.3))
            model = cabinet(rng, half=half, height=float(item.position[1]))
            floor = item.position * (1, 0, 1)
            pieces.append(Piece(name="cabinet", model=model, rotation=turn(yaw=item.yaw), position=floor))
    return pieces


def _look(rng: np.random.Generator, main: Item) -> tuple[np.ndarray, float]:
    """Return the rotation (3, 3) from world to camera and the camera's height, so that the main object is near the middle."""
    low, high = main.model.bounds()
    middle = float(main.position[1] + (low[1] + high[1]) / 2)
    depth = float(main.position[2])
    eye = max(0.15, middle + rng.uniform(-0.15, 0.45) * depth)
    eye = min(eye, middle + 2.5)
    pitch = math.atan2(eye - middle, depth) + rng.uniform(-0.1, 0.1)
    roll = rng.uniform(-0.06, 0.06)
    cp, sp, cr, sr = math.cos(pitch), math.sin(pitch), math.cos(roll), math.sin(roll)
    level = np.array([[1, 0, 0], [0, -cp, -sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return tilt @ level, eye


def _light(rng: np.random.Generator, world_to_camera: np.ndarray, indoor: bool) -> Light:
    azimuth, elevation = rng.uniform(0, 2 * math.pi), rng.uniform(0.4, 1.35)
    direction = np.array([math.cos(elevation) * math.cos(azimuth), math.sin(elevation), math.cos(elevation) * math.sin(azimuth)])
    horizon = colour(rng, hue=(0.5, 0.7), saturation=(0.0, 0.25), value=(0.7, 1.0))
    zenith = colour(rng, hue=(0.52, 0.66), saturation=(0.1, 0.7), value=(0.5, 1.0))
    exposure = rng.uniform(0.8, 1.2)
    warm = rng.uniform(-0.08, 0.08)
    sun = exposure * rng.uniform(0.45, 1.0)
    ambient = exposure * rng.uniform(0.4, 0.7)
    return Light(
        direction=world_to_camera @ direction,
        up=world_to_camera @ np.array([0.0, 1.0, 0.0]),
        sun=(sun * (1 + warm), sun, sun * (1 - warm)),
        ambient=(ambient * (1 - warm / 2), ambient, ambient * (1 + warm / 2)),
        haze=0.0 if indoor else rng.uniform(0.2, 0.7),
        haze_depth=rng.uniform(20, 60),
        sky=(horizon, zenith),
        noise=rng.uniform(0.004, 0.025),
    )


def label_scene(
    placed: list[Placed], items: list[Item], scenery: list[str], camera: Camera, image_of: Callable[[Hits], np.ndarray]
) -> Scene:
    """Trace the scene, let `image_of(hits)` colour it, and read the labels off the hits; `placed` holds the items, then the scenery."""
    hits = see(placed, camera)
    owner = hits.owner[hits.primitive]
    class_ids = [item.class_id for item in items]
    instances = np.where(owner < len(items), owner, -1)
    part_names = [primitive.part for p in placed[: len(items)] for primitive in p.model.primitives]
    normals = hits.normals * np.array([1, 1, -1], dtype=np.float32)
    return Scene(
        image=image_of(hits),
        semseg=class_map(instances, class_ids),
        label_map=context_map(owner, class_ids, scenery),
        normals=normals,
        saliency=saliency_map(instances, hits.depth, len(items)),
        depth=hits.depth,
        instances=visible_instances(instances, hits.primitive, part_names, class_ids, [item.bare for item in items]),
    )


def render_scene(rng: np.random.Generator, height: int, width: int, *, setting: str | None = None) -> Scene:
    """Sample and render one scene.

    Args:
        rng: Source of everything.
        height: Rows of the image.
        width: Columns of the image.
        setting: A key of SETTINGS; drawn where None.

    Returns:
        Image and labels; at least one object is visible.
    """
    camera = Camera(height=height, width=width, focal=max(height, width) * rng.uniform(0.9, 1.5))
    drawn, classes = draw_classes(rng, setting)
    items = place_items(rng, classes, drawn, camera)
    world_to_camera, eye = _look(rng, items[0])
    footprints = [item.footprint() for item in items]
    if drawn == "indoor":
        pieces = _supports(rng, items) + room(rng, footprints, eye)
    else:
        pieces = landscape(rng, footprints, water=drawn == "water", street=drawn == "street")
    origin = np.array([0.0, eye, 0.0])
    placed = [
        Placed(model=model, rotation=world_to_camera @ rotation, position=world_to_camera @ (position - origin))
        for model, rotation, position in [(item.model, turn(yaw=item.yaw), item.position) for item in items]
        + [(piece.model, piece.rotation, piece.position) for piece in pieces]
    ]
    light = _light(rng, world_to_camera, drawn == "indoor")
    shadows = [
        (world_to_camera @ (item.position * (1, 0, 1) - origin), 0.9 * footprint.radius)
        for item, footprint in zip(items, footprints, strict=True)
        if item.position[1] < 0.1 or drawn == "indoor"
    ]

    def image_of(hits: Hits) -> np.ndarray:
        return expose(shade(placed, hits, camera, light, shadows), light.noise, rng.uniform(0, 0.2), rng)

    scene = label_scene(placed, items, [piece.name for piece in pieces], camera, image_of)
    return scene if scene.instances else render_scene(rng, height, width, setting=setting)
