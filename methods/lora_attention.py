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
from torch.nn.functional import pad

from methods.base import MethodConfig, Range, Site, freeze, register, replace, require_at_least, require_probability
from methods.shape import Shape


@dataclass(frozen=True, kw_only=True)
class AttentionLoRAConfig(MethodConfig):
    """Dials: rank, scale s, dropout on the update's input, and whether the factors have biases."""

    title = "LoRA (q, v)"
    dial = "rank"
    dial_title = "r"
    tunable: ClassVar[dict[str, Range]] = {"scale": Range(low=0.5, high=16, log=True), "dropout": Range(low=0, high=0.2)}
    paper: ClassVar[str] = "arXiv 2106.09685"

    rank: int = 4
    scale: float = 4.0
    dropout: float = 0.05
    factor_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("rank", self.rank, 1)
        require_probability("dropout", self.dropout)

    def parameters(self, shape: Shape) -> int:
        biases = shape.over_blocks(lambda c: 2 * (c + self.rank)) if self.factor_bias else 0
        return shape.over_blocks(lambda c: 4 * self.rank * c) + biases


PARTS = {"attn.qkv": {"query": (0, 3), "value": (2, 3)}, "attn.q": {"query": (0, 1)}, "attn.kv": {"value": (1, 2)}}
"""Where query and value stand in a projection's output: index and number of equal parts, by how the layer's name ends."""


class QueryValueLoRA(nn.Module):
    """A frozen projection `(..., C) -> (..., n C)` plus updates of the parts of its output that `parts` names."""

    def __init__(
        self, linear: nn.Linear, parts: dict[str, tuple[int, int]], rank: int, scale: float, dropout: float, factor_bias: bool
    ) -> None:
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.rows = {part: self.rows_of(linear.out_features // number, index) for part, (index, number) in parts.items()}
        self.down = nn.ModuleDict({part: nn.Linear(linear.in_features, rank, bias=factor_bias) for part in parts})
        self.up = nn.ModuleDict({part: nn.Linear(rank, rows.stop - rows.start, bias=factor_bias) for part, rows in self.rows.items()})
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    @staticmethod
    def rows_of(channels: int, index: int) -> slice:
        """Return the output channels of a part."""
        return slice(index * channels, (index + 1) * channels)

    def forward(self, x: Tensor) -> Tensor:
        y, dropped = self.linear(x), self.dropout(x)
        for part, rows in self.rows.items():
            update = self.scale * self.up[part](self.down[part](dropped))
            y = y + pad(update, (rows.start, y.shape[-1] - rows.stop))
        return y

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the plain layer that computes the same in evaluation."""
        for part, rows in self.rows.items():
            down, up = self.down[part], self.up[part]
            self.linear.weight[rows] += self.scale * (up.weight @ down.weight)
            if up.bias is not None:
                if self.linear.bias is None:
                    self.linear.bias = nn.Parameter(self.linear.weight.new_zeros(self.linear.out_features), requires_grad=False)
                self.linear.bias[rows] += self.scale * (up.weight @ down.bias + up.bias)
        return self.linear


@register("lora_attention", AttentionLoRAConfig)
def apply(backbone: nn.Module, config: AttentionLoRAConfig) -> None:
    """Freeze the backbone and give every block's query and value projection a low-rank update."""
    freeze(backbone, config.also_train)

    def build(site: Site) -> nn.Module:
        parts = next(parts for ending, parts in PARTS.items() if site.name.endswith(ending))
        return QueryValueLoRA(site.module, parts, config.rank, config.scale, config.dropout, config.factor_bias)

    replace(backbone, ("qkv",), build)
