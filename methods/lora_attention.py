"""LoRA where its paper puts it: on the query and value projections (Hu et al., arXiv 2106.09685).

    q = W_q x + s * U_q D_q dropout(x),   v alike;   D: (r, in), U: (out, r), U = 0 at init

The LoRA row of the PASCAL-Context tables is one set a task with r = 4. Its count is met when the two factors are linear layers with biases
(`factor_bias`, 79,584 a task on Swin-T), which the paper's LoRA has not; on these layers without biases, or on the output projection as
well, it is not met.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.base import MethodConfig, Shape, freeze, register, replace, require_at_least


@dataclass(frozen=True, kw_only=True)
class AttentionLoRAConfig(MethodConfig):
    """Dials: rank, scale s, dropout on the update's input, and whether the factors have biases."""

    title = "LoRA (q, v)"
    dial = "rank"
    dial_title = "r"
    paper: ClassVar[str] = "arXiv 2106.09685"

    rank: int = 4
    scale: float = 4.0
    dropout: float = 0.05
    factor_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("rank", self.rank, 1)

    def parameters(self, shape: Shape) -> int:
        biases = shape.over_blocks(lambda c: 2 * (c + self.rank)) if self.factor_bias else 0
        return shape.over_blocks(lambda c: 4 * self.rank * c) + biases


class QueryValueLoRA(nn.Module):
    """A frozen joint projection `(..., C) -> (..., 3 C)` plus updates of its first and last third."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float, factor_bias: bool) -> None:
        super().__init__()
        channels = linear.out_features // 3
        self.linear = linear
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.down = nn.ModuleDict({part: nn.Linear(linear.in_features, rank, bias=factor_bias) for part in ("query", "value")})
        self.up = nn.ModuleDict({part: nn.Linear(rank, channels, bias=factor_bias) for part in ("query", "value")})
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        y, dropped = self.linear(x), self.dropout(x)
        query, value = (self.scale * self.up[part](self.down[part](dropped)) for part in ("query", "value"))
        return y + torch.cat((query, torch.zeros_like(query), value), -1)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the plain layer that computes the same in evaluation."""
        channels = self.linear.out_features // 3
        for part, rows in (("query", slice(0, channels)), ("value", slice(2 * channels, None))):
            down, up = self.down[part], self.up[part]
            self.linear.weight[rows] += self.scale * (up.weight @ down.weight)
            if up.bias is not None:
                self.linear.bias[rows] += self.scale * (up.weight @ down.bias + up.bias)
        return self.linear


@register("lora_attention", AttentionLoRAConfig)
def apply(backbone: nn.Module, config: AttentionLoRAConfig) -> None:
    """Freeze the backbone and give every block's query and value projection a low-rank update."""
    freeze(backbone, config.also_train)
    replace(backbone, ("qkv",), lambda site: QueryValueLoRA(site.module, config.rank, config.scale, config.dropout, config.factor_bias))
