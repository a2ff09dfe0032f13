"""Numerics of the published baselines against explicit restatements of their equations."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from bench.model.backbone import DEMO_BACKBONE, SwinPyramid
from methods import METHODS
from methods.adapter import AdaptedLinear
from methods.base import replace
from methods.compacter import KroneckerLinear
from methods.lora import LoRALinear, lora_pair
from methods.lora_attention import PARTS, QueryValueLoRA
from methods.mtlora_layers import MTLoRALinear


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=seeded(i), dtype=parameter.dtype))
    return module.double().eval()


def test_kronecker_weight_is_the_sum_of_torchs_kronecker_products():
    layer = randomised(KroneckerLinear(12, 8, terms=4, rank=3))
    expected = sum(torch.kron(layer.A[i], layer.s[i] @ layer.t[i]) for i in range(4))
    assert layer.weight().shape == (8, 12)
    torch.testing.assert_close(layer.weight(), expected)
    x = torch.randn(5, 12, generator=seeded(9), dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ expected.T + layer.bias)


def test_the_adapter_is_its_equation_behind_the_layer():
    layer = randomised(AdaptedLinear(nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(2, 8)))
    x = torch.randn(5, 6, generator=seeded(9), dtype=torch.float64)
    h = x @ layer.linear.weight.T + layer.linear.bias
    z = h @ layer.down.weight.T + layer.down.bias
    gelu = z * 0.5 * (1 + torch.erf(z / 2**0.5))
    torch.testing.assert_close(layer(x), h + gelu @ layer.up.weight.T + layer.up.bias)


@pytest.mark.parametrize("method", ["lora", "lora_attention", "mtlora"])
def test_dropout_falls_on_the_input_of_the_updates_alone_and_ends_with_training(method: str):
    linear, share, x = nn.Linear(40, 40), 0.5, 1 + torch.rand(50, 40, generator=seeded(9))
    if method == "lora_attention":
        layer = QueryValueLoRA(linear, {"value": (0, 1)}, rank=40, scale=1.0, dropout=share, factor_bias=False)
    elif method == "lora":
        layer = LoRALinear(linear, 40, 1.0, share)
    else:
        layer = MTLoRALinear(linear, 40, {"a": 40, "b": 40}, 1.0, {"a": 1.0, "b": 1.0}, share, "matrix", 1)
    for name, parameter in layer.named_parameters():
        if not name.startswith("linear."):  # factors that pass their input on: the update is what dropout leaves of it
            nn.init.eye_(parameter)
    updates = (layer.train()(x) - linear(x).repeat(3 if method == "mtlora" else 1, 1)).unflatten(0, (-1, 50))
    kept = updates[0].abs() > 1e-3
    assert 0.4 < kept.float().mean() < 0.6
    for update in updates:  # the tasks' pairs see what the shared one sees
        torch.testing.assert_close(update, torch.where(kept, x / (1 - share), 0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.eval()(x)[:50], linear(x) + x)


def test_low_rank_pairs_start_uniform_in_the_root_of_the_inputs_and_at_zero():
    torch.manual_seed(0)
    lora_A, lora_B = lora_pair(nn.Linear(400, 10), 20)
    assert 0.98 / 20 < lora_A.abs().max() <= 1 / 20
    assert lora_A.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.05)
    assert not lora_B.any()


@pytest.mark.parametrize("name", ["vpt", "vpt_shallow"])
def test_prompts_start_uniform_in_the_bound_of_the_paper(name: str):
    torch.manual_seed(0)
    backbone = SwinPyramid(timm.create_model(DEMO_BACKBONE, num_classes=0), ("semseg",))
    METHODS[name].apply(backbone, METHODS[name].config(prompts=100))
    prompts = [parameter for parameter_name, parameter in backbone.named_parameters() if parameter_name.endswith(".prompts")]
    assert {p.shape[1] for p in prompts} == ({24, 48, 96, 192} if name == "vpt" else {24})
    for values in prompts:
        bound = (6 / (3 * 4 * 4 + values.shape[1])) ** 0.5  # patches of 4 x 4 pixels
        assert 0.98 * bound < values.abs().max() <= bound


@pytest.mark.parametrize("factor_bias", [False, True])
def test_low_rank_updates_reach_query_and_value_and_leave_the_key(factor_bias: bool):
    layer = randomised(QueryValueLoRA(nn.Linear(6, 18), PARTS["attn.qkv"], rank=2, scale=4.0, dropout=0.1, factor_bias=factor_bias))
    x = torch.randn(5, 6, generator=seeded(9), dtype=torch.float64)
    q, k, v = layer.linear(x).chunk(3, -1)
    update = {part: 4.0 * layer.up[part](layer.down[part](x)) for part in ("query", "value")}
    expected = torch.cat((q + update["query"], k, v + update["value"]), -1)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.merged()(x), expected)


def test_bitfit_trains_every_bias_and_the_relative_position_tables_and_nothing_else():
    backbone = SwinPyramid(timm.create_model(DEMO_BACKBONE, num_classes=0), ("semseg",))
    METHODS["bitfit"].apply(backbone, METHODS["bitfit"].config())
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == ((parameter.ndim == 1 and "bias" in name) or "relative_position_bias_table" in name), name
    assert backbone.swin.patch_embed.norm.bias.requires_grad
    assert not backbone.swin.patch_embed.norm.weight.requires_grad


def windows_of(x: Tensor, size: int) -> list[tuple[slice, slice]]:
    return [(slice(i, i + size), slice(j, j + size)) for i in range(0, x.shape[0], size) for j in range(0, x.shape[1], size)]


def shallow_vpt_block(block: nn.Module, x: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """One unshifted block on one image (h, w, C) with prompts (p, C), window by window, all tokens attending to all."""
    a, (p, c), size = block.attn.attention, prompts.shape, block.window_size[0]
    bias = torch.zeros(a.num_heads, p + size**2, p + size**2, dtype=x.dtype)
    bias[:, p:, p:] = a._get_rel_pos_bias()[0]
    attended, prompt_outputs = torch.zeros_like(x), []
    for rows, columns in windows_of(x, size):
        tokens = block.norm1(torch.cat((prompts, x[rows, columns].reshape(-1, c))))
        q, k, v = (part.reshape(len(tokens), a.num_heads, -1).transpose(0, 1) for part in a.qkv(tokens).chunk(3, -1))
        weights = (q @ k.mT / q.shape[-1] ** 0.5 + bias).softmax(-1)
        out = a.proj((weights @ v).transpose(0, 1).reshape(len(tokens), c))
        prompt_outputs.append(out[:p])
        attended[rows, columns] = out[p:].reshape(size, size, c)
    x, prompts = x + attended, prompts + torch.stack(prompt_outputs).mean(0)
    return x + block.mlp(block.norm2(x)), prompts + block.mlp(block.norm2(prompts))


@torch.no_grad()
def test_shallow_prompts_are_carried_through_blocks_and_patch_merging():
    torch.manual_seed(0)
    swin = timm.create_model(DEMO_BACKBONE, img_size=16, window_size=2, num_classes=0, depths=(1, 1, 1, 1))
    backbone = SwinPyramid(swin, ("semseg",)).double().eval()
    METHODS["vpt_shallow"].apply(backbone, METHODS["vpt_shallow"].config(prompts=3))
    image = torch.randn(2, 3, 16, 16, generator=seeded(1), dtype=torch.float64)
    pyramid = backbone(image)["semseg"]
    for b in range(2):
        embed = swin.patch_embed
        x, prompts = embed.linear(image[b : b + 1])[0], embed.prompts
        for i, stage in enumerate(swin.layers):
            assert not any(stage.blocks[0].shift_size)
            x, prompts = shallow_vpt_block(stage.blocks[0], x, prompts)
            if i < 3:
                merging = swin.layers[i + 1].downsample
                x = merging(x[None])[0]
                prompts = merging.reduction(merging.norm(torch.cat([prompts] * 4, -1)))
            torch.testing.assert_close(pyramid[i][b], x.permute(2, 0, 1))


@torch.no_grad()
def test_shallow_prompts_do_not_outlive_a_forward_pass():
    backbone = SwinPyramid(timm.create_model(DEMO_BACKBONE, num_classes=0), ("semseg",)).eval()
    METHODS["vpt_shallow"].apply(backbone, METHODS["vpt_shallow"].config(prompts=3))
    image = torch.randn(2, 3, 64, 64, generator=seeded(1))
    first = backbone(image)["semseg"]
    assert backbone.swin.patch_embed.carrier.tokens is None
    again = copy.deepcopy(backbone)(image[1:])["semseg"]
    for x, y in zip(first, again, strict=True):
        torch.testing.assert_close(x[1:], y)


def test_compacter_refuses_terms_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match=r"terms = 5 does not divide"):
        KroneckerLinear(12, 10, terms=5, rank=1)


def test_vpt_shallow_refuses_a_backbone_without_patch_embedding():
    with pytest.raises(ValueError, match="patch_embed"):
        METHODS["vpt_shallow"].apply(nn.Sequential(nn.Linear(2, 2)), METHODS["vpt_shallow"].config())
    with pytest.raises(ValueError, match="has no layer"):
        replace(nn.Sequential(nn.Linear(2, 2)), ("qkv",), lambda site: site.module)
