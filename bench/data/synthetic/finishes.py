"""Surface finishes that several classes share, each added to a model with random colours."""

import numpy as np

from bench.data.synthetic.model import Model
from bench.data.synthetic.texture import Colour, Material, colour, offset_of, shade_of

GLASS: Colour = (0.12, 0.16, 0.2)


def smooth(model: Model, base: Colour, shine: float = 0.15) -> int:
    """Add one even colour; return its index."""
    return model.paint(Material(texture="plain", low=base, high=base, shine=shine))


def rubber(model: Model, rng: np.random.Generator) -> int:
    """Add a dark, slightly coloured matt; return its index."""
    return smooth(model, colour(rng, saturation=(0, 0.2), value=(0.04, 0.2)), 0.1)


def metal(model: Model, rng: np.random.Generator) -> int:
    """Add a grey with strong highlights; return its index."""
    return smooth(model, colour(rng, saturation=(0, 0.15), value=(0.35, 0.85)), 0.6)


def paintwork(model: Model, rng: np.random.Generator) -> int:
    """Add a glossy colour of any hue; return its index."""
    return smooth(model, colour(rng, saturation=(0.0, 1.0), value=(0.15, 1.0)), 0.5)


def wooden(model: Model, rng: np.random.Generator) -> int:
    """Add a grained brown; return its index."""
    base = colour(rng, hue=(0.04, 0.12), saturation=(0.1, 0.8), value=(0.2, 0.9))
    grain = rng.uniform(10, 20)
    return model.paint(
        Material(texture="wood", low=base, high=shade_of(base, 0.6), frequency=(grain,) * 3, offset=offset_of(rng), shine=0.15)
    )


def upholstery(model: Model, rng: np.random.Generator) -> int:
    """Add a cloth of any hue and pattern; return its index."""
    base = colour(rng, saturation=(0.05, 0.8), value=(0.2, 0.9))
    texture = str(rng.choice(("plain", "stripes", "checks", "spots", "clouds")))
    step = rng.uniform(4, 8)
    frequency = (0.0, 0.0, step) if texture == "stripes" else (step,) * 3
    other = shade_of(base, rng.uniform(0.45, 0.8)) if rng.random() < 0.7 else colour(rng)
    return model.paint(Material(texture=texture, low=base, high=other, frequency=frequency, offset=offset_of(rng), shine=0.03))
