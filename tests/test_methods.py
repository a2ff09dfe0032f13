"""The method contract, over every registered method and MTLoRA's modes."""

import copy
import pickle
import re
from functools import cache
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.model.backbone import DEMO_BACKBONE, SwinPyramid
from methods import METHODS
from methods.base import LAYERS, merge
from methods.mtlora import MODES, MTLoRALinear
from methods.vpt import PromptedAttention

TASKS = ("semseg", "normals", "saliency")
NARROW = {"compacter": {"terms": 2}, "compacter_plus_plus": {"terms": 2}}
"""Dials for the small Swin where the defaults want more channels than its 24."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, NARROW.get(name, {})) for name in METHODS},
    **{f"mtlora-{mode}": ("mtlora", {"mode": mode}) for mode in MODES if mode != "matrix"},
    "mtlora_plus-addition": ("mtlora_plus", {"mode": "addition"}),
    "mtlora-noproj": ("mtlora", {"layers": ("qkv", "fc1", "fc2")}),
    "lora_attention-factor_bias": ("lora_attention", {"factor_bias": True, "rank": 3}),
    "compacter-terms": ("compacter", {"reduction": 2, "terms": 2, "rank": 3, "layers": ("qkv", "fc1")}),
    "hyperformer-stage": ("hyperformer", {"share": "stage", "reduction": 5, "embedding": 8}),
    "polyhistor-kernel": ("polyhistor", {"kernel": 2, "rank": 3}),
    "lora-everywhere": ("lora", {"layers": tuple(LAYERS), "also_train": ("norm", "bias")}),
    "lora-scales": ("lora", {"stage_ranks": (0, 1, 2, 3), "scaling": "alpha_over_rank", "trainable_scale": True}),
    "mtlora-ranks": ("mtlora", {"stage_ranks": (0, 2, 3, 1), "stage_task_ranks": (0, 1, 2, 3), "task_ranks": (("normals", 4),)}),
    "mtlora-every": ("mtlora", {"task_blocks": "every"}),
    "mtlora-task_qkv": ("mtlora", {"task_qkv": True, "mode": "matrixv2"}),
    "mtlora-every-scales": ("mtlora", {"task_blocks": "every", "task_qkv": True, "mode": "addition", "trainable_scale": True}),
}
SIZES = {64: "last stage not shifted", 96: "last stage shifted and padded"}

CHANGES_THE_START = {
    "vpt": "prompts are tokens that attention sees from the first step on",
    "vpt_shallow": "as vpt",
    "mtlora-addition": "the shared stream gains the LayerNorm of the sum of the tasks' outputs",
    "mtlora_plus-addition": "as mtlora-addition",
    "mtlora-every-scales": "as mtlora-addition",
}
LAST_FC2 = "swin.layers.3.blocks.1.mlp.fc2"
UNREAD = {
    "mtlora": (f"{LAST_FC2}.lora_A", f"{LAST_FC2}.lora_B"),
    "mtlora_plus": (f"{LAST_FC2}.lora_A", f"{LAST_FC2}.lora_B"),
    "mtlora-noproj": (f"{LAST_FC2}.lora_A", f"{LAST_FC2}.lora_B"),
    "mtlora-addition": (f"{LAST_FC2}.norm.weight", f"{LAST_FC2}.norm.bias"),
    "mtlora_plus-addition": (f"{LAST_FC2}.norm.weight", f"{LAST_FC2}.norm.bias"),
    "mtlora-ranks": (f"{LAST_FC2}.lora_A", f"{LAST_FC2}.lora_B"),
    "mtlora-every": (f"{LAST_FC2}.lora_A", f"{LAST_FC2}.lora_B"),
    "mtlora-every-scales": (f"{LAST_FC2}.norm.weight", f"{LAST_FC2}.norm.bias"),
}
"""Parameters of the shared stream behind the last place where a task reads it: counted, as in the release, but without gradient."""

TASK_SPECIFIC = ("mtlora", "hyperformer", "polyhistor")
"""How the names of the cases begin whose methods own parameters of single tasks."""

COUPLED = {"mtlora-addition", "mtlora_plus-addition", "mtlora-every-scales"}
"""Here the shared stream holds the sum over the tasks, so that all tasks' pairs but the last stage's serve every task."""


@cache
def untouched(image_size: int) -> SwinPyramid:
    """The small Swin with windows of 2 instead of 4: shifted and padded windows in the last stage cost little."""
    torch.manual_seed(0)
    swin = timm.create_model(DEMO_BACKBONE, img_size=image_size, window_size=2, num_classes=0)
    pyramid = SwinPyramid(swin, TASKS).eval()
    perturb(pyramid, torch.Generator().manual_seed(1))
    return pyramid


@cache
def pickled(image_size: int) -> bytes:
    return pickle.dumps(untouched(image_size))


def copied(image_size: int = 64) -> SwinPyramid:
    """A copy of the untouched backbone, several times faster than by deepcopy."""
    return pickle.loads(pickled(image_size))


def perturb(module: nn.Module, generator: torch.Generator) -> None:
    """Move every parameter that trains: one step away from the start, where zeros block gradients."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def fresh(case: str, image_size: int = 64, *, seed: int = 2, moved: bool = False) -> SwinPyramid:
    backbone = copied(image_size)
    name, dials = CASES[case]
    torch.manual_seed(seed)
    METHODS[name].apply(backbone, METHODS[name].config(**dials))
    if moved:
        perturb(backbone, torch.Generator().manual_seed(seed))
    return backbone.eval()


@cache
def image(image_size: int = 64) -> Tensor:
    return torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(3))


@cache
@torch.no_grad()
def reference(image_size: int) -> dict[str, list[Tensor]]:
    """What the untouched backbone computes."""
    return untouched(image_size)(image(image_size))


def total(pyramids: dict[str, list[Tensor]], tasks: tuple[str, ...] = TASKS) -> Tensor:
    """A loss in which every element of every map counts with a weight of its own."""
    generator = torch.Generator().manual_seed(4)
    return sum((x.float() * torch.randn(x.shape, generator=generator)).mean() for task in tasks for x in pyramids[task])


def assert_equal_pyramids(actual: dict[str, list[Tensor]], expected: dict[str, list[Tensor]], **tolerance: float) -> None:
    assert list(actual) == list(expected)
    for task, maps in expected.items():
        for x, y in zip(actual[task], maps, strict=True):
            torch.testing.assert_close(x, y, **tolerance)


def group_members(backbone: nn.Module, group: str) -> set[str]:
    """Names of a backbone's own parameters in a group of `also_train`, found through the modules' types."""
    modules = dict(backbone.named_modules())
    members = set()
    for name, _ in backbone.named_parameters():
        owner, _, attribute = name.rpartition(".")
        norm = isinstance(modules[owner], nn.LayerNorm)
        member = {
            "norm": norm and "patch_embed" not in owner,
            "relative_position": attribute == "relative_position_bias_table",
            "patch_embed": "patch_embed" in owner,
            "patch_merging": owner.endswith("downsample.reduction"),
            "bias": attribute == "bias" and not norm,
        }[group]
        members |= {name} if member else set()
    return members


OWN = {
    "full": r"$^",
    "frozen": r"$^",
    "lora": r"\.(qkv|proj|fc1|fc2|reduction)\.lora_[AB]$",
    "adapter": r"\.(attn\.proj|mlp\.fc2)\.(down|up)\.(weight|bias)$",
    "vpt": r"\.blocks\.\d\.attn\.prompts$",
    "vpt_shallow": r"^swin\.patch_embed\.prompts$",
    "bitfit": r"$^",
    "compacter": r"\.(attn\.proj|attn\.qkv|mlp\.fc1|mlp\.fc2)\.(down|up)\.(A|s|t|bias)$",
    "compacter_plus_plus": r"\.mlp\.fc2\.(down|up)\.(A|s|t|bias)$",
    "lora_attention": r"\.attn\.qkv\.(down|up)\.(query|value)\.(weight|bias)$",
    "hyperformer": r"^hyperformer\.(task_embeddings\.\w+|(block|position)_embeddings|(projector|adapters|norms)\.\w+\.(weight|bias))$",
    "polyhistor": r"^templates\.(task_embeddings\.\w+|factors\.\d\.weight)$|\.(attn\.proj|mlp\.fc2)\.(down|up)$",
    "polyhistor_lite": r"^templates\.(task_embeddings\.\w+|factors\.all\.weight)$|\.(attn\.proj|mlp\.fc2)\.(down|up)$",
    "lora-scales": r"\.(qkv|proj|fc1|fc2)\.(lora_[AB]|scale)$",
    "mtlora-every": r"\.(qkv|proj|fc1|fc2)\.lora_[AB]$|\.(attn\.attention\.proj|attn\.proj|mlp\.fc1|mlp\.fc2)\.task_[AB]\.\w+$",
    "mtlora-task_qkv": r"\.lora_[AB]$|\.blocks\.[15]\.(attn\.qkv|attn\.attention\.proj|mlp\.fc1|mlp\.fc2)\.task_[AB]\.\w+$",
    "mtlora-every-scales": r"\.(attn\.qkv|attn\.attention\.proj|mlp\.fc1|mlp\.fc2)\.(task_[AB]\.\w+|task_scale\.\w+|norm\.\w+)$",
    "mtlora": r"\.(qkv|proj|fc1|fc2)\.lora_[AB]$|\.blocks\.[15]\.(attn\.proj|mlp\.fc1|mlp\.fc2)\.(task_[AB]\.\w+|norm\.\w+)$",
    "mtlora_plus": r"\.(qkv|proj|fc1|fc2|reduction)\.lora_[AB]$|"
    r"\.blocks\.[15]\.(attn\.proj|mlp\.fc1|mlp\.fc2)\.(task_[AB]\.\w+|norm\.\w+)$",
}
"""Names of the parameters that a method, or a case of it, adds, as a pattern. The last blocks of the small Swin are 1, 1, 5 and 1."""


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_output_shapes_stay_as_they_were(case: str, image_size: int):
    assert any(untouched(image_size).swin.layers[3].blocks[1].shift_size) == (image_size == 96)
    with torch.no_grad():
        expected, actual = reference(image_size), fresh(case, image_size, moved=True)(image(image_size))
    assert {t: [x.shape for x in maps] for t, maps in actual.items()} == {t: [x.shape for x in maps] for t, maps in expected.items()}


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_method_is_the_identity_at_init(case: str, image_size: int):
    with torch.no_grad():
        expected, actual = reference(image_size), fresh(case, image_size)(image(image_size))
    if case in CHANGES_THE_START:
        assert not torch.allclose(actual["semseg"][3], expected["semseg"][3])
    else:
        assert_equal_pyramids(actual, expected)


@pytest.mark.parametrize("case", CASES)
def test_only_the_intended_parameters_train(case: str):
    name, dials = CASES[case]
    backbone, original = fresh(case), untouched(64)
    groups = METHODS[name].config(**dials).also_train
    modified = {re.sub(r"\.(linear|attention)\.", ".", n): (n, p) for n, p in backbone.named_parameters()}  # wrapped layers keep their name
    intended = {n for group in groups for n in group_members(original, group)}
    if name == "full":
        intended = {n for n, _ in original.named_parameters()}
    if name == "bitfit":
        intended |= {n for n, _ in original.named_parameters() if n.endswith("bias")}
    for n, parameter in original.named_parameters():
        assert modified[n][1].requires_grad == (n in intended), n
        assert torch.equal(modified[n][1], parameter), n
    own = {n for n, _ in original.named_parameters()}
    added = {n for short, (n, _) in modified.items() if short not in own}
    assert all(p.requires_grad for n, p in modified.values() if n in added)
    assert {n for n in added if not re.search(OWN.get(case, OWN[name]), n)} == set()
    assert bool(added) == (name not in ("full", "frozen", "bitfit"))


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_every_trainable_parameter_gets_a_gradient(case: str, image_size: int):
    backbone = fresh(case, image_size, moved=True)
    if case != "frozen":
        total(backbone(image(image_size))).backward()
    missing = {n for n, p in backbone.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)}
    assert missing == set(UNREAD.get(case, ()))
    assert all(p.grad is None for p in backbone.parameters() if not p.requires_grad)


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("case", [case for case in CASES if case != "full"])
def test_frozen_weights_are_equal_to_the_bit_after_three_steps(case: str, image_size: int):
    backbone = fresh(case, image_size).train()
    frozen = {n: p.clone() for n, p in backbone.named_parameters() if not p.requires_grad}
    buffers = {n: b.clone() for n, b in backbone.named_buffers()}
    trainable = {n: p.clone() for n, p in backbone.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-2)
    if trainable:
        for _ in range(3):  # stochastic depth may skip a block in one of them
            optimizer.zero_grad()
            total(backbone(image(image_size))).backward()
            optimizer.step()
    now = dict(backbone.named_parameters()) | dict(backbone.named_buffers())
    assert all(torch.equal(now[n], value) for n, value in (frozen | buffers).items())
    assert {n for n, value in trainable.items() if torch.equal(now[n], value)} <= set(UNREAD.get(case, ()))


@pytest.mark.parametrize(("task", "image_size"), [(task, (96, 64, 96)[i]) for i, task in enumerate(TASKS)])
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith(TASK_SPECIFIC) and case != "mtlora-lora_only"])
def test_a_loss_on_one_task_leaves_the_other_tasks_parameters_without_gradient(case: str, task: str, image_size: int):
    backbone = fresh(case, image_size, moved=True)
    total(backbone(image(image_size)), (task,)).backward()
    own = {t: {n: p for n, p in backbone.named_parameters() if t in n.split(".")} for t in TASKS}
    assert all(len(parameters) > 0 for parameters in own.values())
    for other in set(TASKS) - {task}:
        touched = {n for n, p in own[other].items() if p.grad is not None and p.grad.any()}
        assert not {n for n in touched if case not in COUPLED or LAST_FC2 in n}
    assert all(p.grad.any() for p in own[task].values())


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_state_dict_round_trip(case: str, image_size: int):
    one, other = fresh(case, image_size, moved=True), fresh(case, image_size, seed=5, moved=True)
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert_equal_pyramids(other(image(image_size)), one(image(image_size)), rtol=0, atol=0)


FOLDED = {
    "lora": 4 * 12,
    "lora-everywhere": 4 * 12 + 3,
    "lora_attention": 12,
    "lora_attention-factor_bias": 12,
    "mtlora": 4 * 12 - 3 * 4,
    "mtlora_plus": 4 * 12 - 3 * 4 + 3,
    "mtlora-matrixv2": 4 * 12 - 3 * 4,
    "mtlora-addition": 4 * 12 - 3 * 4,
    "mtlora_plus-addition": 4 * 12 - 3 * 4 + 3,
    "mtlora-lora_only": 4 * 12,
    "mtlora-noproj": 3 * 12 - 2 * 4,
    "lora-scales": 4 * 10,
    "mtlora-ranks": 4 * 10 - 3 * 3,
    "mtlora-every": 4,  # the first qkv of each stage
    "mtlora-task_qkv": 4 * 12 - 4 * 4,
}
"""Layers that one plain layer can replace: low-rank updates without task streams. Adapters and prompts are not linear."""


@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_merged_equals_unmerged(case: str, image_size: int):
    backbone = fresh(case, image_size, moved=True)
    with torch.no_grad():
        expected = backbone(image(image_size))
        assert merge(backbone) == FOLDED.get(case, 0)
        actual = backbone(image(image_size))
    for task in TASKS:
        for x, y in zip(actual[task], expected[task], strict=True):
            assert (x - y).abs().max() < 1e-5 * y.abs().max()
    assert merge(backbone) == 0


@pytest.mark.parametrize("case", CASES)
def test_a_deep_copy_is_equal_and_apart(case: str):
    backbone = fresh(case, moved=True)
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        expected = backbone(image())
        assert_equal_pyramids(twin(image()), expected, rtol=0, atol=0)
        for parameter in backbone.parameters():
            parameter.zero_()
        assert_equal_pyramids(twin(image()), expected, rtol=0, atol=0)


def test_the_copy_of_a_prompted_attention_refers_to_the_copied_norm():
    twin = copy.deepcopy(fresh("vpt"))
    blocks = [module for module in twin.modules() if hasattr(module, "norm1")]
    assert len(blocks) == 12
    assert all(block.attn.norm[0] is block.norm1 for block in blocks)


@pytest.mark.parametrize("case", CASES)
def test_bf16_autocast_is_near_fp32(case: str):
    backbone = fresh(case, moved=True)
    with torch.no_grad():
        expected = backbone(image())
    with torch.autocast("cpu", torch.bfloat16):
        actual = backbone(image())
        loss = total(actual)
    if loss.requires_grad:
        loss.backward()
    for task in TASKS:
        for x, y in zip(actual[task], expected[task], strict=True):
            assert (x.float() - y).norm() < 0.05 * y.norm()
    assert all(p.grad.isfinite().all() for p in backbone.parameters() if p.grad is not None)


@pytest.mark.parametrize("mode", MODES[:3])
def test_task_streams_stay_in_bf16_under_autocast(mode: str):
    """A stream lifted to fp32 would double the memory of the widest activations, the tasks' hidden layers."""
    layer = MTLoRALinear(nn.Linear(8, 6), 2, dict.fromkeys(TASKS, 2), 4.0, dict.fromkeys(TASKS, 4.0), 0.0, mode, 1)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.randn(2, 5, 8))
    assert out.shape == (8, 5, 6)
    assert mode == "addition" or out.dtype == torch.bfloat16


def test_task_streams_are_read_in_the_order_of_the_tasks():
    backbone = fresh("mtlora")  # at init all tasks' features are equal
    with torch.no_grad():
        before = backbone(image())
        dict(backbone.named_parameters())[f"{LAST_FC2}.task_B.normals"].fill_(0.1)
        after = backbone(image())
    changed = {task for task in TASKS if not torch.equal(before[task][3], after[task][3])}
    assert changed == {"normals"}


@pytest.mark.parametrize("name", METHODS)
def test_one_task_alone_is_the_identity_at_init_too(name: str):
    backbone = copied()
    backbone.tasks = ("normals",)
    METHODS[name].apply(backbone, METHODS[name].config(**NARROW.get(name, {})))
    with torch.no_grad():
        pyramids = backbone.eval()(image())
    assert list(pyramids) == ["normals"]
    if name not in CHANGES_THE_START:
        assert_equal_pyramids(pyramids, {"normals": reference(64)["normals"]})


def test_scale_and_dropout_reach_the_layers():
    backbone = copied()
    METHODS["lora"].apply(backbone, METHODS["lora"].config(scale=2.0, dropout=0.5, layers=("fc1",)))
    layers = [module for module in backbone.modules() if hasattr(module, "lora_A")]
    assert {(layer.scale, layer.dropout.p) for layer in layers} == {(2.0, 0.5)}
    assert len(layers) == 12


def attention_with_prompts_as_tokens(layer: PromptedAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """VPT-deep as written: all tokens attend to all, and the prompts' outputs are dropped afterwards."""
    a, p, (windows, n, c) = layer.attention, len(layer.prompts), x.shape
    tokens = torch.cat([functional.layer_norm(layer.prompts, (c,), layer.norm[0].weight, layer.norm[0].bias).expand(windows, -1, -1), x], 1)
    q, k, v = a.qkv(tokens).view(windows, p + n, 3, a.num_heads, -1).permute(2, 0, 3, 1, 4)
    bias = torch.zeros(windows, a.num_heads, p + n, p + n)
    table = a.relative_position_bias_table[a.relative_position_index.view(-1)].view(n, n, -1).permute(2, 0, 1)
    bias[:, :, p:, p:] = table if mask is None else table + mask.repeat(windows // len(mask), 1, 1)[:, None]
    attention = (q @ k.mT / (c // a.num_heads) ** 0.5 + bias).softmax(-1)
    return a.proj((attention @ v).transpose(1, 2).reshape(windows, p + n, c))[:, p:]


@pytest.mark.parametrize("block", [0, 1], ids=["plain", "shifted"])
def test_prompts_act_as_tokens_that_every_window_sees(block: int):
    layers = fresh("vpt", moved=True).swin.layers[1].blocks
    layer, mask = layers[block].attn, layers[block].attn_mask
    assert (mask is not None) == (block == 1)
    x = torch.randn(2 * 16, 4, 48)  # two images of 8 x 8 tokens, windows of 2 x 2
    with torch.no_grad():
        torch.testing.assert_close(layer(x, mask), attention_with_prompts_as_tokens(layer, x, mask))
