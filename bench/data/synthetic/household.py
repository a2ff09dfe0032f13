"""Furniture and household things among the PASCAL VOC classes. Each draws its own proportions, textures and colours."""

import math

import numpy as np

from bench.data.synthetic.finishes import metal, paintwork, smooth, upholstery, wooden
from bench.data.synthetic.model import SIDES, Model, turn
from bench.data.synthetic.texture import Material, colour, offset_of, shade_of


def bottle(rng: np.random.Generator) -> Model:
    """Build a bottle of real size."""
    model = Model()
    glass = smooth(model, colour(rng, hue=(0.05, 0.6), saturation=(0.1, 0.9), value=(0.1, 0.7)), 0.9)
    tint, ink = colour(rng, saturation=(0, 0.8), value=(0.4, 1.0)), colour(rng)
    label = model.paint(Material(texture="stripes", low=tint, high=ink, frequency=(0, rng.uniform(18, 30), 0), offset=offset_of(rng)))
    cap = paintwork(model, rng)
    radius, body = rng.uniform(0.055, 0.08), rng.uniform(0.22, 0.3)
    shoulder, neck = rng.uniform(0.06, 0.12), rng.uniform(0.08, 0.16)
    model.frustum((0, 0, 0), (0, body, 0), (radius, radius), glass)
    model.frustum((0, 0.25 * body, 0), (0, 0.75 * body, 0), (radius * 1.03, radius * 1.03), label)
    model.frustum((0, body, 0), (0, body + shoulder, 0), (radius, radius * 0.4), glass)
    model.frustum((0, body + shoulder, 0), (0, body + shoulder + neck, 0), (radius * 0.4, radius * 0.36), glass)
    model.frustum((0, body + shoulder + neck, 0), (0, body + shoulder + neck + 0.03, 0), (radius * 0.46, radius * 0.46), cap)
    return model


def chair(rng: np.random.Generator) -> Model:
    """Build a chair of real size, padded or with slats."""
    model = Model()
    frame = wooden(model, rng) if rng.random() < 0.6 else metal(model, rng)
    cover = upholstery(model, rng) if rng.random() < 0.5 else frame
    half, seat, top = rng.uniform(0.2, 0.25), rng.uniform(0.42, 0.5), rng.uniform(0.85, 1.1)
    model.box((0, seat, 0), (half, 0.035, half), cover)
    inset = half - 0.025
    for x in (-inset, inset):
        for z in (-inset, inset):
            model.capsule((x * 1.08, 0.02, z * 1.08), (x, seat, z), 0.024, frame)
    lean = rng.uniform(0.03, 0.12)
    for z in (-inset, inset):
        model.capsule((-inset, seat, z), (-inset - lean, top, z), 0.024, frame)
    if rng.random() < 0.5:
        model.box((-inset - 0.6 * lean, (seat + 2 * top) / 3, 0), (0.025, (top - seat) / 3, inset), cover, rotation=turn(pitch=lean))
    else:
        for share in (0.35, 0.65, 0.95):
            model.box((-inset - share * lean, seat + share * (top - seat), 0), (0.018, 0.045, inset), frame)
    return model


def diningtable(rng: np.random.Generator) -> Model:
    """Build a table of real size, round or with four legs."""
    model = Model()
    frame = wooden(model, rng)
    top = upholstery(model, rng) if rng.random() < 0.3 else frame
    height, half, depth = rng.uniform(0.68, 0.8), rng.uniform(0.6, 0.95), rng.uniform(0.4, 0.55)
    if rng.random() < 0.35:
        model.frustum((0, height - 0.05, 0), (0, height, 0), (half * 0.85, half * 0.85), top)
        model.frustum((0, 0.05, 0), (0, height - 0.05, 0), (0.09, 0.06), frame)
        model.frustum((0, 0, 0), (0, 0.06, 0), (0.38, 0.3), frame)
    else:
        model.box((0, height - 0.025, 0), (half, 0.025, depth), top)
        model.box((0, height - 0.1, 0), (half * 0.9, 0.05, depth * 0.88), frame)
        for x in (-half * 0.88, half * 0.88):
            for z in (-depth * 0.84, depth * 0.84):
                model.box((x, (height - 0.05) / 2, z), (0.035, (height - 0.05) / 2, 0.035), frame)
    if rng.random() < 0.7:
        dish = smooth(model, colour(rng, saturation=(0, 0.5), value=(0.5, 1.0)), 0.4)
        for _ in range(int(rng.integers(1, 4))):
            x, z = rng.uniform(-0.5, 0.5) * half, rng.uniform(-0.5, 0.5) * depth
            model.frustum((x, height, z), (x, height + 0.03, z), (0.08, 0.13), dish)
    return model


def pottedplant(rng: np.random.Generator) -> Model:
    """Build a plant of 0.6 to 0.9 m in a pot."""
    model = Model()
    clay = colour(rng, saturation=(0.1, 0.8), value=(0.3, 0.9))
    pot = model.paint(Material(texture="stripes", low=clay, high=shade_of(clay, 0.75), frequency=(0, 6, 0), offset=offset_of(rng)))
    green = colour(rng, hue=(0.18, 0.42), saturation=(0.3, 0.9), value=(0.2, 0.8))
    leaf = model.paint(
        Material(texture="tabby", low=green, high=shade_of(green, 0.55), frequency=(10.0, 10.0, 10.0), offset=offset_of(rng))
    )
    radius, height = rng.uniform(0.13, 0.2), rng.uniform(0.22, 0.34)
    model.frustum((0, 0, 0), (0, height, 0), (radius * 0.7, radius), pot)
    model.frustum((0, height, 0), (0, height + 0.05, 0), (radius * 1.12, radius * 1.12), pot)
    spread, slender = rng.uniform(0.3, 1.0), rng.uniform(0.1, 0.22)
    count = int(rng.integers(8, 14))
    for number in range(count):
        angle, length = 2 * math.pi * number / count + rng.uniform(-0.2, 0.2), rng.uniform(0.25, 0.5)
        lift = 1.4 - spread * rng.uniform(0.2, 1.0)
        direction = (math.cos(lift) * math.cos(angle), math.sin(lift), math.cos(lift) * math.sin(angle))
        middle = (direction[0] * length * 0.55, height + 0.05 + direction[1] * length * 0.6, direction[2] * length * 0.55)
        half = (length * 0.6, 0.02, slender * length)
        model.ellipsoid(middle, half, leaf, rotation=turn(yaw=angle, pitch=lift))
    if rng.random() < 0.4:
        petal = paintwork(model, rng)
        for _ in range(3):
            x, z = rng.uniform(-0.15, 0.15, 2)
            model.ellipsoid((x, height + rng.uniform(0.35, 0.55), z), (0.06, 0.05, 0.06), petal)
    return model


def sofa(rng: np.random.Generator) -> Model:
    """Build a sofa for two or three."""
    model = Model()
    cover = upholstery(model, rng)
    cushion = cover if rng.random() < 0.5 else upholstery(model, rng)
    foot = wooden(model, rng)
    half, depth, seat, top = rng.uniform(0.65, 1.0), rng.uniform(0.38, 0.45), rng.uniform(0.38, 0.45), rng.uniform(0.75, 0.95)
    model.box((0, seat / 2 + 0.02, 0), (depth, seat / 2 - 0.08, half), cover)
    model.box((-depth + 0.08, top / 2 + 0.06, 0), (0.1, top / 2 - 0.06, half), cover, rotation=turn(pitch=0.08))
    for _, sign in SIDES:
        model.box((0, 0.32, sign * (half + 0.06)), (depth, 0.26, 0.08), cover)
        model.capsule((-depth, 0.58, sign * (half + 0.06)), (depth - 0.05, 0.58, sign * (half + 0.06)), 0.1, cover)
        for x in (-depth * 0.85, depth * 0.85):
            model.capsule((x, 0.03, sign * half), (x, 0.1, sign * half), 0.03, foot)
    seats = int(rng.integers(2, 4))
    for number in range(seats):
        z = half * ((2 * number + 1) / seats - 1)
        model.ellipsoid((0.08, seat, z), (depth * 0.92, 0.1, half / seats * 1.02), cushion)
        model.ellipsoid((-depth + 0.22, (seat + top) / 2 + 0.04, z), (0.1, 0.24, half / seats * 0.95), cushion)
    return model


def tvmonitor(rng: np.random.Generator) -> Model:
    """Build a screen on a foot, flat or deep."""
    model = Model()
    case = smooth(model, colour(rng, saturation=(0, 0.3), value=(0.05, 0.7)), 0.3)
    texture = str(rng.choice(("clouds", "gradient", "patches", "plain", "panes")))
    frequency = rng.uniform(3, 7)
    screen = model.paint(
        Material(
            texture=texture,
            low=colour(rng, value=(0.1, 1.0)),
            high=colour(rng, value=(0.05, 0.6)),
            frequency=(0.0, frequency, frequency),
            offset=offset_of(rng),
            shine=0.7,
            mottle=0.5,
        )
    )
    half, thick = rng.uniform(0.32, 0.45), rng.uniform(0.03, 0.2)
    tall = half * rng.uniform(0.58, 0.78)
    y = tall + rng.uniform(0.08, 0.16)
    model.box((-thick, y, 0), (thick, tall, half), case)
    model.box((0.004, y + 0.01, 0), (0.006, tall * 0.88, half * 0.91), screen)
    model.frustum((-thick, 0.03, 0), (-thick, y - tall * 0.8, 0), (0.06, 0.05), case)
    model.box((-thick, 0.015, 0), (0.13, 0.015, half * 0.5), case)
    return model
