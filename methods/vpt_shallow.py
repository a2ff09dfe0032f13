"""VPT-shallow: learned prompt tokens at the input, carried through the network (Jia et al., arXiv 2203.12119).

    [P_l, X_l] = Block_l([P_(l-1), X_(l-1)]),   P_0: (p, C), U(+-sqrt(6 / (3 * patch^2 + C)))

On Swin, as in the authors' code: every window of a block sees the prompts as p extra tokens, without relative-position bias and mask; the
prompts' own attention outputs are averaged over an image's windows; MLP and norms treat prompts as tokens; patch merging gets each prompt
four times. Behind the last block the prompts are dropped. Stochastic depth is drawn for the prompts apart from the patches.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from methods.base import MethodConfig, freeze, register, replace_module, require_at_least
from methods.shape import Shape


@dataclass(frozen=True, kw_only=True)
class ShallowVPTConfig(MethodConfig):
    """Dial of VPT-shallow: the number of prompts."""

    title = "VPT-shallow"
    dial = "prompts"
    dial_title = "p"
    paper: ClassVar[str] = "arXiv 2203.12119"

    prompts: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("prompts", self.prompts, 1)

    def parameters(self, shape: Shape) -> int:
        return self.prompts * shape.widths[0]


class Carrier:
    """Holds the prompts (B, p, C) of one forward pass between blocks; empty outside of it."""

    tokens: Tensor | None = None


class PromptedPatchEmbed(nn.Module):
    """The patch embedding, which also starts the prompts: `(B, 3, H, W) -> (B, h, w, C)`."""

    def __init__(self, linear: nn.Module, prompts: int, channels: int, patch_area: int, carrier: Carrier) -> None:
        super().__init__()
        bound = (6 / (3 * patch_area + channels)) ** 0.5
        self.linear = linear
        self.prompts = nn.Parameter(next(linear.parameters()).new_empty(prompts, channels).uniform_(-bound, bound))
        self.carrier = carrier

    def forward(self, image: Tensor) -> Tensor:
        self.carrier.tokens = self.prompts.expand(len(image), -1, -1)
        return self.linear(image)


class CarryingAttention(nn.Module):
    """Window attention that the carried prompts take part in: `(B * windows, N, C) -> (B * windows, N, C)`."""

    def __init__(self, attention: nn.Module, block: nn.Module, downsample: nn.Module | None, last: bool, carrier: Carrier) -> None:
        super().__init__()
        self.attention = attention
        self.block = (block, downsample)  # in a tuple: the backbone owns them
        self.last = last
        self.carrier = carrier

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend and carry the prompts through the rest of the block; `mask` is additive, (windows, N, N), or None."""
        a, (block, downsample), tokens = self.attention, self.block, self.carrier.tokens
        if downsample is not None:
            tokens = downsample.reduction(downsample.norm(tokens.repeat(1, 1, 4)))
        (windows, n, c), (images, p, _) = x.shape, tokens.shape
        normed = block.norm1(tokens).repeat_interleave(windows // images, 0)
        q, k, v = a.qkv(torch.cat([normed, x], 1)).reshape(windows, p + n, 3, a.num_heads, -1).permute(2, 0, 3, 1, 4)
        bias = a._get_rel_pos_bias()
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(windows // mask.shape[0], 1, 1, 1)
        bias = pad(bias, (p, 0, p, 0))  # a prompt is next to every patch: no bias, no mask
        y = scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=a.scale)
        y = a.proj_drop(a.proj(y.transpose(1, 2).reshape(windows, p + n, -1)))
        if self.last:
            self.carrier.tokens = None
        else:
            tokens = tokens + block.drop_path1(y[:, :p].reshape(images, -1, p, c).mean(1))
            self.carrier.tokens = tokens + block.drop_path2(block.mlp(block.norm2(tokens)))
        return y[:, p:]


@register("vpt_shallow", ShallowVPTConfig)
def apply(backbone: nn.Module, config: ShallowVPTConfig) -> None:
    """Freeze the backbone, start prompts at its patch embedding and let every block carry them."""
    freeze(backbone, config.also_train)
    modules = dict(backbone.named_modules())
    blocks = {name: module for name, module in modules.items() if hasattr(module, "attn") and hasattr(module, "norm1")}
    embed = next((name for name in modules if name.endswith("patch_embed")), None)
    if not blocks or embed is None:
        raise ValueError(f"{type(backbone).__name__} has no `patch_embed` or no blocks with `attn` and `norm1`; VPT needs a Swin from timm")
    if not all(hasattr(block.attn, "relative_position_bias_table") for block in blocks.values()):
        raise ValueError("VPT-shallow carries its prompts through the windows of timm's Swin; this backbone's attention is another")
    carrier, patch, names = Carrier(), modules[embed].patch_size, list(blocks)
    first = blocks[names[0]]
    replace_module(backbone, embed, PromptedPatchEmbed(modules[embed], config.prompts, first.attn.dim, patch[0] * patch[1], carrier))
    for name in names:
        stage, _, number = name.rpartition(".blocks.")
        downsample = modules.get(f"{stage}.downsample") if number == "0" else None
        downsample = downsample if hasattr(downsample, "reduction") else None
        carrying = CarryingAttention(blocks[name].attn, blocks[name], downsample, name == names[-1], carrier)
        replace_module(backbone, f"{name}.attn", carrying)
