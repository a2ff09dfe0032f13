"""Every method on small versions of timm's SwinV2, plain ViT and PVT v2: it keeps the contract there, or refuses and says why."""

import pickle
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from bench.errors import SuiteError
from bench.ledger import ledger_rows
from bench.model.backbone import FAMILIES, Pyramid, build_backbone, load_weights
from bench.model.backbone.pvt import PVTPyramid
from bench.model.backbone.swin import SwinV2Pyramid
from bench.model.backbone.vit import PlainPyramid
from bench.suites import load
from methods import METHODS
from methods.base import merge

TASKS = ("semseg", "normals", "saliency")
SIZE = 64
SMALL: dict[str, tuple[type[Pyramid], str, dict[str, Any]]] = {
    "swinv2": (SwinV2Pyramid, "swinv2_tiny_window8_256", {"embed_dim": 24, "num_heads": (1, 2, 4, 8), "window_size": 4, "img_size": SIZE}),
    "vit": (PlainPyramid, "vit_tiny_patch16_224", {"embed_dim": 24, "depth": 8, "num_heads": 2, "img_size": SIZE}),
    "pvt": (PVTPyramid, "pvt_v2_b0", {"embed_dims": (8, 16, 40, 64)}),
}
NO_RELATIVE = "no parameter of the group 'relative_position'"
REFUSED = {
    ("swinv2", "vpt"): "attention of timm's Swin, or of its plain ViT",
    ("swinv2", "vpt_shallow"): "through the windows of timm's Swin",
    ("vit", "vpt_shallow"): "through the windows of timm's Swin",
    ("pvt", "vpt"): "attention of timm's Swin, or of its plain ViT",
    ("pvt", "vpt_shallow"): "through the windows of timm's Swin",
    ("vit", "bitfit"): NO_RELATIVE,
    ("pvt", "bitfit"): NO_RELATIVE,
    ("vit", "mtlora"): NO_RELATIVE,
    ("pvt", "mtlora"): NO_RELATIVE,
    ("vit", "mtlora_plus"): NO_RELATIVE,
    ("pvt", "mtlora_plus"): NO_RELATIVE,
}
"""What a method says with its default configuration; where only a group is missing, `WITHOUT` leaves it out."""

WITHOUT: dict[tuple[str, str], dict[str, Any]] = {
    ("vit", "bitfit"): {"also_train": ()},
    ("pvt", "bitfit"): {"also_train": ("patch_merging",)},
    ("vit", "mtlora"): {"also_train": ("norm", "patch_embed")},
    ("pvt", "mtlora"): {"also_train": ("norm", "patch_embed", "patch_merging")},
    ("vit", "mtlora_plus"): {"also_train": ("norm",), "layers": ("qkv", "proj", "fc1", "fc2")},
    ("pvt", "mtlora_plus"): {"also_train": ("norm",), "layers": ("qkv", "proj", "fc1", "fc2")},
}
NARROW = {"compacter": {"terms": 2}, "compacter_plus_plus": {"terms": 2}}
WORKS = [(kind, name) for kind in SMALL for name in METHODS if (kind, name) not in REFUSED or (kind, name) in WITHOUT]


def perturb(module: nn.Module) -> None:
    """Move every parameter that trains, so that zeros hide nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))


@cache
def pickled(kind: str) -> bytes:
    family, name, options = SMALL[kind]
    torch.manual_seed(0)
    pyramid = family(timm.create_model(name, num_classes=0, **options), TASKS).eval()
    perturb(pyramid)
    return pickle.dumps(pyramid)


def untouched(kind: str) -> Pyramid:
    return pickle.loads(pickled(kind))


def applied(kind: str, name: str, **dials: Any) -> Pyramid:
    backbone = untouched(kind)
    torch.manual_seed(1)
    config = METHODS[name].config(**{**NARROW.get(name, {}), **WITHOUT.get((kind, name), {}), **dials})
    METHODS[name].apply(backbone, config)
    return backbone.eval()


@cache
def image() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def features(backbone: Pyramid) -> dict[str, list[Tensor]]:
    return backbone(image())


def of_timm(kind: str) -> list[Tensor]:
    """timm's own features of the same weights, where ours are taken."""
    _, name, options = SMALL[kind]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **options).eval()
    ours = {re.sub(r"^\w+\.", "", key): value for key, value in untouched(kind).state_dict().items()}
    if kind == "vit":
        ours = {re.sub(r"layers\.(\d)\.blocks\.(\d)", lambda m: f"blocks.{2 * int(m[1]) + int(m[2])}", k): v for k, v in ours.items()}
    if kind == "pvt":
        ours = {key.replace("layers.", "stages."): value for key, value in ours.items()}
    assert model.load_state_dict(ours, strict=False).unexpected_keys == []
    with torch.no_grad():
        if kind == "vit":
            return model.forward_intermediates(image(), indices=[1, 3, 5, 7], norm=False, intermediates_only=True)
        maps = model.forward_intermediates(image(), indices=4, intermediates_only=True)
        if kind == "pvt":
            return maps
        merged = [model.layers[i + 1].downsample(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for i, x in enumerate(maps[:3])]
        return [*merged, maps[3]]


@pytest.mark.parametrize("kind", SMALL)
def test_pyramids_equal_timms_features(kind: str):
    for maps in features(untouched(kind)).values():
        for actual, expected in zip(maps, of_timm(kind), strict=True):
            torch.testing.assert_close(actual, expected)
    assert [x.shape[1] for x in maps] == untouched(kind).channels


@pytest.mark.parametrize(("kind", "name"), WORKS)
def test_a_method_keeps_the_contract(kind: str, name: str):
    backbone, before = applied(kind, name), features(untouched(kind))
    after = features(backbone)
    for task in TASKS:
        assert [x.shape for x in after[task]] == [x.shape for x in before[task]]
        if name != "vpt":  # prompts are tokens that attention sees from the first step on
            for actual, expected in zip(after[task], before[task], strict=True):
                torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    perturb(backbone)
    maps = backbone(image())
    if name != "frozen":
        sum(x.square().sum() for pyramid in maps.values() for x in pyramid).backward()
    unread = {n for n, p in backbone.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    last = [n for n in unread if not re.search(r"layers\.3\.blocks\.1\.mlp\.fc2\.lora_[AB]$", n)]
    assert last == [], "only MTLoRA's shared pair behind the last place where a task reads it may be without gradient"
    assert all(p.grad is None for p in backbone.parameters() if not p.requires_grad)


@pytest.mark.parametrize(("kind", "name"), WORKS)
def test_trainable_parameters_equal_the_formula(kind: str, name: str):
    backbone, config = applied(kind, name), METHODS[name].config(**{**NARROW.get(name, {}), **WITHOUT.get((kind, name), {})})
    counted = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert counted == config.trainable(untouched(kind).shape(len(TASKS)))


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k, n in WORKS if n in ("lora", "lora_attention", "mtlora", "adapter")])
def test_merged_equals_unmerged(kind: str, name: str):
    backbone = applied(kind, name, **({"factor_bias": True} if name == "lora_attention" else {}))
    perturb(backbone)
    unmerged = features(backbone)
    assert (merge(backbone) > 0) == (name != "adapter")
    for task, maps in features(backbone).items():
        for actual, expected in zip(maps, unmerged[task], strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), REFUSED)
def test_a_method_that_does_not_fit_refuses_with_the_reason(kind: str, name: str):
    with pytest.raises(ValueError, match=re.escape(REFUSED[kind, name])):
        METHODS[name].apply(untouched(kind), METHODS[name].config())


@pytest.mark.parametrize("kind", ["swinv2", "vit", "pvt"])
def test_streams_through_attention_are_refused(kind: str):
    dials = WITHOUT.get((kind, "mtlora"), {})
    with pytest.raises(ValueError, match="need the attention of timm's Swin"):
        METHODS["mtlora"].apply(untouched(kind), METHODS["mtlora"].config(task_blocks="every", task_qkv=True, **dials))


@pytest.mark.parametrize("kind", SMALL)
def test_weights_of_a_file_give_timms_features(kind: str, tmp_path: Path):
    family, name, options = SMALL[kind]
    torch.manual_seed(3)
    source = timm.create_model(name, num_classes=5, **options).eval()
    safetensors.torch.save_file({k: v.contiguous() for k, v in source.state_dict().items()}, tmp_path / "weights.safetensors")
    model = timm.create_model(name, num_classes=0, **options)
    load_weights(model, tmp_path / "weights.safetensors", family.translate)
    with torch.no_grad():
        expected, actual = (family(m, TASKS).eval()(image())["semseg"] for m in (source, model))
    for mine, wanted in zip(actual, expected, strict=True):
        assert torch.equal(mine, wanted)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("swin_small_patch4_window7_224.ms_in22k", [192, 384, 768, 768]),
        ("swin_base_patch4_window7_224.ms_in22k", [256, 512, 1024, 1024]),
        ("swin_large_patch4_window7_224.ms_in22k_ft_in1k", [384, 768, 1536, 1536]),
        ("swinv2_tiny_window8_256", [192, 384, 768, 768]),
        ("vit_base_patch16_224", [768] * 4),
        ("pvt_v2_b2", [64, 128, 320, 512]),
    ],
)
def test_backbones_are_found_by_timms_name(name: str, channels: list[int]):
    with torch.device("meta"):
        model = build_backbone(name, image_size=448, tasks=TASKS, drop_path=0.1, weights="scratch", weights_file=None)
    assert model.channels == channels
    assert type(model) in FAMILIES


def test_an_image_that_patches_do_not_tile_is_an_error():
    with pytest.raises(SuiteError, match="patches of 16 pixels: the image size must be a multiple, got 72"):
        build_backbone("vit_tiny_patch16_224", image_size=72, tasks=TASKS, drop_path=0.0, weights="scratch", weights_file=None)


@pytest.mark.slow
def test_the_published_table_is_built_on_another_backbone_and_names_what_it_refuses():
    rows = {row["row"]: row for row in ledger_rows(load("table1", backbone="pvt_v2_b0", image_size=64))}
    assert {name for name, row in rows.items() if row["refused"]} == {"VPT-shallow", "VPT-deep"}
    assert "VPT adds tokens to the attention of timm's Swin" in rows["VPT-deep"]["refused"]
    assert rows["VPT-deep"]["trainable"] is None
    assert all(row["trainable"] == row["closed_form"] for row in rows.values())
    assert all(row["published"] is None for row in rows.values()), "published counts are of Swin-T"
