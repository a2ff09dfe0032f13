"""The articulated person, in parts under their PASCAL-Part names (Chen et al., "Detect what you can", CVPR 2014, arXiv 1406.2031).

Left and right are the person's own: `luarm` is the left upper arm.
"""

import math
from dataclasses import dataclass

import numpy as np

from bench.data.synthetic.model import SIDES, Model, Vector, reach, turn
from bench.data.synthetic.texture import Material, colour, offset_of, shade_of


def _cloth(rng: np.random.Generator) -> Material:
    base = colour(rng, saturation=(0.05, 0.9), value=(0.15, 0.95))
    texture = str(rng.choice(("plain", "plain", "stripes", "checks", "clouds", "spots")))
    frequency = rng.uniform(5, 12)
    direction = ((0.0, frequency, 0.0), (0.0, 0.0, frequency))[int(rng.integers(2))] if texture == "stripes" else (frequency,) * 3
    other = shade_of(base, rng.uniform(0.4, 0.8)) if rng.random() < 0.6 else colour(rng)
    return Material(texture=texture, low=base, high=other, frequency=direction, offset=offset_of(rng), shine=0.03)


@dataclass(frozen=True)
class _Pose:
    """Joint angles in radians: legs and arms as (left, right)."""

    thigh: tuple[float, float]
    knee: tuple[float, float]
    shoulder: tuple[float, float]
    shoulder_spread: tuple[float, float]
    elbow: tuple[float, float]
    lean: float


def _pose(rng: np.random.Generator) -> _Pose:
    kind = str(rng.choice(("stand", "walk", "walk", "crouch", "wave", "reach")))
    stride = rng.uniform(0.25, 0.7) if kind == "walk" else rng.uniform(0, 0.12)
    sign = 1.0 if rng.random() < 0.5 else -1.0
    thigh, knee = (sign * stride, -sign * stride), tuple(rng.uniform(0, 0.9 if kind == "walk" else 0.15, 2))
    shoulder, spread = (-0.9 * thigh[0], -0.9 * thigh[1]), tuple(rng.uniform(0.05, 0.35, 2))
    if kind == "crouch":
        bend = rng.uniform(0.8, 1.5)
        thigh, knee = (bend, bend + rng.uniform(-0.2, 0.2)), (1.9 * bend, 1.9 * bend)
    if kind == "wave":
        spread = (rng.uniform(0.8, 2.6), rng.uniform(0.05, 2.6))
    if kind == "reach":
        shoulder = tuple(rng.uniform(0.6, 2.4, 2))
    return _Pose(
        thigh=thigh,
        knee=knee,
        shoulder=shoulder,
        shoulder_spread=spread,
        elbow=tuple(rng.uniform(0, 1.6, 2)),
        lean=rng.uniform(-0.1, 0.3),
    )


def _legs(model: Model, pose: _Pose, build: float, paints: tuple[int, int, int]) -> float:
    """Add both legs below a hip at height 0 and return the height of the lowest foot; paints: trousers, lower leg, shoe."""
    lowest = 0.0
    for number, (side, sign) in enumerate(SIDES):
        hip = (0.0, 0.0, sign * 0.1 * build)
        knee = reach(hip, 0.43, pose.thigh[number], sign * 0.06)
        ankle = reach(knee, 0.43, pose.thigh[number] - pose.knee[number], sign * 0.03)
        model.limb((hip, knee, ankle), 0.085 * build, (paints[0], paints[1]), (f"{side}uleg", f"{side}lleg"))
        foot = (ankle[0] + 0.07, ankle[1] - 0.05, ankle[2])
        model.ellipsoid(foot, (0.14, 0.055, 0.06), paints[2], part=f"{side}foot")
        lowest = min(lowest, foot[1] - 0.055)
    return lowest


def _arms(model: Model, pose: _Pose, shoulders: Vector, width: float, paints: tuple[int, int, int]) -> None:
    """Add both arms at `shoulders` (their middle); paints: upper sleeve, lower sleeve, skin."""
    for number, (side, sign) in enumerate(SIDES):
        shoulder = (shoulders[0], shoulders[1], sign * width)
        swing, spread = pose.shoulder[number], sign * pose.shoulder_spread[number]
        elbow = reach(shoulder, 0.29, swing, spread)
        wrist = reach(elbow, 0.27, swing + pose.elbow[number], spread * 0.8)
        model.limb((shoulder, elbow, wrist), 0.058, (paints[0], paints[1]), (f"{side}uarm", f"{side}larm"))
        hand = tuple(b + 0.22 * (b - a) for a, b in zip(elbow, wrist, strict=True))
        model.ellipsoid(hand, (0.06, 0.07, 0.05), paints[2], part=f"{side}hand")


def _head(model: Model, rng: np.random.Generator, center: Vector, skin: int) -> None:
    hair_colour = colour(rng, hue=(0.03, 0.13), saturation=(0.1, 0.8), value=(0.05, 0.8))
    hair = model.paint(
        Material(texture="stripes", low=hair_colour, high=shade_of(hair_colour, 0.6), frequency=(20.0, 0.0, 20.0), offset=offset_of(rng))
    )
    dark = model.paint(Material(texture="plain", low=(0.08, 0.06, 0.06), high=(0.0, 0.0, 0.0)))
    x, y, z = center
    model.ellipsoid(center, (0.105, 0.14, 0.09), skin, part="head")
    length = rng.uniform(0.0, 0.14)
    model.ellipsoid((x - 0.03, y + 0.045 - length / 2, z), (0.108, 0.115 + length / 2, 0.102), hair, part="hair")
    model.ellipsoid((x + 0.105, y - 0.01, z), (0.03, 0.035, 0.018), skin, part="nose")
    for side, sign in SIDES:
        model.ellipsoid((x + 0.088, y + 0.03, z + sign * 0.036), (0.02, 0.014, 0.018), dark, part=f"{side}eye")
        model.ellipsoid((x, y, z + sign * 0.092), (0.025, 0.035, 0.014), skin, part=f"{side}ear")
    model.ellipsoid((x + 0.082, y - 0.07, z), (0.022, 0.01, 0.03), dark, part="mouth")


def person(rng: np.random.Generator) -> Model:
    """Build a person of about 1.7 m in a random pose, with random clothes."""
    model, pose, build = Model(), _pose(rng), rng.uniform(0.85, 1.2)
    tone = colour(rng, hue=(0.03, 0.09), saturation=(0.3, 0.6), value=(0.35, 0.95))
    skin = model.paint(Material(texture="clouds", low=tone, high=shade_of(tone, 0.9), offset=offset_of(rng)))
    shirt, trousers = model.paint(_cloth(rng)), model.paint(_cloth(rng))
    shoe_colour = colour(rng, saturation=(0, 0.6), value=(0.05, 0.8))
    shoes = model.paint(Material(texture="plain", low=shoe_colour, high=shoe_colour, shine=0.2))
    lowest = _legs(model, pose, build, (trousers, trousers if rng.random() < 0.7 else skin, shoes))
    cos, sin = math.cos(pose.lean), math.sin(pose.lean)

    def lean(height: float, forward: float = 0.0) -> Vector:
        return (forward * cos + height * sin, height * cos - forward * sin, 0.0)

    tilt = turn(pitch=-pose.lean)
    model.ellipsoid((0, 0.03, 0), (0.12 * build, 0.13, 0.17 * build), trousers, part="torso")
    model.ellipsoid(lean(0.27), (0.125 * build, 0.28, 0.165 * build), shirt, rotation=tilt, part="torso")
    model.ellipsoid(lean(0.41), (0.12 * build, 0.12, 0.205 * build), shirt, rotation=tilt, part="torso")
    model.capsule(lean(0.48), lean(0.6, 0.02), 0.052, skin, part="neck")
    sleeve = shirt if rng.random() < 0.8 else skin
    _arms(model, pose, lean(0.45), 0.2 * build, (sleeve, sleeve if rng.random() < 0.5 else skin, skin))
    _head(model, rng, lean(0.7, 0.03), skin)
    for primitive in model.primitives:
        primitive.center[1] -= lowest
    return model
