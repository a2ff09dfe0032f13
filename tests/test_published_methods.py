"""Numerics of the published baselines against explicit restatements of their equations."""

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from bench.model.backbone import DEMO_BACKBONE, SwinPyramid
from methods import METHODS
from methods.base import replace
from methods.compacter import KroneckerLinear
from methods.lora_attention import PARTS, QueryValueLoRA


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
