"""MTLoRA's linear layer, block and stage against outputs and gradients of the official release."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.swin_transformer import SwinTransformerStage

from bench.model.backbone import SwinPyramid
from methods.base import LAYERS, sites
from methods.mtlora import MODES, MTLoRAConfig, MTLoRALinear, task_specific
from methods.mtlora import apply as apply_mtlora
from methods.mtlora_plus import MTLoRAPlusConfig

TASKS = ("semseg", "normals", "sal", "human_parts")
RANKS = {"semseg": 2, "normals": 3, "sal": 2, "human_parts": 5}
SCALES = {"semseg": 4.0, "normals": 2.0, "sal": 1.0, "human_parts": 0.5}
NAMES = {"lora_shared_A": "lora_A", "lora_shared_B": "lora_B", "lora_tasks_A": "task_A", "lora_tasks_B": "task_B", "lora_norm": "norm"}


def load(path: Path) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in np.load(path, allow_pickle=False).items()}


def ours(name: str) -> str:
    """Translate a name of the release's state dict."""
    for theirs, mine in NAMES.items():
        name = name.replace(theirs, mine)
    return name


def weights(golden: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {ours(key.removeprefix("w/")): value for key, value in golden.items() if key.startswith("w/")}


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


class Stage(torch.nn.Module):
    """A timm stage, named as in a backbone, so that a method finds its layers; the patch merging is the next stage's first step."""

    tasks = TASKS

    def __init__(self, dim: int, depth: int, heads: int, shifted: bool, merging: bool) -> None:
        super().__init__()
        first = SwinTransformerStage(dim, dim, (8, 8), depth=depth, num_heads=heads, window_size=4, downsample=False)
        if depth == 1 and shifted:
            first.blocks[0].shift_size = first.blocks[0].target_shift_size = (2, 2)
            first.blocks[0]._init_buffers()
        following = SwinTransformerStage(dim, 2 * dim, (8, 8), depth=0, num_heads=heads, window_size=4, downsample=True)
        self.layers = torch.nn.ModuleList([first, following] if merging else [first])


def golden_weights_into(stage: Stage, golden: dict[str, torch.Tensor], prefix: str) -> None:
    state = {}
    for name, value in weights(golden).items():
        state[f"layers.1.{name}" if name.startswith("downsample") else f"layers.0.{prefix}{name}"] = value
    result = stage.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    assert not result.missing_keys


def set_dials(stage: Stage, ranks: dict[str, int], scales: dict[str, float]) -> None:
    """The golden files give every task another rank and scale; the configuration knows one of each."""
    for name, module in list(stage.named_modules()):
        if isinstance(module, MTLoRALinear) and module.task_A:
            rank = 0 if module.lora_A is None else len(module.lora_A)
            layer = MTLoRALinear(module.linear, rank, ranks, module.scale, scales, 0.0, module.mode, module.streams_in)
            parent, _, attribute = name.rpartition(".")
            setattr(stage.get_submodule(parent), attribute, layer)


def config_of(name: str) -> MTLoRAConfig:
    mode = next((mode for mode in MODES if name.endswith(f"_{mode}")), "matrix")
    off = next((kind for kind in LAYERS if name.endswith(f"_no{kind}")), None)
    layers = tuple(kind for kind in ("qkv", "proj", "fc1", "fc2") if kind != off)
    return MTLoRAConfig(rank=4, task_rank=2, mode=mode, layers=layers, also_train=("norm", "relative_position"))


@pytest.mark.parametrize("with_task_inputs", [False, True], ids=["noxt", "xt"])
@pytest.mark.golden("linear_*.npz")
def test_linear_layer_equals_the_release(golden_file: Path, with_task_inputs: bool):
    golden = load(golden_file)
    kind = "xt" if with_task_inputs else "noxt"
    expected = {key.rpartition("/")[2]: value for key, value in golden.items() if key.startswith(f"out/{kind}/")}
    if not expected:
        pytest.skip(f"{golden_file.name} has no {kind} outputs")
    tasks = [task for task in TASKS if task in expected]
    has_pairs = any("lora_tasks_A" in key for key in golden)
    linear = torch.nn.Linear(12, 20, bias="w/linear.bias" in golden)
    mode = next((mode for mode in MODES if golden_file.stem == f"linear_{mode}"), "matrix")
    streams_in = 1 + len(TASKS) if with_task_inputs and has_pairs else 1
    ranks = {task: len(golden[f"w/lora_tasks_A.{task}"]) for task in TASKS if f"w/lora_tasks_A.{task}" in golden}
    layer = MTLoRALinear(linear, 4, ranks, 4.0, SCALES, 0.05, mode, streams_in).eval()
    layer.load_state_dict(weights(golden))
    x = golden["in/x"].clone().requires_grad_()
    streams = torch.cat([x, *(golden[f"in/x_tasks/{task}"] for task in TASKS)]) if streams_in > 1 else x
    out = layer(streams).unflatten(0, (-1, len(x)))
    assert len(out) == 1 + len(ranks)
    assert_close(out[0], expected["shared"])
    for task in tasks:
        assert_close(out[1 + TASKS.index(task)], expected[task])
    if not with_task_inputs:
        out.square().sum().backward()
        gradients = {key.removeprefix("grad/noxt/"): value for key, value in golden.items() if key.startswith("grad/noxt/")}
        parameters = dict(layer.named_parameters())
        assert gradients
        for name, gradient in gradients.items():
            actual = x.grad if name == "x" else parameters[ours(name)].grad
            assert_close(actual, gradient)


@pytest.mark.golden("block_*.npz")
def test_block_equals_the_release(golden_file: Path):
    golden, name = load(golden_file), golden_file.stem
    config = config_of(name)
    last, shifted = not name.startswith("block_notlast"), "shift2" in name
    stage = Stage(dim=12, depth=1 if last else 2, heads=3, shifted=shifted, merging=False)
    if not last:  # the block under test is not the last one of its stage
        stage.layers[0].blocks[0].shift_size = (2, 2) if shifted else (0, 0)
        stage.layers[0].blocks[0]._init_buffers()
    apply_mtlora(stage, config)
    set_dials(stage, RANKS, SCALES)
    block = stage.eval().layers[0].blocks[0]
    state = weights(golden)
    for kind in ("mlp.fc1", "mlp.fc2"):  # ours wraps a layer that is off, when it must hand on the shared stream alone
        for part in ("weight", "bias"):
            if f"{kind}.{part}" in state:
                state[f"{kind}.linear.{part}"] = state.pop(f"{kind}.{part}")
    assert not any(block.load_state_dict(state, strict=False))
    if shifted:
        torch.testing.assert_close(block.attn_mask, golden["attn_mask"])
    x = golden["in/x"].unflatten(1, (8, 8))
    middle = []
    block.norm2.register_forward_hook(lambda module, inputs, output: middle.append(inputs[0]))
    out = SwinPyramid.block(block, x).flatten(1, 2).unflatten(0, (-1, len(x)))
    assert_close(out[0], golden["out/shared"])
    for t, task in enumerate(TASKS):
        if f"out/{task}" in golden:
            # With proj off the release loses the task streams' residual; ours keeps it.
            lost = middle[0].unflatten(0, (-1, len(x)))[0] if name.endswith("_noproj") else 0
            assert_close(out[1 + t] - lost, golden[f"out/{task}"])


@pytest.mark.golden("stage_*.npz")
def test_stage_equals_the_release(golden_file: Path):
    golden = load(golden_file)
    if golden_file.stem.endswith("plus"):
        config = MTLoRAPlusConfig(rank=4, task_rank=2, also_train=("norm", "relative_position"))
    else:
        config = MTLoRAConfig(rank=4, task_rank=2, also_train=("norm", "relative_position", "patch_merging"))
    stage = Stage(dim=8, depth=2, heads=2, shifted=True, merging=True)
    apply_mtlora(stage, config)
    ranks = {task: len(golden[f"w/blocks.1.attn.proj.lora_tasks_A.{task}"]) for task in TASKS}
    set_dials(stage, ranks, SCALES)
    golden_weights_into(stage.eval(), golden, "")
    x = golden["in/x"].unflatten(1, (8, 8))
    y = x
    for block in stage.layers[0].blocks:
        y = SwinPyramid.block(block, y)
    out = stage.layers[1].downsample(y).flatten(1, 2).unflatten(0, (-1, len(x)))
    assert_close(out[0], golden["out/shared"])
    for t, task in enumerate(TASKS):
        assert_close(out[1 + t], golden[f"out/{task}"])


def test_task_pairs_stand_in_proj_fc1_and_fc2_of_the_last_block_only():
    stage = Stage(dim=8, depth=2, heads=2, shifted=True, merging=True)
    config = MTLoRAConfig(rank=4)
    own = {re.sub(r"^layers\.", "", site.name) for site in sites(stage, LAYERS) if task_specific(site, config)}
    assert own == {"0.blocks.1.attn.proj", "0.blocks.1.mlp.fc1", "0.blocks.1.mlp.fc2"}
