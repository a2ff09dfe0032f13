"""Four-legged animals and birds. They carry some PASCAL-Part names too: a reader of human parts has to skip them."""

import math
from dataclasses import dataclass

import numpy as np

from bench.data.synthetic.model import SIDES, Model, Vector, reach, turn
from bench.data.synthetic.texture import Colour, Material, colour, offset_of, shade_of


@dataclass(frozen=True, kw_only=True)
class Animal:
    """Proportions of a four-legged animal; lengths in metres, angles in radians above the horizontal.

    Attributes:
        leg: Leg length.
        body: Half axes of the trunk: half length, half height, half width.
        leg_radius: Radius of the upper leg.
        neck: Length of the neck.
        neck_pitch: Angle of the neck.
        head: Half axes of the skull.
        snout: Length and radius of the snout.
        ear: "pointed", "hanging" or "side".
        ear_size: Length of an ear.
        tail: Length of the tail.
        tail_pitch: Angle of the tail, backwards.
        tail_radius: Radius of the tail.
    """

    leg: float
    body: Vector
    leg_radius: float
    neck: float
    neck_pitch: float
    head: Vector
    snout: tuple[float, float]
    ear: str
    ear_size: float
    tail: float
    tail_pitch: float
    tail_radius: float


ANIMALS = {
    "cat": Animal(
        leg=0.2, body=(0.26, 0.1, 0.085), leg_radius=0.035, neck=0.09, neck_pitch=0.7, head=(0.085, 0.08, 0.085), snout=(0.03, 0.035),
        ear="pointed", ear_size=0.09, tail=0.36, tail_pitch=0.9, tail_radius=0.022,
    ),
    "dog": Animal(
        leg=0.36, body=(0.34, 0.15, 0.12), leg_radius=0.05, neck=0.2, neck_pitch=0.85, head=(0.12, 0.1, 0.095), snout=(0.15, 0.05),
        ear="hanging", ear_size=0.14, tail=0.26, tail_pitch=0.6, tail_radius=0.026,
    ),
    "horse": Animal(
        leg=0.82, body=(0.72, 0.32, 0.27), leg_radius=0.1, neck=0.7, neck_pitch=0.85, head=(0.17, 0.13, 0.11), snout=(0.38, 0.085),
        ear="pointed", ear_size=0.15, tail=0.65, tail_pitch=-1.1, tail_radius=0.06,
    ),
    "cow": Animal(
        leg=0.6, body=(0.75, 0.36, 0.3), leg_radius=0.1, neck=0.42, neck_pitch=0.25, head=(0.2, 0.16, 0.15), snout=(0.24, 0.11),
        ear="side", ear_size=0.18, tail=0.65, tail_pitch=-1.35, tail_radius=0.025,
    ),
    "sheep": Animal(
        leg=0.34, body=(0.45, 0.29, 0.27), leg_radius=0.045, neck=0.22, neck_pitch=0.45, head=(0.12, 0.1, 0.09), snout=(0.13, 0.06),
        ear="side", ear_size=0.13, tail=0.12, tail_pitch=-0.8, tail_radius=0.05,
    ),
}  # fmt: skip


def _coat(rng: np.random.Generator, name: str) -> tuple[Material, Colour]:
    """Draw an animal's fur and the colour of its darker ends; the colours of the species overlap."""
    base = colour(rng, hue=(0.04, 0.12), saturation=(0.0, 0.7), value=(0.12, 0.95))
    other = shade_of(base, rng.uniform(0.35, 0.75)) if rng.random() < 0.5 else colour(rng, hue=(0.04, 0.12), saturation=(0, 0.5))
    textures = {
        "cat": (("tabby", (9.0, 3.0, 3.0)), ("tabby", (12.0, 4.0, 4.0)), ("patches", (7.0, 7.0, 7.0))),
        "dog": (("plain", (4.0, 4.0, 4.0)), ("gradient", (0.5, 2.2, 0.5)), ("patches", (5.0, 5.0, 5.0))),
        "horse": (("plain", (2.0, 2.0, 2.0)), ("gradient", (0.2, 0.8, 0.2)), ("clouds", (3.0, 3.0, 3.0))),
        "cow": (("patches", (2.2, 2.2, 2.2)), ("patches", (3.0, 3.0, 3.0)), ("plain", (2.0, 2.0, 2.0))),
        "sheep": (("clouds", (16.0, 16.0, 16.0)), ("spots", (14.0, 14.0, 14.0))),
    }[name]
    if name == "sheep":
        base = colour(rng, hue=(0.08, 0.14), saturation=(0.0, 0.3), value=(0.55, 1.0))
        other = shade_of(base, rng.uniform(0.55, 0.8))
    texture, frequency = textures[int(rng.integers(len(textures)))]
    shine = 0.25 if name == "horse" else 0.03
    return Material(texture=texture, low=base, high=other, frequency=frequency, offset=offset_of(rng), shine=shine), shade_of(base, 0.45)


def _animal_legs(model: Model, rng: np.random.Generator, animal: Animal, paints: tuple[int, int]) -> None:
    half_length, _, half_width = animal.body
    for end, place in (("f", 0.68), ("b", -0.72)):
        for side, sign in SIDES:
            hip = (place * half_length, animal.leg + 0.02, sign * 0.6 * half_width)
            swing = rng.uniform(-0.35, 0.35)
            knee = reach(hip, 0.5 * animal.leg, swing, 0.0)
            foot = (knee[0] + rng.uniform(-0.12, 0.08) * animal.leg, animal.leg_radius * 0.6, knee[2])
            model.limb((hip, knee, foot), animal.leg_radius, paints, (f"{side}{end}uleg", f"{side}{end}lleg"))


def _animal_head(model: Model, rng: np.random.Generator, animal: Animal, start: Vector, paints: tuple[int, int]) -> Vector:
    """Add neck and head; return the skull's centre. Paints: fur, dark."""
    pitch = animal.neck_pitch + rng.uniform(-0.5, 0.25)
    skull = (start[0] + animal.neck * math.cos(pitch), start[1] + animal.neck * math.sin(pitch), rng.uniform(-0.3, 0.3) * animal.neck)
    a, b, c = animal.head
    model.capsule(start, skull, 0.8 * b, paints[0], part="neck")
    model.ellipsoid(skull, animal.head, paints[0], part="head")
    nose = (skull[0] + 0.7 * a + animal.snout[0] * 0.9, skull[1] - 0.25 * b - animal.snout[0] * 0.5, skull[2])
    model.capsule((skull[0] + 0.5 * a, skull[1] - 0.25 * b, skull[2]), nose, animal.snout[1], paints[0], part="head")
    model.ellipsoid((nose[0] + animal.snout[1] * 0.8, nose[1], nose[2]), (animal.snout[1] * 0.45,) * 3, paints[1], part="nose")
    for side, sign in SIDES:
        model.ellipsoid((skull[0] + 0.75 * a, skull[1] + 0.3 * b, skull[2] + sign * 0.6 * c), (0.13 * a,) * 3, paints[1], part=f"{side}eye")
        root = (skull[0] - 0.2 * a, skull[1] + 0.7 * b, skull[2] + sign * 0.6 * c)
        size = animal.ear_size
        if animal.ear == "pointed":
            tip = (root[0] + 0.1 * size, root[1] + size, root[2] + sign * 0.2 * size)
            model.frustum(root, tip, (0.38 * size, 0.0), paints[0], part=f"{side}ear")
        else:
            drop, out = (-0.5, 0.12) if animal.ear == "hanging" else (0.0, 0.45)
            middle = (root[0], root[1] + drop * size, root[2] + sign * (out * size + 0.3 * c))
            half = (0.35 * size, 0.6 * size, 0.15 * size) if animal.ear == "hanging" else (0.2 * size, 0.25 * size, 0.6 * size)
            model.ellipsoid(middle, half, paints[1] if animal.ear == "hanging" else paints[0], part=f"{side}ear")
    return skull


def animal(rng: np.random.Generator, name: str) -> Model:
    """Build one of `ANIMALS` in a random pose."""
    model, spec = Model(), ANIMALS[name]
    coat, dark_colour = _coat(rng, name)
    fur = model.paint(coat)
    dark = model.paint(Material(texture="plain", low=dark_colour, high=dark_colour))
    skin = dark if name == "sheep" and rng.random() < 0.7 else fur
    half_length, half_height, half_width = spec.body
    middle = spec.leg + 0.75 * half_height
    model.ellipsoid((0, middle, 0), spec.body, fur, part="torso")
    chest = (0.5 * half_length, 0.97 * half_height, 0.97 * half_width)
    model.ellipsoid((0.45 * half_length, middle, 0), chest, fur, part="torso")
    model.ellipsoid((-0.45 * half_length, middle + 0.04 * half_height, 0), chest, fur, part="torso")
    _animal_legs(model, rng, spec, (skin, dark if name in ("horse", "sheep") else skin))
    shoulders = (0.8 * half_length, middle + 0.35 * half_height, 0.0)
    skull = _animal_head(model, rng, spec, shoulders, (skin, dark))
    root = (-0.95 * half_length, middle + 0.3 * half_height, 0.0)
    pitch = spec.tail_pitch + rng.uniform(-0.3, 0.3)
    tip = (root[0] - spec.tail * math.cos(pitch), root[1] + spec.tail * math.sin(pitch), rng.uniform(-0.3, 0.3) * spec.tail)
    model.capsule(root, tip, spec.tail_radius, dark if name == "horse" else fur, part="tail")
    if name == "horse":
        mane = tuple((a + b) / 2 for a, b in zip(shoulders, skull, strict=True))
        model.ellipsoid((mane[0] - 0.09, mane[1] + 0.06, mane[2]), (0.09, 0.36, 0.05), dark, rotation=turn(pitch=-0.7), part="neck")
    if name == "cow" and rng.random() < 0.7:
        for _, sign in SIDES:
            root = (skull[0], skull[1] + 0.12, skull[2] + sign * 0.1)
            tip = (root[0] + 0.05, root[1] + 0.2, root[2] + sign * 0.12)
            model.frustum(root, tip, (0.035, 0.0), dark, part="lhorn" if sign > 0 else "rhorn")
    return model


def bird(rng: np.random.Generator) -> Model:
    """Build a bird, standing with folded wings or flying with spread ones; 0.5 m long, in the air its feet are above the ground."""
    model = Model()
    base = colour(rng, saturation=(0.0, 0.9), value=(0.15, 0.95))
    coat = Material(texture="spots", low=base, high=shade_of(base, 0.5), frequency=(14.0,) * 3, offset=offset_of(rng))
    body, wing_paint = (
        model.paint(coat),
        model.paint(
            Material(texture="stripes", low=shade_of(base, 0.8), high=shade_of(base, 0.35), frequency=(14.0, 0, 0), offset=offset_of(rng))
        ),
    )
    beak_colour = colour(rng, hue=(0.05, 0.14), saturation=(0.5, 1.0), value=(0.4, 1.0))
    beak = model.paint(Material(texture="plain", low=beak_colour, high=beak_colour))
    dark = model.paint(Material(texture="plain", low=(0.05, 0.05, 0.05), high=(0.0, 0.0, 0.0), shine=0.4))
    flying = rng.random() < 0.4
    lift, pitch = (0.5, 0.1) if flying else (0.26, rng.uniform(0.3, 0.8))
    tilt, cos, sin = turn(pitch=pitch), math.cos(pitch), math.sin(pitch)
    model.ellipsoid((0, lift, 0), (0.2, 0.11, 0.1), body, rotation=tilt, part="torso")
    head = (0.19 * cos, lift + 0.19 * sin + 0.05, 0.0)
    model.ellipsoid(head, (0.075, 0.07, 0.065), body, part="head")
    model.frustum((head[0] + 0.05, head[1], 0), (head[0] + rng.uniform(0.12, 0.2), head[1] - 0.03, 0), (0.032, 0.0), beak, part="beak")
    model.box((-0.29 * cos, lift - 0.29 * sin, 0), (0.13, 0.012, 0.05), wing_paint, rotation=tilt, part="tail")
    for side, sign in SIDES:
        model.ellipsoid((head[0] + 0.045, head[1] + 0.02, sign * 0.048), (0.016,) * 3, dark, part=f"{side}eye")
        if flying:
            flap = turn(roll=-sign * rng.uniform(-0.5, 0.6))
            model.ellipsoid((-0.02, lift + 0.06, sign * 0.32), (0.12, 0.016, 0.3), wing_paint, rotation=flap, part=f"{side}wing")
            continue
        model.ellipsoid((-0.05, lift, sign * 0.085), (0.18, 0.085, 0.03), wing_paint, rotation=tilt, part=f"{side}wing")
        model.capsule((0.0, lift - 0.06, sign * 0.045), (0.02, 0.01, sign * 0.05), 0.012, beak, part=f"{side}leg")
        model.ellipsoid((0.05, 0.01, sign * 0.05), (0.05, 0.01, 0.03), beak, part=f"{side}foot")
    return model
