"""Cost measures against hand arithmetic on small models, and published counts on Swin-T."""

from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from bench.measure.cost import (
    PARAMETER_GROUPS,
    flops_per_image,
    inference_cost,
    parameter_group,
    parameter_ledger,
    saved_activation_bytes,
    step_memory,
    stored_bytes,
    summarize_seconds,
    tensor_bytes,
)
from bench.model.backbone import DEMO_BACKBONE, SwinPyramid
from methods import METHODS
from methods.base import merge

FLOAT = 4


class LowRank(nn.Module):
    """A frozen linear layer with a low-rank pair, the shared one and one of a task."""

    def __init__(self, linear, rank):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.lora_A = nn.Parameter(torch.zeros(rank, linear.in_features))
        self.lora_B = nn.Parameter(torch.zeros(linear.out_features, rank))
        self.task_A = nn.ParameterDict({"semseg": nn.Parameter(torch.zeros(2, linear.in_features))})

    def forward(self, x):
        return self.linear(x) + x @ self.lora_A.T @ self.lora_B.T


class Model(nn.Module):
    """The interface that the ledger asks for."""

    def __init__(self, backbone, decoders, method_parameter_names=()):
        super().__init__()
        self.backbone, self.decoders = backbone, nn.ModuleDict(decoders)
        self.tasks, self.method_parameter_names = tuple(decoders), frozenset(method_parameter_names)

    def forward(self, image):
        return self.backbone(image)


@pytest.fixture(scope="module")
def swin_tiny():
    """Swin-T at 448 px as the release has it: without classifier and without final norm."""
    backbone = timm.create_model("swin_tiny_patch4_window7_224", img_size=448, pretrained=False, num_classes=0)
    backbone.norm = nn.Identity()
    return backbone


def method_names(model):
    return {name for name, _ in model.named_parameters() if "lora_" in name or "task_A" in name}


def test_swin_tiny_groups_equal_the_published_counts(swin_tiny):
    ledger = parameter_ledger(Model(swin_tiny, {"semseg": nn.Conv2d(4, 21, 1)}))
    totals = {group: counts["total"] for group, counts in ledger["groups"].items()}
    assert totals == {
        "backbone": 25_918_272,
        "method_shared": 0,
        "method_per_task": 0,
        "norm": 23_040,
        "relative_position": 23_322,
        "patch_embed": 4_896,
        "patch_merging": 1_548_288,
        "decoders": 105,
    }
    assert ledger["total"] == ledger["trainable"] == 27_517_818 + 105
    assert ledger["trainable_without_decoders"] == 27_517_818


def test_ledger_separates_what_the_method_added_from_what_trains():
    backbone = nn.Module()
    backbone.mlp, backbone.norm1, backbone.lora_norm = LowRank(nn.Linear(6, 5), rank=3), nn.LayerNorm(6), nn.LayerNorm(5)
    decoders = {"semseg": nn.Linear(5, 2), "normals": nn.Linear(5, 3)}
    model = Model(backbone, decoders)
    model.method_parameter_names = frozenset(method_names(model))
    groups = parameter_ledger(model)["groups"]
    assert tuple(groups) == PARAMETER_GROUPS
    assert groups["backbone"] == {"total": 35, "trainable": 0}
    assert groups["method_shared"] == {"total": 3 * 6 + 5 * 3 + 10, "trainable": 43}
    assert groups["method_per_task"] == {"total": 12, "trainable": 12}
    assert groups["norm"] == {"total": 12, "trainable": 12}
    assert groups["decoders"] == {"total": 30, "trainable": 30}


def test_ledger_adds_up():
    model = Model(nn.Linear(3, 4).requires_grad_(False), {"semseg": nn.Linear(4, 2)})
    model.decoders["normals"] = model.decoders["semseg"]  # tied: counts once
    ledger = parameter_ledger(model)
    assert (ledger["total"], ledger["trainable"], ledger["trainable_without_decoders"]) == (26, 10, 0)
    assert sum(counts["total"] for counts in ledger["groups"].values()) == 26
    model.decoders["semseg"].weight.requires_grad_(False)  # what is frozen of a decoder is not taken off what trains
    model.backbone.bias.requires_grad_(True)
    ledger = parameter_ledger(model)
    assert (ledger["trainable"], ledger["trainable_without_decoders"]) == (4 + 2, 4)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("decoders.semseg.norm.weight", "decoders"),
        ("backbone.swin.patch_embed.proj.weight", "patch_embed"),
        ("backbone.swin.patch_embed.norm.weight", "patch_embed"),
        ("backbone.layers.1.downsample.norm.bias", "norm"),
        ("backbone.layers.1.downsample.reduction.weight", "patch_merging"),
        ("backbone.layers.1.downsample.reduction.linear.weight", "patch_merging"),
        ("backbone.layers.0.blocks.0.norm2.weight", "norm"),
        ("backbone.layers.0.blocks.0.attn.relative_position_bias_table", "relative_position"),
        ("backbone.layers.0.blocks.0.attn.qkv.bias", "backbone"),
        ("backbone.layers.0.blocks.0.attn.qkv.lora_A", "method_shared"),
        ("backbone.layers.0.blocks.0.attn.qkv.norm.weight", "method_shared"),
        ("backbone.layers.0.blocks.0.attn.qkv.task_A.normals", "method_per_task"),
    ],
)
def test_parameter_names_fall_into_their_group(name, group):
    added = frozenset({name}) if ".qkv." in name and not name.endswith("qkv.bias") else frozenset()
    assert parameter_group(name, tasks=("semseg", "normals"), method_parameter_names=added) == group


def test_a_parameter_outside_the_groups_or_an_unknown_method_name_is_an_error():
    model = Model(nn.Linear(2, 2), {"semseg": nn.Linear(2, 2)}, {"backbone.lora_A"})
    with pytest.raises(ValueError, match=r"backbone\.lora_A"):
        parameter_ledger(model)
    model.method_parameter_names, model.neck = frozenset(), nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"neck\.weight"):
        parameter_ledger(model)


def test_flops_of_convolution_and_linear_are_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 10))
    flops, uncovered = flops_per_image(model, 16, "cpu")
    assert flops == 2 * (4 * 4 * 8 * 3 * 4 * 4 + 128 * 10)
    assert uncovered == {"aten.relu": 1}


def test_flops_of_low_rank_products_count():
    flops, uncovered = flops_per_image(nn.Sequential(nn.Flatten(2), LowRank(nn.Linear(64, 5), rank=3)), 8, "cpu")
    assert flops == 2 * 3 * (64 * 5 + 64 * 3 + 3 * 5)
    assert uncovered == {"aten.add": 1}


def test_flops_of_swin_tiny_equal_the_closed_form(swin_tiny):
    flops, uncovered = flops_per_image(swin_tiny, 448, "cpu")
    macs, side = 112 * 112 * 96 * 3 * 16, 112
    for stage, depth in enumerate((2, 2, 6, 2)):
        width, tokens = 96 * 2**stage, side**2
        macs += depth * tokens * (12 * width**2 + 2 * 49 * width)  # qkv 3, proj 1, mlp 8; two products with the window's 49 tokens
        if stage < 3:
            side //= 2
            macs += side**2 * 4 * width * 2 * width
    assert flops == 2 * macs
    assert flops / 2e9 == pytest.approx(18.033, rel=0.005)  # fvcore's count, which adds the norms
    assert {"aten.gelu": 12, "aten.native_layer_norm": 28}.items() <= uncovered.items()
    assert not {"aten.view", "aten.permute", "aten.unbind", "aten.t", "aten.expand", "aten.clone", "aten.bmm"} & uncovered.keys()


@pytest.mark.parametrize("fused", [True, False])
def test_attention_counts_whether_fused_or_not(fused):
    class Attention(nn.Module):
        def forward(self, image):
            q = image.flatten(2).unsqueeze(0)  # (1, 1, 3, 64): one head, 3 tokens of 64
            return F.scaled_dot_product_attention(q, q, q) if fused else (q @ q.mT).softmax(-1) @ q

    assert flops_per_image(Attention(), 8, "cpu")[0] == 2 * 2 * 3 * 3 * 64


def test_counting_flops_restores_each_module_and_leaves_no_gradient():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flops_per_image(model, 4, "cpu")
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model[0].weight.grad is None


def test_flops_are_those_of_evaluation():
    class Halved(nn.Linear):
        def forward(self, x):
            return super().forward(x[..., :1, :] if self.training else x)

    assert flops_per_image(nn.Sequential(nn.Dropout(0.5), Halved(8, 5)).train(), 8, "cpu") == (2 * 3 * 8 * 8 * 5, {})


def test_a_model_that_fails_while_flops_are_counted_gets_its_modes_back():
    model = nn.Sequential(nn.Linear(7, 7)).train()
    with pytest.raises(RuntimeError):
        flops_per_image(model, 8, "cpu")
    assert all(module.training for module in model.modules())


def saved_bytes(model, x):
    with saved_activation_bytes(model) as saved:
        model(x).sum()
    return saved.bytes


def test_saved_activations_of_linear_and_relu_are_by_hand():
    # Linear saves its input (for the weight's gradient), ReLU its output; the second Linear saves that same output: once.
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    assert saved_bytes(model, torch.randn(7, 10)) == FLOAT * 7 * (10 + 20)


def test_frozen_layers_save_less():
    model, x = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)), torch.randn(7, 10)
    model[0].requires_grad_(False)
    assert saved_bytes(model, x) == FLOAT * 7 * 20  # nothing before the first trainable layer
    model.requires_grad_(False)
    assert saved_bytes(model, x) == 0


def test_a_frozen_layer_behind_a_trainable_one_saves_no_input():
    model = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5).requires_grad_(False))
    assert saved_bytes(model, torch.randn(7, 10)) == FLOAT * 7 * 10  # the second needs its own weight only


def test_low_rank_adaptation_saves_the_input_and_the_small_product():
    model = LowRank(nn.Linear(10, 20), rank=3)
    assert saved_bytes(model, torch.randn(7, 10)) == FLOAT * 7 * (10 + 3)


def test_saved_views_count_their_storage_once_and_whole():
    model, x = nn.Linear(4, 4), torch.randn(8, 4)
    with saved_activation_bytes(model) as saved:
        (model(x[:2]) * model(x[2:4])).sum()
    # x whole, and the two outputs that the product saves
    assert saved.bytes == FLOAT * (8 * 4 + 2 * 2 * 4)
    assert saved.storages == 3


def test_parameters_buffers_and_their_views_are_not_activations():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))
            self.register_buffer("table", torch.ones(4, 4))

        def forward(self, x):
            return self.weight[:2].T * self.table[:, :2]

    assert saved_bytes(Scaled(), None) == 0


def test_saved_storages_that_were_freed_meanwhile_are_not_confused_with_new_ones():
    model, x = nn.Linear(4, 4), [torch.randn(8, 4) for _ in range(50)]
    with saved_activation_bytes(model) as saved:
        for item in x:
            model(item).square().sum()  # each graph dies at once, and its memory goes to the next
    assert saved.bytes == FLOAT * 50 * 2 * 8 * 4


def test_counting_saved_activations_changes_no_gradient():
    model, x = nn.Sequential(nn.Linear(10, 20), nn.GELU(), nn.LayerNorm(20), nn.Linear(20, 5)), torch.randn(7, 10)
    model(x).square().sum().backward()
    plain = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with saved_activation_bytes(model):
        model(x).square().sum().backward()
    assert all(torch.equal(parameter.grad, gradient) for parameter, gradient in zip(model.parameters(), plain, strict=True))


def training_step(model, optimizer, x):
    def step():
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()

    return step


def test_step_memory_is_by_hand():
    model, x = nn.Sequential(nn.Linear(10, 20), nn.BatchNorm1d(20), nn.Linear(20, 5)), torch.randn(7, 10)
    model[0].requires_grad_(False)
    trainable, frozen = 2 * 20 + 20 * 5 + 5, 10 * 20 + 20
    memory = step_memory(model, optimizer := torch.optim.AdamW(model[1:].parameters()), training_step(model, optimizer, x))
    assert memory == {
        "weights": FLOAT * (trainable + frozen + 2 * 20) + 8,  # batch norm: two statistics, and an int64 count of batches
        "gradients": FLOAT * trainable,
        "optimizer_state": 2 * FLOAT * trainable + FLOAT * 4,  # two moments, and a step count for each of four tensors
        "saved_activations": FLOAT * (2 * 7 * 20 + 2 * 20),  # input and output of the norm, its mean and inverse deviation
        "total": sum(value for key, value in memory.items() if key != "total"),
    }


def test_a_trainable_parameter_without_gradient_costs_neither_gradient_nor_state():
    model, x = nn.Linear(4, 4), torch.randn(2, 4)
    model.dead = nn.Parameter(torch.zeros(1000))
    memory = step_memory(model, optimizer := torch.optim.AdamW(model.parameters()), training_step(model, optimizer, x))
    assert memory["gradients"] == FLOAT * 20
    assert memory["weights"] == FLOAT * 1020


def test_step_memory_of_a_first_update_that_a_gradient_scaler_skips_is_that_of_a_later_one():
    model, x, calls = nn.Linear(4, 4), torch.randn(2, 4), []
    optimizer = torch.optim.AdamW(model.parameters())
    plain = training_step(model, SimpleNamespace(zero_grad=optimizer.zero_grad, step=lambda: None), x)
    memory = step_memory(model, optimizer, lambda: (plain(), calls.append(1), len(calls) == 3 and optimizer.step()))
    assert len(calls) == 3
    assert memory["saved_activations"] == FLOAT * 8


def test_step_memory_without_gradients_or_update_is_an_error():
    model, x = nn.Linear(4, 4), torch.randn(2, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    step = training_step(model, optimizer, x)
    with pytest.raises(RuntimeError, match="0 gradients"):
        step_memory(model, optimizer, lambda: (step(), optimizer.zero_grad()))
    with pytest.raises(RuntimeError, match="0 tensors"):
        step_memory(model, torch.optim.AdamW(model.parameters()), step)


def test_tensor_bytes_counts_a_shared_storage_once():
    x = torch.zeros(6, 4)
    assert tensor_bytes([x, x[:2], x.T, torch.zeros(3, dtype=torch.int64)]) == FLOAT * 24 + 24


def test_step_seconds_leave_out_the_warm_up():
    seconds = [9.0, 9.0, *(k / 100 for k in range(101))]
    assert summarize_seconds(seconds, warmup_steps=2) == pytest.approx({"median": 0.5, "p05": 0.05, "p95": 0.95, "n": 101})
    assert summarize_seconds([1.0], warmup_steps=1) == {"median": None, "p05": None, "p95": None, "n": 0}
    with pytest.raises(ValueError, match="warmup_steps"):
        summarize_seconds([1.0], warmup_steps=-1)


def test_stored_bytes_are_trainable_parameters_and_their_saved_buffers():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model[:2].requires_grad_(False)
    model[2].register_buffer("index", torch.zeros(100), persistent=False)
    assert stored_bytes(model) == FLOAT * (4 * 4 + 4 + 2 * 4) + FLOAT * 2 * 4 + 8


def lora_model(layers: tuple[str, ...], rank: int) -> nn.Module:
    backbone = SwinPyramid(timm.create_model(DEMO_BACKBONE, num_classes=0), ("semseg",))
    METHODS["lora"].apply(backbone, METHODS["lora"].config(layers=layers, rank=rank))
    return Model(backbone, {})


def test_merging_takes_the_low_rank_products_out_of_the_count():
    model, plain = lora_model(("qkv", "fc1"), 3), lora_model(("qkv",), 1)
    merge(plain.backbone)
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    measured = inference_cost(model, 64, "cpu")
    assert measured["merged_layers"] == 24
    assert measured["merged_flops_per_image"] == flops_per_image(plain, 64, "cpu")[0]
    shapes = ((24, 256, 2), (48, 64, 2), (96, 16, 6), (192, 4, 2))  # width, tokens of a 64 px image, blocks
    low_rank = sum(2 * 3 * (1 + 3 + 1 + 4) * c * tokens * blocks for c, tokens, blocks in shapes)
    assert measured["flops_per_image"] == measured["merged_flops_per_image"] + low_rank
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())
    for name in ("inference_seconds", "merged_inference_seconds"):
        assert measured[name]["n"] == 10
        assert 0 < measured[name]["p05"] <= measured[name]["median"] <= measured[name]["p95"]
