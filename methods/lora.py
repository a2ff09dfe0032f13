"""LoRA: low-rank updates of frozen linear layers, shared by all tasks (Hu et al., arXiv 2106.09685).

    y = W x + b + s * B A dropout(x),   A: (r, in), B: (out, r), B = 0 at init

`scale` is s itself, as in the MTLoRA release, not alpha / r: so that LoRA and MTLoRA differ in what they share and in nothing else. On one
task a trial this is the per-task LoRA of the published tables; on several tasks one update serves all. Where the paper adapts attention
only, the default here is every linear layer of a block, again as MTLoRA does.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.base import MethodConfig, freeze, register, replace, require_at_least


@dataclass(frozen=True, kw_only=True)
class LoRAConfig(MethodConfig):
    """Dials of LoRA: rank, scale, dropout on the update's input, and the kinds of layers that get an update."""

    title = "LoRA"
    dial = "rank"
    dial_title = "r"
    paper: ClassVar[str] = "arXiv 2106.09685"

    rank: int = 16
    scale: float = 4.0
    dropout: float = 0.05
    layers: tuple[str, ...] = ("qkv", "proj", "fc1", "fc2")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("rank", self.rank, 1)


class LoRALinear(nn.Module):
    """A frozen linear layer plus a low-rank update: `(..., in) -> (..., out)`, whatever the number of streams in dim 0."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.lora_A, self.lora_B = lora_pair(linear, rank)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale * (self.dropout(x) @ self.lora_A.T @ self.lora_B.T)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the plain layer that computes the same in evaluation."""
        self.linear.weight += self.scale * (self.lora_B @ self.lora_A)
        return self.linear


def lora_pair(linear: nn.Linear, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return A (rank, in), uniform in +-1/sqrt(in), and B (out, rank), zero."""
    lora_A = linear.weight.new_empty(rank, linear.in_features)
    nn.init.kaiming_uniform_(lora_A, a=math.sqrt(5))
    return nn.Parameter(lora_A), nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))


@register("lora", LoRAConfig)
def apply(backbone: nn.Module, config: LoRAConfig) -> None:
    """Freeze the backbone and give every layer of `config.layers` a low-rank update."""
    freeze(backbone, config.also_train)
    replace(backbone, config.layers, lambda site: LoRALinear(site.module, config.rank, config.scale, config.dropout))
