"""Rewiring a backbone: what `replace` and `freeze` reach, and that wrong dials and strange backbones are clear errors."""

from typing import Any

import pytest
from test_methods import TASKS, copied, untouched
from torch import nn

from methods import METHODS
from methods.base import LAYERS, freeze, replace, sites


def test_replace_never_reaches_the_patch_embedding():
    backbone = copied()
    before = backbone.swin.patch_embed.proj
    replace(backbone, LAYERS, lambda site: nn.Identity())
    assert backbone.swin.patch_embed.proj is before
    assert sum(isinstance(module, nn.Linear) for module in backbone.modules()) == 0


def test_sites_say_stage_block_and_place():
    found = sites(untouched(64), LAYERS)
    assert len(found) == 4 * 12 + 3
    assert {(s.stage, s.block) for s in found if s.last} == {(0, 1), (1, 1), (2, 5), (3, 1)}
    assert [(s.stage, s.block, s.name) for s in found if s.kind == "reduction"] == [
        (stage, None, f"swin.layers.{stage + 1}.downsample.reduction") for stage in range(3)
    ]


@pytest.mark.parametrize(
    ("kinds", "message"), [(["head"], "allowed: qkv"), ([], "name at least one"), (["qkv"], "has no layer that ends in")]
)
def test_replace_raises_when_nothing_matches(kinds: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        replace(nn.Sequential(nn.Linear(2, 2)), kinds, lambda site: site.module)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("full", "frozen", "bitfit")])
def test_a_method_raises_on_a_backbone_without_its_layers(name: str):
    stranger = nn.Sequential(nn.Linear(2, 2))
    stranger.tasks = TASKS
    with pytest.raises(ValueError, match="Swin"):
        METHODS[name].apply(stranger, METHODS[name].config(also_train=()))


@pytest.mark.parametrize(
    ("name", "dials", "message"),
    [
        ("frozen", {"also_train": ("norms",)}, "allowed: norm, relative_position, patch_embed, patch_merging, bias"),
        ("full", {"also_train": ("norm",)}, "trains everything already"),
        ("mtlora", {"mode": "matrixv3"}, "allowed: matrix, matrixv2, addition, lora_only"),
        ("mtlora", {"layers": ("qkv", "head")}, "allowed: qkv, proj, fc1, fc2, reduction"),
        ("mtlora", {"layers": ()}, "name at least one of qkv"),
        ("mtlora", {"rank": 0}, "rank must be at least 1, got 0"),
        ("mtlora_plus", {"task_rank": 0}, "task_rank must be at least 1, got 0"),
        ("lora", {"layers": ("head",)}, "allowed: qkv, proj, fc1, fc2, reduction"),
        ("lora", {"layers": ()}, "name at least one of qkv"),
        ("lora", {"rank": -1}, "rank must be at least 1"),
        ("adapter", {"reduction": 0}, "reduction must be at least 1"),
        ("adapter", {"reduction": 25}, "leaves no channel of 24"),
        ("vpt", {"prompts": 0}, "prompts must be at least 1"),
    ],
)
def test_a_wrong_dial_is_a_clear_error(name: str, dials: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        METHODS[name].apply(copied(), METHODS[name].config(**dials))


def test_a_group_that_the_backbone_lacks_is_an_error():
    with pytest.raises(ValueError, match="no parameter of the group 'relative_position'; leave it out"):
        freeze(nn.Sequential(nn.LayerNorm(2)), ["relative_position"])
