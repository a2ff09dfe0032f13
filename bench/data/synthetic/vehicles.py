"""Vehicles among the PASCAL VOC classes, longer ones shortened so that all fit one scene. Each draws its own proportions and colours."""

import math

import numpy as np

from bench.data.synthetic.finishes import GLASS, metal, paintwork, rubber, smooth, upholstery, wooden
from bench.data.synthetic.model import SIDES, Model, turn
from bench.data.synthetic.texture import Material, colour, offset_of, shade_of


def _wheel(model: Model, center: tuple[float, float, float], radius: float, half_width: float, paints: tuple[int, int]) -> None:
    """Add a car wheel; paints: tyre, hub."""
    x, y, z = center
    model.frustum((x, y, z - half_width), (x, y, z + half_width), (radius, radius), paints[0])
    model.frustum((x, y, z - half_width * 1.1), (x, y, z + half_width * 1.1), (radius * 0.55, radius * 0.55), paints[1])


def aeroplane(rng: np.random.Generator) -> Model:
    """Build an airliner of 4 to 5 m, wheels out."""
    model = Model()
    base = colour(rng, saturation=(0, 0.35), value=(0.5, 1.0))
    hull = model.paint(
        Material(
            texture="panes", low=base, high=shade_of(base, 0.45), frequency=(3.0, 1.4, 0.0), offset=(0, rng.uniform(0, 1), 0), shine=0.5
        )
    )
    wing, accent, engine = smooth(model, shade_of(base, 0.8), 0.4), paintwork(model, rng), metal(model, rng)
    y, length = rng.uniform(0.8, 1.0), rng.uniform(1.9, 2.5)
    model.capsule((-length, y, 0), (length, y, 0), 0.32, hull)
    model.frustum((-length, y, 0), (-length - 1.0, y + 0.15, 0), (0.32, 0.05), hull)
    sweep = rng.uniform(0.2, 0.6)
    for _, sign in SIDES:
        model.box((-0.6 * sweep, y - 0.08, sign * 1.3), (0.45, 0.05, 1.2), wing, rotation=turn(yaw=-sign * sweep))
        model.box((-length - 0.55, y + 0.15, sign * 0.5), (0.28, 0.04, 0.5), wing, rotation=turn(yaw=-sign * sweep))
        model.capsule((0.25 - sweep, y - 0.28, sign * 1.0), (-0.25 - sweep, y - 0.28, sign * 1.0), 0.15, engine)
    model.box((-length - 0.6, y + 0.65, 0), (0.32, 0.55, 0.05), accent, rotation=turn(pitch=0.35))
    tyre = rubber(model, rng)
    for x, z in ((length * 0.7, 0.0), (-0.3, 0.4), (-0.3, -0.4)):
        model.capsule((x, y - 0.2, z), (x, 0.12, z), 0.05, engine)
        model.ellipsoid((x, 0.14, z), (0.14, 0.14, 0.07), tyre)
    return model


def bicycle(rng: np.random.Generator) -> Model:
    """Build a bicycle of real size."""
    model = Model()
    tyre, frame, steel, dark = rubber(model, rng), paintwork(model, rng), metal(model, rng), rubber(model, rng)
    radius, base = rng.uniform(0.31, 0.36), rng.uniform(0.48, 0.56)
    back, front, crank = (-base, radius, 0.0), (base, radius, 0.0), (-0.06, radius - 0.02, 0.0)
    seat, head = (-0.2, 0.85, 0.0), (base - 0.2, 0.85, 0.0)
    for hub in (back, front):
        model.ring(hub, (0, 0, 1), radius, 0.86, 0.025, tyre)
        model.ellipsoid(hub, (0.04, 0.04, 0.05), steel)
        for spoke in range(3):
            angle = spoke * math.pi / 3 + rng.uniform(0, 1)
            reach = (0.9 * radius * math.cos(angle), 0.9 * radius * math.sin(angle))
            model.capsule((hub[0] - reach[0], radius - reach[1], 0), (hub[0] + reach[0], radius + reach[1], 0), 0.007, steel)
    for start, end in ((crank, seat), (crank, head), (seat, head), (back, crank), (back, seat), (head, front)):
        model.capsule(start, end, 0.022, frame)
    model.ellipsoid((seat[0], 0.92, 0), (0.13, 0.035, 0.06), dark)
    model.capsule(head, (head[0] + 0.02, 1.0, 0), 0.018, steel)
    model.capsule((head[0] + 0.04, 1.0, -0.24), (head[0] + 0.04, 1.0, 0.24), 0.02, dark)
    for sign in (1, -1):
        model.box((crank[0] + sign * 0.12, crank[1] - sign * 0.08, sign * 0.09), (0.05, 0.012, 0.04), dark)
    return model


def boat(rng: np.random.Generator) -> Model:
    """Build a motor or sailing boat of 3 to 4 m, floating at height 0."""
    model = Model()
    base = colour(rng, saturation=(0, 0.9), value=(0.3, 1.0))
    hull = model.paint(
        Material(
            texture="stripes", low=base, high=colour(rng, saturation=(0, 0.7)), frequency=(0, 1.6, 0), offset=offset_of(rng), shine=0.3
        )
    )
    deck, cabin = wooden(model, rng), smooth(model, colour(rng, saturation=(0, 0.4), value=(0.5, 1.0)), 0.2)
    glass, mast = smooth(model, GLASS, 0.6), metal(model, rng)
    length = rng.uniform(1.4, 2.0)
    model.cone((0, 0.08, 0), (length, 0.42, 0.62), 0.72, hull, upside_down=True)
    model.ellipsoid((0, 0.5, 0), (length * 0.97, 0.05, 0.6), deck)
    if rng.random() < 0.5:
        model.box((-0.3, 0.78, 0), (0.5, 0.3, 0.36), cabin)
        model.box((-0.26, 0.86, 0), (0.5, 0.1, 0.37), glass)
        model.frustum((-0.6, 1.0, 0), (-0.6, 1.5, 0), (0.1, 0.09), mast)
    else:
        height = rng.uniform(1.8, 2.6)
        sail = upholstery(model, rng)
        model.capsule((0.1, 0.5, 0), (0.1, 0.5 + height, 0), 0.035, mast)
        model.cone((-0.45, 0.6 + height * 0.45, 0), (0.62, height * 0.42, 0.06), 0.0, sail)
    return model


def bus(rng: np.random.Generator) -> Model:
    """Build a bus of 4 to 5 m."""
    model = Model()
    base = colour(rng, saturation=(0.1, 1.0), value=(0.35, 1.0))
    side = model.paint(
        Material(texture="gradient", low=shade_of(base, 0.6), high=base, frequency=(0.1, rng.uniform(0.8, 1.5), 0.1), offset=(0, -0.2, 0))
    )
    windows = model.paint(Material(texture="panes", low=base, high=GLASS, frequency=(1.25, 0.0, 0.0), offset=(0.1, 0.5, 0), shine=0.5))
    glass, tyre, hub = smooth(model, GLASS, 0.6), rubber(model, rng), metal(model, rng)
    half, top = rng.uniform(1.8, 2.4), rng.uniform(2.0, 2.6)
    model.box((0, (top + 0.3) / 2, 0), (half, (top - 0.3) / 2, 0.95), side)
    model.box((-0.05, top - 0.62, 0), (half - 0.1, 0.34, 0.97), windows)
    model.box((half - 0.02, top - 0.7, 0), (0.05, 0.5, 0.86), glass)
    model.box((half - 0.02, 0.45, 0), (0.08, 0.1, 0.9), hub)
    for x in (0.62 * half, -0.62 * half):
        for _, sign in SIDES:
            _wheel(model, (x, 0.38, sign * 0.84), 0.38, 0.14, (tyre, hub))
    return model


def car(rng: np.random.Generator) -> Model:
    """Build a car of about 3 m."""
    model = Model()
    paint, glass, tyre, hub = paintwork(model, rng), smooth(model, GLASS, 0.7), rubber(model, rng), metal(model, rng)
    light, half, back = smooth(model, (0.95, 0.9, 0.7), 0.5), rng.uniform(1.35, 1.7), rng.uniform(-0.45, 0.0)
    model.box((0, 0.52, 0), (half, 0.24, 0.68), paint)
    model.ellipsoid((0, 0.6, 0), (half * 1.05, 0.26, 0.7), paint)
    length = rng.uniform(0.6, 0.95)
    model.ellipsoid((back, 0.82, 0), (length, 0.46, 0.6), glass)
    model.ellipsoid((back, 0.93, 0), (length * 0.85, 0.39, 0.54), paint)
    model.box((back, 0.95, 0), (0.05, 0.3, 0.585), paint)
    for x in (0.64 * half, -0.62 * half):
        for _, sign in SIDES:
            _wheel(model, (x, 0.3, sign * 0.6), 0.3, 0.12, (tyre, hub))
    for _, sign in SIDES:
        model.ellipsoid((half * 0.99, 0.58, sign * 0.48), (0.08, 0.09, 0.13), light)
    return model


def motorbike(rng: np.random.Generator) -> Model:
    """Build a motorbike of real size."""
    model = Model()
    tyre, tank, steel, dark = rubber(model, rng), paintwork(model, rng), metal(model, rng), rubber(model, rng)
    radius, base = rng.uniform(0.3, 0.35), rng.uniform(0.6, 0.7)
    for x in (-base, base):
        model.ring((x, radius, 0), (0, 0, 1), radius, 0.6, 0.075, tyre)
        model.frustum((x, radius, -0.04), (x, radius, 0.04), (0.58 * radius, 0.58 * radius), steel)
    model.box((-0.02, 0.42, 0), (0.26, 0.17, 0.13), steel)
    model.ellipsoid((0.16, 0.74, 0), (0.32, 0.16, 0.15), tank, rotation=turn(pitch=0.15))
    model.ellipsoid((-0.36, 0.74, 0), (0.34, 0.09, 0.13), dark)
    model.ellipsoid((-base - 0.02, radius + 0.27, 0), (0.26, 0.12, 0.1), tank)
    model.ellipsoid((base, radius + 0.28, 0), (0.26, 0.1, 0.09), tank)
    bar = (base - 0.24, 0.98)
    for _, sign in SIDES:
        model.capsule((bar[0], bar[1], sign * 0.08), (base, radius, sign * 0.1), 0.03, steel)
    model.capsule((bar[0] - 0.05, bar[1] + 0.04, -0.32), (bar[0] - 0.05, bar[1] + 0.04, 0.32), 0.026, dark)
    model.ellipsoid((bar[0] + 0.1, 0.9, 0), (0.09, 0.1, 0.1), steel)
    model.capsule((0.1, 0.26, 0.16), (-base - 0.15, 0.32, 0.17), 0.045, steel)
    return model


def train(rng: np.random.Generator) -> Model:
    """Build a carriage of 6 to 8 m with a rounded front."""
    model = Model()
    base, band = colour(rng, saturation=(0, 1.0), value=(0.25, 1.0)), colour(rng, saturation=(0, 1.0))
    side = model.paint(
        Material(texture="stripes", low=base, high=band, frequency=(0.0, rng.uniform(0.7, 1.1), 0.0), offset=offset_of(rng), shine=0.4)
    )
    windows = model.paint(Material(texture="panes", low=base, high=GLASS, frequency=(1.0, 0.0, 0.0), offset=(0.0, 0.5, 0), shine=0.5))
    glass, dark, rail = smooth(model, GLASS, 0.6), rubber(model, rng), metal(model, rng)
    half, top = rng.uniform(2.8, 3.8), rng.uniform(1.9, 2.3)
    model.box((0, (top + 0.45) / 2, 0), (half, (top - 0.45) / 2, 0.8), side)
    model.capsule((-half, top - 0.15, 0), (half - 0.2, top - 0.15, 0), 0.5, rail)
    model.ellipsoid((half, (top + 0.4) / 2, 0), (rng.uniform(0.2, 1.2), (top - 0.4) / 2, 0.79), side)
    model.box((-0.1, top - 0.6, 0), (half - 0.15, 0.26, 0.82), windows)
    model.ellipsoid((half + 0.15, top - 0.45, 0), (0.45, 0.25, 0.6), glass)
    model.box((0, 0.32, 0), (half, 0.16, 0.6), dark)
    for number in range(5):
        for _, sign in SIDES:
            _wheel(model, ((number - 2) * 0.42 * half, 0.26, sign * 0.66), 0.24, 0.06, (dark, rail))
    return model
