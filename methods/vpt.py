"""VPT-deep: learned prompt tokens in every block (Jia et al., arXiv 2203.12119).

    [_, y] = Attention([LN1(P_l), LN1(x)]),   P_l: (p, C) for block l, U(+-sqrt(6 / (3 * patch^2 + C)))

On Swin each window's attention sees the block's prompts as p extra tokens; the relative-position bias and the shift mask of those pairs are
zero, and in the deep variant the prompts' own outputs are dropped, because the next block brings its own. Hence only the prompts' keys and
values matter, and only these are computed. On a plain ViT the whole image is the one window, without bias and mask. On one task a trial
this is the VPT-deep row of the published tables.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, pad, scaled_dot_product_attention

from methods.base import MethodConfig, freeze, register, replace_module, require_at_least
from methods.shape import Shape


@dataclass(frozen=True, kw_only=True)
class VPTConfig(MethodConfig):
    """Dial of VPT-deep: the number of prompts a block."""

    title = "VPT-deep"
    dial = "prompts"
    dial_title = "p"
    paper: ClassVar[str] = "arXiv 2203.12119"

    prompts: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("prompts", self.prompts, 1)

    def parameters(self, shape: Shape) -> int:
        return shape.over_blocks(lambda c: self.prompts * c)


class PromptedAttention(nn.Module):
    """Attention of timm's Swin or ViT with prompts: `(windows * B, N, C) -> (windows * B, N, C)`."""

    def __init__(self, attention: nn.Module, norm: nn.LayerNorm, prompts: int, patch_area: int) -> None:
        super().__init__()
        self.attention = attention
        self.norm = (norm,)  # in a tuple: the block owns it
        channels = norm.weight.numel()
        bound = (6 / (3 * patch_area + channels)) ** 0.5
        self.prompts = nn.Parameter(norm.weight.new_empty(prompts, channels).uniform_(-bound, bound))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend; `mask` is additive, (windows, N, N), or None."""
        a, (norm,), (windows, n, c) = self.attention, self.norm, x.shape
        q, k, v = a.qkv(x).reshape(windows, n, 3, a.num_heads, -1).permute(2, 0, 3, 1, 4)
        prompts = layer_norm(self.prompts, (c,), norm.weight, norm.bias, norm.eps)
        _, pk, pv = a.qkv(prompts).reshape(1, -1, 3, a.num_heads, q.shape[-1]).permute(2, 0, 3, 1, 4).expand(-1, windows, -1, -1, -1)
        bias = None
        if hasattr(a, "relative_position_bias_table"):
            bias = a._get_rel_pos_bias()
            if mask is not None:
                bias = (bias + mask[:, None]).repeat(windows // mask.shape[0], 1, 1, 1)
            bias = pad(bias, (len(prompts), 0)).to(q.dtype)  # a prompt is next to every patch: no bias, no mask
        y = scaled_dot_product_attention(q, torch.cat([pk, k], 2), torch.cat([pv, v], 2), attn_mask=bias, scale=a.scale)
        return a.proj_drop(a.proj(y.transpose(1, 2).reshape(windows, n, -1)))


def require_plain_attention(attention: nn.Module) -> None:
    """Raise ValueError where prompts cannot simply be further keys and values."""
    swin, vit = hasattr(attention, "relative_position_bias_table"), isinstance(getattr(attention, "q_norm", None), nn.Identity)
    if not (swin or (vit and getattr(attention, "gate", None) is None)):
        raise ValueError(
            f"VPT adds tokens to the attention of timm's Swin, or of its plain ViT without query norms and gates; "
            f"{type(attention).__module__}.{type(attention).__name__} is neither"
        )


@register("vpt", VPTConfig)
def apply(backbone: nn.Module, config: VPTConfig) -> None:
    """Freeze the backbone and give every block's attention its own prompts."""
    freeze(backbone, config.also_train)
    blocks = [(name, module) for name, module in backbone.named_modules() if hasattr(module, "attn") and hasattr(module, "norm1")]
    if not blocks:
        raise ValueError(f"{type(backbone).__name__} has no blocks with `attn` and `norm1`; VPT-deep needs a Swin or a plain ViT from timm")
    for _, block in blocks:
        require_plain_attention(block.attn)
    patch = next(module for name, module in backbone.named_modules() if name.endswith("patch_embed")).patch_size
    for name, block in blocks:
        prompted = PromptedAttention(block.attn, block.norm1, config.prompts, patch[0] * patch[1])
        replace_module(backbone, f"{name}.attn", prompted)
