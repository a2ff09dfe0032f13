"""MTLoRA's and LoRA's ablation knobs: numbers against per-task loops written from the equations, names of trials, and errors."""

import json
import re
from typing import Any

import pytest
import torch
from test_methods import TASKS as THREE
from test_methods import copied, image, perturb
from test_mtlora_golden import TASKS, Stage
from torch import Tensor, nn

from bench.config import DataConfig, TrialConfig
from bench.model.backbone import SwinPyramid
from methods import METHODS
from methods.base import LAYERS, merge
from methods.lora import LoRALinear, count_pairs
from methods.mtlora import MTLoRAConfig, MTLoRALinear, StreamAttention
from methods.shape import swin_shape

Streams = dict[str, Tensor]


def attend(block: nn.Module, qkv: Tensor) -> Tensor:
    """Window attention from queries, keys and values: `(B, H, W, 3C) -> (B, H, W, C)`, one window after the other."""
    attention = getattr(block.attn, "attention", block.attn)
    (batch, height, _, _), w, shift, heads = qkv.shape, block.window_size[0], block.shift_size[0], attention.num_heads
    rolled = qkv.roll((-shift, -shift), (1, 2))
    out = torch.empty(*rolled.shape[:3], rolled.shape[3] // 3, dtype=qkv.dtype)
    place = torch.tensor([(i, j) for i in range(w) for j in range(w)])
    offset = place[:, None] - place[None] + w - 1
    bias = attention.relative_position_bias_table[offset[..., 0] * (2 * w - 1) + offset[..., 1]].permute(2, 0, 1)
    region = torch.tensor([0] * (height - w) + [1] * (w - shift) + [2] * shift)  # which parts of the image a shifted window joins
    for i in range(0, height, w):
        for j in range(0, height, w):
            q, k, v = rolled[:, i : i + w, j : j + w].reshape(batch, w * w, 3, heads, -1).permute(2, 0, 3, 1, 4)
            part = (3 * region[i : i + w, None] + region[None, j : j + w]).flatten()
            logits = q @ k.mT / q.shape[-1] ** 0.5 + bias - 100.0 * (part[:, None] != part[None])
            out[:, i : i + w, j : j + w] = (logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, w, w, -1)
    return out.roll((shift, shift), (1, 2))


def adapted(layer: nn.Module, config: MTLoRAConfig, stage_rank: int, x: Tensor, own: Streams) -> tuple[Tensor, Streams]:
    """One layer as the equations say; `own` are the tasks' streams where they exist."""

    def scale(rank: int) -> float:
        return config.scale / rank if config.scaling == "alpha_over_rank" else config.scale

    if isinstance(layer, nn.Linear):
        return x @ layer.weight.T + layer.bias, {}
    base, shared = x @ layer.linear.weight.T + layer.linear.bias, 0
    if layer.lora_A is not None:
        assert len(layer.lora_A) == stage_rank
        s = layer.scale if config.trainable_scale else scale(stage_rank)
        shared = s * (x @ layer.lora_A.T @ layer.lora_B.T)
    if isinstance(layer, LoRALinear) or not layer.tasks:
        return base + shared, {}
    tasks = {}
    for task in TASKS:
        tasks[task] = base + (shared if config.mode == "matrixv2" else 0)
        if task in layer.task_A:
            a, b = layer.task_A[task], layer.task_B[task]
            s = layer.task_scale[task] if config.trainable_scale else scale(len(a))
            tasks[task] = tasks[task] + s * (own.get(task, x) @ a.T @ b.T)
    if config.mode == "addition":
        return base + layer.norm(sum(tasks.values())), tasks
    return base + shared, tasks


def residual(x: Tensor, own: Streams, update: Tensor, own_update: Streams) -> tuple[Tensor, Streams]:
    tasks = TASKS if own or own_update else ()
    return x + update, {task: own.get(task, x) + own_update.get(task, update) for task in tasks}


def stage_by_loops(stage: nn.Module, config: MTLoRAConfig, x: Tensor) -> tuple[Tensor, Streams]:
    """All blocks of a stage, with a dictionary of the tasks' streams in the place of dim 0."""
    rank = config.stage_ranks[0] if config.stage_ranks else config.rank
    own: Streams = {}
    for block in stage.blocks:
        qkv, proj = block.attn.qkv, getattr(block.attn, "attention", block.attn).proj
        y, y_own = adapted(qkv, config, rank, block.norm1(x), {task: block.norm1(o) for task, o in own.items()})
        y, y_own = adapted(proj, config, rank, attend(block, y), {task: attend(block, o) for task, o in y_own.items()})
        x, own = residual(x, own, y, y_own)
        y, y_own = adapted(block.mlp.fc1, config, rank, block.norm2(x), {task: block.norm2(o) for task, o in own.items()})
        gelu = nn.functional.gelu
        y, y_own = adapted(block.mlp.fc2, config, rank, gelu(y), {task: gelu(o) for task, o in y_own.items()})
        x, own = residual(x, own, y, y_own)
    return x, own


@pytest.mark.parametrize(
    "dials",
    [
        {},
        {"task_blocks": "every"},
        {"task_qkv": True},
        {"task_blocks": "every", "task_qkv": True},
        {"task_blocks": "every", "task_qkv": True, "mode": "addition", "trainable_scale": True},
        {"task_blocks": "every", "mode": "matrixv2", "scaling": "alpha_over_rank", "task_ranks": {"sal": 8, "normals": 0}},
        {"task_qkv": True, "task_ranks": {"sal": 0}, "trainable_scale": True, "scaling": "alpha_over_rank"},
        {"stage_ranks": (0,), "stage_task_ranks": (3,), "task_blocks": "every"},
        {"stage_ranks": (5,), "stage_task_ranks": (0,), "trainable_scale": True},
        {"task_blocks": "every", "layers": ("qkv", "fc1", "fc2")},
        {"task_blocks": "every", "layers": ("qkv", "proj", "fc2")},
        {"task_blocks": "every", "layers": ("qkv", "proj", "fc1")},
        {"task_blocks": "every", "layers": ("proj", "fc1", "fc2")},
        {"task_qkv": True, "task_blocks": "every", "layers": ("qkv", "fc2")},
        {"task_blocks": "none"},
    ],
    ids=lambda dials: "-".join(f"{name}={value}" for name, value in dials.items()) or "default",
)
def test_a_stage_equals_loops_over_the_tasks(dials: dict[str, Any]):
    torch.manual_seed(0)
    config = MTLoRAConfig(**{"rank": 3, "task_rank": 2, "also_train": ("norm", "relative_position"), **dials})
    backbone = Stage(dim=8, depth=3, heads=2, shifted=True, merging=False)
    METHODS["mtlora"].apply(backbone, config)
    backbone.double().eval()
    perturb(backbone, torch.Generator().manual_seed(1))
    perturb(backbone.requires_grad_(True), torch.Generator().manual_seed(2))
    x = torch.randn(2, 8, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected, own = stage_by_loops(backbone.layers[0], config, x)
        y = x
        for block in backbone.layers[0].blocks:
            y = SwinPyramid.block(block, y)
    streams = y.unflatten(0, (-1, len(x)))
    assert len(streams) == 1 + len(own)
    assert list(own) == ([] if config.task_blocks == "none" else list(TASKS))
    for stream, reference in zip(streams, [expected, *own.values()], strict=True):
        torch.testing.assert_close(stream, reference, rtol=1e-10, atol=1e-10)
    assert all((own[task] - expected).abs().max() > 1e-6 for task in own if dict(config.task_ranks).get(task) != 0)


@pytest.mark.parametrize("mode", ["matrix", "matrixv2"])
def test_a_task_without_a_pair_still_gets_its_stream(mode: str):
    for ranks in ({"semseg": 2, "normals": 0}, {"semseg": 0, "normals": 0}):
        layer = MTLoRALinear(nn.Linear(6, 4), 3, ranks, 2.0, {"semseg": 1.0, "normals": 1.0}, 0.0, mode, 1)
        nn.init.normal_(layer.lora_B)
        x = torch.randn(5, 7, 6)
        shared, semseg, normals = layer(x).unflatten(0, (-1, 5))
        assert set(layer.task_A) == {task for task, rank in ranks.items() if rank}
        torch.testing.assert_close(normals, shared if mode == "matrixv2" else layer.linear(x))
        torch.testing.assert_close(semseg, normals)  # B is zero at the start
        layer(x).square().sum().backward()
        assert all(parameter.grad is not None for parameter in layer.parameters())


def applied(name: str, seed: int = 3, moved: bool = True, **dials: Any) -> nn.Module:
    backbone = copied()
    torch.manual_seed(seed)
    METHODS[name].apply(backbone, METHODS[name].config(**dials))
    if moved:
        perturb(backbone, torch.Generator().manual_seed(4))
    return backbone.eval()


@torch.no_grad()
def pyramids(backbone: nn.Module) -> dict[str, list[Tensor]]:
    return backbone(image())


def largest_difference(one: dict[str, list[Tensor]], other: dict[str, list[Tensor]]) -> dict[str, list[float]]:
    return {task: [(x - y).abs().max().item() for x, y in zip(one[task], other[task], strict=True)] for task in one}


def test_no_task_blocks_is_lora_only():
    none, only = applied("mtlora", task_blocks="none"), applied("mtlora", mode="lora_only")
    assert list(none.state_dict()) == list(only.state_dict())
    assert largest_difference(pyramids(none), pyramids(only)) == {task: [0.0] * 4 for task in THREE}


@pytest.mark.parametrize("dials", [{}, {"task_qkv": True}], ids=str)
def test_a_pair_of_a_first_block_reaches_its_task_in_its_stage_alone(dials: dict[str, Any]):
    backbone = applied("mtlora", task_blocks="every", **dials)
    before = pyramids(backbone)
    layer = backbone.swin.layers[2].blocks[0].mlp.fc1
    with torch.no_grad():
        layer.task_B["normals"].add_(0.3)
    change = largest_difference(pyramids(backbone), before)
    assert {task: [x > 0 for x in maps] for task, maps in change.items()} == {
        task: [False, False, task == "normals", False] for task in THREE
    }


def test_timms_attention_stays_where_qkv_keeps_the_streams():
    def wrapped(**dials: Any) -> int:
        return sum(isinstance(module, StreamAttention) for module in applied("mtlora", **dials).modules())

    assert wrapped() == 0
    assert wrapped(task_qkv=True) == 4
    assert wrapped(task_blocks="every") == 12 - 4
    assert wrapped(task_blocks="every", task_qkv=True) == 12


@pytest.mark.parametrize("name", ["lora", "mtlora"])
def test_alpha_over_rank_divides_by_the_rank_of_the_pair(name: str):
    dials = {} if name == "lora" else {"task_rank": 4}
    fixed = applied(name, rank=4, scale=2.0, **dials)
    divided = applied(name, rank=4, scale=8.0, scaling="alpha_over_rank", **dials)
    assert largest_difference(pyramids(fixed), pyramids(divided)) == {task: [0.0] * 4 for task in THREE}


def test_every_pair_has_the_scale_of_its_own_rank():
    ranks = {"stage_ranks": (1, 2, 4, 8), "task_rank": 3, "task_ranks": {"normals": 6}}
    backbone = applied("mtlora", scale=24.0, scaling="alpha_over_rank", trainable_scale=True, moved=False, **ranks)
    for i, rank in enumerate((1, 2, 4, 8)):
        first, last = backbone.swin.layers[i].blocks[0].mlp.fc1, backbone.swin.layers[i].blocks[-1].mlp.fc1
        assert first.scale.item() == last.scale.item() == 24 / rank
        assert {task: scale.item() for task, scale in last.task_scale.items()} == {"semseg": 8.0, "normals": 4.0, "saliency": 8.0}


@pytest.mark.parametrize(("name", "dials"), [("lora", {}), ("mtlora", {"task_blocks": "every", "task_qkv": True})])
def test_a_trainable_scale_starts_as_the_fixed_one(name: str, dials: dict[str, Any]):
    fixed, trainable = applied(name, moved=False, **dials), applied(name, moved=False, trainable_scale=True, **dials)
    extra = set(dict(trainable.named_parameters())) - set(dict(fixed.named_parameters()))
    assert all(re.search(r"\.(scale|task_scale\.\w+)$", parameter) for parameter in extra)
    for backbone in (fixed, trainable):
        generator = torch.Generator().manual_seed(6)
        with torch.no_grad():
            for parameter, value in backbone.named_parameters():
                if re.search(r"lora_B|task_B", parameter):
                    value.add_(0.05 * torch.randn(value.shape, generator=generator))
    assert max(map(max, largest_difference(pyramids(fixed), pyramids(trainable)).values())) < 1e-5


def test_the_gradient_of_a_trainable_scale_is_the_products_sum():
    layer = MTLoRALinear(nn.Linear(6, 4), 3, {"a": 2, "b": 3}, 2.0, {"a": 1.5, "b": 0.5}, 0.0, "matrix", 1, True).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x, upstream = torch.randn(5, 6, dtype=torch.float64), torch.randn(3, 5, 4, dtype=torch.float64)
    (layer(x) * upstream.flatten(0, 1)).sum().backward()
    for g, a, b, scale in zip(
        upstream,
        [layer.lora_A, layer.task_A["a"], layer.task_A["b"]],
        [layer.lora_B, layer.task_B["a"], layer.task_B["b"]],
        [layer.scale, layer.task_scale["a"], layer.task_scale["b"]],
        strict=True,
    ):
        torch.testing.assert_close(scale.grad, (g * (x @ a.T @ b.T)).sum())


def test_a_merged_layer_has_the_trained_scale():
    layer = LoRALinear(nn.Linear(6, 4), 2, 1.0, 0.0, trainable_scale=True).eval()
    nn.init.normal_(layer.lora_B)
    with torch.no_grad():
        layer.scale.fill_(3.0)
        x = torch.randn(5, 6)
        expected = layer.linear(x) + 3.0 * (x @ layer.lora_A.T @ layer.lora_B.T)
        torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(layer.merged()(x), expected)
    assert merge(applied("lora", stage_ranks=(0, 1, 0, 2), trainable_scale=True)) == 4 * 4


def test_a_stage_of_rank_zero_keeps_its_layers():
    backbone = applied("mtlora_plus", stage_ranks=(0, 2, 2, 2), task_blocks="none")
    names = {name for name, module in backbone.named_modules() if isinstance(module, LoRALinear)}
    assert not [name for name in names if name.startswith(("swin.layers.0.", "swin.layers.1.downsample"))]
    assert len(names) == 4 * 10 + 2


KNOBS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"stage_ranks": (1, 0, 2, 4)}),
    ("lora", {"scaling": "alpha_over_rank"}),
    ("lora", {"trainable_scale": True}),
    ("lora", {"trainable_scale": True, "stage_ranks": (1, 0, 2, 4), "layers": tuple(LAYERS)}),
    ("mtlora", {"stage_ranks": (1, 0, 2, 4)}),
    ("mtlora", {"stage_task_ranks": (1, 0, 2, 4)}),
    ("mtlora", {"task_ranks": (("normals", 2), ("semseg", 0))}),
    ("mtlora", {"task_blocks": "every"}),
    ("mtlora", {"task_blocks": "none"}),
    ("mtlora", {"task_qkv": True}),
    ("mtlora", {"scaling": "alpha_over_rank"}),
    ("mtlora", {"trainable_scale": True}),
    ("mtlora", {"task_blocks": "every", "mode": "addition", "trainable_scale": True, "stage_ranks": (1, 0, 2, 4)}),
    ("mtlora_plus", {"task_qkv": True, "task_ranks": (("semseg", 0),), "trainable_scale": True, "stage_ranks": (1, 0, 2, 4)}),
]


def trial(name: str, dials: dict[str, Any]) -> TrialConfig:
    return TrialConfig(method_name=name, method=METHODS[name].config(**dials), data=DataConfig(source="pascal_context", fingerprint="f00d"))


@pytest.mark.parametrize(("name", "dials"), KNOBS, ids=str)
def test_a_knob_survives_json(name: str, dials: dict[str, Any]):
    config = trial(name, dials)
    again = TrialConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert (again, again.run_id, again.cell_id) == (config, config.run_id, config.cell_id)
    assert hash(again.method) == hash(config.method)


def test_every_knob_names_another_trial():
    names = [trial(name, dials).run_id for name, dials in [("lora", {}), ("mtlora", {}), ("mtlora_plus", {}), *KNOBS]]
    assert len(set(names)) == len(names)


def test_task_ranks_have_one_order_and_may_be_a_dict():
    one, other = MTLoRAConfig(task_ranks={"semseg": 2, "normals": 8}), MTLoRAConfig(task_ranks=[["normals", 8], ["semseg", 2]])
    assert one == other
    assert one.task_ranks == (("normals", 8), ("semseg", 2))


@pytest.mark.parametrize(("name", "dials"), KNOBS, ids=str)
def test_the_configurations_closed_form_equals_the_count(name: str, dials: dict[str, Any]):
    shape = swin_shape(widths=(24, 48, 96, 192), depths=(2, 2, 6, 2), heads=(1, 2, 4, 8), windows=(2,) * 4, patch=4, tasks=len(THREE))
    config = METHODS[name].config(**{**dials, "also_train": ()})
    backbone = applied(name, moved=False, **{**dials, "also_train": ()})
    assert sum(p.numel() for p in backbone.parameters() if p.requires_grad) == config.parameters(shape)


def test_kinds_of_layers_may_be_any_iterable():
    shape = swin_shape(widths=(24, 48), depths=(2, 2), heads=(1, 2), windows=(2, 2), patch=4, tasks=1)
    kinds = ("qkv", "fc2")
    expected = sum(2 * ((1 + 3) * c + (4 + 1) * c) for c in (24, 48))
    assert shape.over_layers(iter(kinds), lambda into, out: into + out) == expected
    assert count_pairs(shape, iter(kinds), (3, 3), trainable_scale=False) == 3 * expected


@pytest.mark.parametrize(
    ("name", "dials", "message"),
    [
        ("lora", {"stage_ranks": (1, 2)}, "stage_ranks: got 2 value(s) (1, 2) for 4 stages; give one a stage"),
        ("lora", {"stage_ranks": (1, 2, -1, 4)}, "stage_ranks must be at least 0, got -1"),
        ("lora", {"scaling": "alpha"}, "allowed: fixed, alpha_over_rank"),
        ("mtlora", {"stage_ranks": (1,) * 5}, "stage_ranks: got 5 value(s)"),
        ("mtlora", {"stage_task_ranks": (1, 2, 3)}, "stage_task_ranks: got 3 value(s) (1, 2, 3) for 4 stages"),
        ("mtlora", {"stage_task_ranks": (1, 2, 3, -4)}, "stage_task_ranks must be at least 0, got -4"),
        ("mtlora", {"task_ranks": {"normals": -1}}, "task_ranks must be at least 0, got -1"),
        ("mtlora", {"task_ranks": {"depht": 4}}, "task_ranks: unknown value(s) ['depht']; allowed: semseg, normals, saliency"),
        ("mtlora", {"task_ranks": (("normals", 1), ("normals", 2))}, "task_ranks names a task twice"),
        ("mtlora", {"task_blocks": "first"}, "allowed: last, every, none"),
        ("mtlora", {"scaling": "alpha"}, "allowed: fixed, alpha_over_rank"),
        ("mtlora", {"task_qkv": True, "layers": ("proj",)}, "task_qkv needs 'qkv' in layers"),
        ("mtlora", {"task_qkv": True, "task_blocks": "none"}, "task_qkv would have no effect"),
        ("mtlora", {"task_ranks": {"normals": 1}, "mode": "lora_only"}, "task_ranks would have no effect"),
        ("mtlora", {"task_blocks": "every", "layers": ("qkv",)}, "task_blocks='every' would have no effect"),
        ("mtlora_plus", {"task_blocks": "every", "mode": "lora_only"}, "task_blocks='every' would have no effect"),
    ],
    ids=str,
)
def test_a_wrong_knob_is_a_clear_error(name: str, dials: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        METHODS[name].apply(copied(), METHODS[name].config(**dials))
