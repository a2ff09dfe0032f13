"""The twenty PASCAL VOC object classes by number.

Colour statistics overlap between classes: shape and texture together tell a class, not one colour.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from bench.data.synthetic.animals import animal, bird
from bench.data.synthetic.household import bottle, chair, diningtable, pottedplant, sofa, tvmonitor
from bench.data.synthetic.model import Model
from bench.data.synthetic.person import person
from bench.data.synthetic.vehicles import aeroplane, bicycle, boat, bus, car, motorbike, train

CLASSES: dict[int, tuple[str, Callable[[np.random.Generator], Model]]] = {
    1: ("aeroplane", aeroplane),
    2: ("bicycle", bicycle),
    3: ("bird", bird),
    4: ("boat", boat),
    5: ("bottle", bottle),
    6: ("bus", bus),
    7: ("car", car),
    8: ("cat", partial(animal, name="cat")),
    9: ("chair", chair),
    10: ("cow", partial(animal, name="cow")),
    11: ("diningtable", diningtable),
    12: ("dog", partial(animal, name="dog")),
    13: ("horse", partial(animal, name="horse")),
    14: ("motorbike", motorbike),
    15: ("person", person),
    16: ("pottedplant", pottedplant),
    17: ("sheep", partial(animal, name="sheep")),
    18: ("sofa", sofa),
    19: ("train", train),
    20: ("tvmonitor", tvmonitor),
}
PERSON = 15
