"""The backbone: a Swin, SwinV2, plain ViT or PVT v2 from timm by name, as a pyramid with one set of features a task.

`pyramid` says what a backbone is; `swin`, `vit` and `pvt` are the families; `streams` says how task streams leave a stage; `weights` loads
files. Where the maps are taken, and at which strides, stands in each family's docstring.
"""

import difflib
from functools import cache
from pathlib import Path

import timm
import torch

from bench.errors import SuiteError
from bench.model.backbone.pvt import PVTPyramid
from bench.model.backbone.pyramid import Pyramid
from bench.model.backbone.streams import add_streams, repeat_streams, task_stream
from bench.model.backbone.swin import DEMO_BACKBONE, DEMO_WEIGHTS, SwinPyramid, SwinV2Pyramid
from bench.model.backbone.vit import PlainPyramid
from bench.model.backbone.weights import WeightsError, load_weights, read_state
from methods.shape import Shape

__all__ = [
    "DEMO_BACKBONE",
    "FAMILIES",
    "Pyramid",
    "SwinPyramid",
    "WeightsError",
    "add_streams",
    "build_backbone",
    "load_weights",
    "read_state",
    "repeat_streams",
    "shape_of",
    "task_stream",
]

FAMILIES: tuple[type[Pyramid], ...] = (SwinPyramid, SwinV2Pyramid, PlainPyramid, PVTPyramid)


def family_of(name: str) -> type[Pyramid]:
    """Return the family of a backbone's name; behind a dot may stand the tag of one of timm's weights.

    Raises:
        SuiteError: The name is in no family that the suite supports.
    """
    architecture, known = name.partition(".")[0], []
    for family in FAMILIES:
        names = [model for module in family.timm_modules for model in timm.list_models(module=module)]
        if architecture in names:
            return family
        known += names
    near = difflib.get_close_matches(architecture, known, 4) or [model for model in known if architecture in model][:8]
    families = ", ".join(family.architecture.__name__ for family in FAMILIES)
    raise SuiteError(
        f"backbone {name!r} is none of the suite's: timm's {families}; near: {', '.join(near) or 'none'}; see `list backbones`"
    )


def build_backbone(
    name: str, *, image_size: int, tasks: tuple[str, ...], drop_path: float, weights: str, weights_file: Path | None
) -> Pyramid:
    """Build a backbone.

    Args:
        name: A model of timm's registry, of one of the `FAMILIES`.
        image_size: Side of the square input in pixels.
        tasks: Names of the tasks.
        drop_path: Stochastic depth of the last block; rises linearly from 0 over the blocks.
        weights: "timm" (timm's own download), "demo" (the small backbone of this suite), "scratch", or "sha256:..." of `weights_file`.
        weights_file: The file for "sha256:...".

    Raises:
        SuiteError: Unknown name, or a backbone of another kind.
        WeightsError: The weights do not fit.
    """
    family = family_of(name)
    options = family.options(image_size) | {"drop_path_rate": drop_path, "num_classes": 0}
    model = timm.create_model(name, pretrained=weights == "timm", **options)
    if type(model) is not family.architecture:
        raise SuiteError(f"backbone {name!r} is a {type(model).__name__}; the suite supports {family.architecture.__name__}")
    if weights == "demo":
        load_weights(model, DEMO_WEIGHTS, family.translate)
    elif weights.startswith("sha256:"):
        if weights_file is None:
            raise WeightsError(f"the trial names weights {weights}; give the file again with --weights FILE")
        load_weights(model, weights_file, family.translate)
    elif weights not in ("timm", "scratch"):
        raise SuiteError(f"weights {weights!r} unknown; allowed: timm, demo, scratch, or a file with --weights FILE")
    return family(model, tasks)


@cache
def shape_of(name: str, *, image_size: int, tasks: int) -> Shape:
    """Return the sizes of a backbone for closed forms of parameters; nothing is allocated. Arguments as of `build_backbone`."""
    with torch.device("meta"):
        pyramid = build_backbone(name, image_size=image_size, tasks=(), drop_path=0.0, weights="scratch", weights_file=None)
    return pyramid.shape(tasks)
