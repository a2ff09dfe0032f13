"""Trainable parameters of every method against closed forms and the published counts; nothing is allocated."""

import dataclasses
import pickle
from functools import cache
from typing import Any

import pytest
import torch
from test_methods import group_members

from bench.config import BackboneConfig, DataConfig, RecipeConfig, TrialConfig
from bench.measure.cost import parameter_ledger
from bench.model.backbone import DEMO_BACKBONE, build_backbone, shape_of
from bench.model.multitask import build_model
from bench.tasks import TASK_NAMES
from methods import METHODS
from methods.base import ALSO_TRAIN

IMAGE_SIZE = 224
BACKBONES = (DEMO_BACKBONE, "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224")


@cache
def on_meta(name: str) -> bytes:
    """A pickled backbone without storage: only its shapes count."""
    with torch.device("meta"):
        backbone = build_backbone(name, image_size=IMAGE_SIZE, tasks=(), drop_path=0.0, weights="scratch", weights_file=None)
    return pickle.dumps(backbone)


def dial_settings() -> list[tuple[str, dict[str, Any]]]:
    two_ranks = [{"rank": 1, "task_rank": 3}, {"rank": 6, "task_rank": 2}]
    one_task = {"task_ranks": ((TASK_NAMES[0], 5),)}
    two_ranks += [{"stage_ranks": (0, 1, 2, 3), "trainable_scale": True}, {"stage_task_ranks": (3, 0, 2, 1), **one_task}]
    two_ranks += [{"task_blocks": "every", **one_task}, {"task_blocks": "every", "task_qkv": True, "trainable_scale": True}]
    two_ranks += [{"task_qkv": True, "task_ranks": ((TASK_NAMES[0], 0),), "trainable_scale": True}, {"task_blocks": "none"}]
    settings = {"lora": [{"rank": 1}, {"rank": 5}], "adapter": [{"reduction": 2}, {"reduction": 5}], "vpt": [{"prompts": 7}]}
    settings["lora"] += [{"stage_ranks": (0, 1, 2, 3), "trainable_scale": True}]
    settings |= {"mtlora": two_ranks, "mtlora_plus": two_ranks, "vpt_shallow": [{"prompts": 7}]}
    settings |= {name: [{"terms": 2}, {"terms": 2, "rank": 1, "reduction": 2}] for name in ("compacter", "compacter_plus_plus")}
    settings |= {"lora_attention": [{"rank": 3}, {"rank": 4, "factor_bias": True}]}
    settings |= {"hyperformer": [{}, {"share": "stage"}, {"embedding": 6, "hidden": 5, "reduction": 5}]}
    settings |= {name: [{}, {"kernel": 2, "rank": 3, "reduction": 5, "embedding": 7}] for name in ("polyhistor", "polyhistor_lite")}
    return [(name, dials) for name in METHODS for dials in settings.get(name, [{}])]


@pytest.mark.parametrize(("name", "dials"), dial_settings(), ids=str)
@pytest.mark.parametrize(("backbone_name", "n_tasks"), list(zip(BACKBONES, (1, 4, 3), strict=True)))
def test_trainable_parameters_equal_the_closed_form(backbone_name: str, n_tasks: int, name: str, dials: dict[str, Any]):
    backbone, config = pickle.loads(on_meta(backbone_name)), METHODS[name].config(**dials)
    backbone.tasks = TASK_NAMES[:n_tasks]
    METHODS[name].apply(backbone, config)
    trainable = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert trainable == config.trainable(shape_of(backbone_name, image_size=IMAGE_SIZE, tasks=n_tasks))


@pytest.mark.parametrize(
    "groups", [*[(group,) for group in ALSO_TRAIN], ("bias", "patch_embed"), ("norm", "bias", "patch_merging")], ids=str
)
@pytest.mark.parametrize("backbone_name", BACKBONES)
def test_groups_of_a_backbone_equal_their_closed_form(backbone_name: str, groups: tuple[str, ...]):
    backbone, config = pickle.loads(on_meta(backbone_name)), METHODS["frozen"].config(also_train=groups)
    METHODS["frozen"].apply(backbone, config)
    counted = sum(p.numel() for n, p in backbone.named_parameters() if any(n in group_members(backbone, group) for group in groups))
    assert counted == sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert counted == config.trainable(shape_of(backbone_name, image_size=IMAGE_SIZE, tasks=1))


def ledger(name: str, *, tasks: tuple[str, ...] = TASK_NAMES, **dials: Any) -> dict[str, Any]:
    trial = TrialConfig(
        method_name=name,
        method=METHODS[name].config(**dials),
        tasks=tasks,
        data=DataConfig(source="pascal_context", fingerprint="x"),
        backbone=BackboneConfig(name="swin_tiny_patch4_window7_224", weights="scratch"),
        recipe=RecipeConfig(image_size=448),
    )
    with torch.device("meta"):
        return parameter_ledger(build_model(trial))


@pytest.mark.parametrize(
    ("name", "dials", "published"),
    [
        ("mtlora", {"rank": 16}, 4_953_146),
        ("mtlora", {"rank": 32}, 6_083_642),
        ("mtlora", {"rank": 64}, 8_344_634),
        ("mtlora_plus", {"rank": 4, "task_rank": 4}, 2_573_114),
        ("mtlora_plus", {"rank": 8, "task_rank": 8}, 3_148_346),
        ("mtlora_plus", {"rank": 16, "task_rank": 16}, 4_298_810),
        ("mtlora_plus", {"rank": 16}, 3_469_370),
        ("mtlora_plus", {"rank": 32}, 4_664_378),
        ("mtlora_plus", {"rank": 64}, 7_054_394),
        ("frozen", {}, 1_946_624),
        ("full", {}, 29_464_442),
    ],
    ids=str,
)
def test_swin_tiny_totals_equal_the_releases(name: str, dials: dict[str, Any], published: int):
    assert ledger(name, **dials)["trainable"] == published


def test_mtlora_ledger_equals_the_releases_column_by_column():
    counts = ledger("mtlora", rank=64)
    assert {group: n["trainable"] for group, n in counts["groups"].items()} == {
        "backbone": 0,
        "method_shared": 4_798_464 - 276_480,
        "method_per_task": 276_480,
        "norm": 23_040,
        "relative_position": 23_322,
        "patch_embed": 4_896,
        "patch_merging": 1_548_288,
        "decoders": 1_946_624,
    }
    assert counts["total"] == 34_262_906


@pytest.mark.parametrize(
    ("name", "dials", "shared"),
    [
        ("hyperformer", {}, 71_054_544),
        ("hyperformer", {"share": "stage"}, 25_797_384),
        ("polyhistor", {}, 3_686_448),
        ("polyhistor_lite", {}, 246_696),
    ],
    ids=str,
)
def test_of_a_hypernetwork_the_embeddings_alone_are_per_task(name: str, dials: dict[str, Any], shared: int):
    counts = ledger(name, **dials)
    own = {group: n["trainable"] for group, n in counts["groups"].items() if n["trainable"] and group != "decoders"}
    assert own == {"method_shared": shared, "method_per_task": 4 * 64}


def test_four_single_task_models_have_the_releases_count():
    assert sum(ledger("full", tasks=(task,))["trainable"] for task in TASK_NAMES) == 112_017_896


@pytest.mark.parametrize(
    ("groups", "count"),
    [
        (("norm",), 23_040),  # the patch embedding's norm belongs to the patch embedding
        (("relative_position",), 23_322),
        (("patch_embed",), 4_896),
        (("patch_merging",), 1_548_288),
        (("bias",), 51_456 - (23_040 + 192) // 2),  # all biases but the norms'
        (("bias", "norm"), 51_456 - (23_040 + 192) // 2 + 23_040),
        (("norm", "relative_position", "patch_embed", "patch_merging"), 1_599_546),
    ],
    ids=str,
)
def test_any_method_may_train_the_groups_of_the_release(groups: tuple[str, ...], count: int):
    assert ledger("frozen", also_train=groups)["trainable_without_decoders"] == count


def test_labels_name_the_dial():
    assert METHODS["mtlora"].config(rank=8).label == "MTLoRA (r=8)"
    assert METHODS["frozen"].config().label == "Decoders only"
    for method in METHODS.values():
        dial = method.config().dial
        assert dial is None or dial in {field.name for field in dataclasses.fields(method.config)}


POLYHISTOR_DECODERS = 2_547_000
"""About the size of the four decoders in the tables that print these rows; the printed counts have two decimals of a million."""


@pytest.mark.parametrize(
    ("name", "dials", "tasks", "encoder", "printed"),
    [
        ("bitfit", {}, 1, 51_456 + 23_322, 2.85),
        ("vpt_shallow", {"prompts": 50}, 1, 50 * 96, 2.57),
        ("vpt", {"prompts": 50}, 1, 50 * 4_416, 3.43),
        ("lora_attention", {"rank": 4, "factor_bias": True}, 1, 79_584, 2.87),
        ("compacter", {}, 1, 58_272, 2.78),
        ("compacter_plus_plus", {}, 1, 29_136, 2.66),
        ("adapter", {"reduction": 4, "also_train": ("norm",)}, 4, 2_156_544 + 11_040 + 23_040, 4.74),
    ],
    ids=str,
)
def test_rows_of_other_papers_have_their_printed_count(name: str, dials: dict[str, Any], tasks: int, encoder: int, printed: float):
    trained_on = TASK_NAMES[:tasks]
    own = ledger(name, tasks=trained_on, **dials)["trainable_without_decoders"]
    assert own == encoder
    copies = 1 if tasks == 4 else 4
    assert abs(copies * own + POLYHISTOR_DECODERS - printed * 1e6) < 6_000
