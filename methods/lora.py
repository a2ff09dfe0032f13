"""LoRA: low-rank updates of frozen linear layers, shared by all tasks (Hu et al., arXiv 2106.09685).

    y = W x + b + s * B A dropout(x),   A: (r, in), B: (out, r), B = 0 at init

`scale` is s itself, as in the MTLoRA release, not alpha / r (see `scaling`): so that LoRA and MTLoRA differ in what they share and in
nothing else. On one task a trial this is the per-task LoRA of the published tables; on several tasks one update serves all. Where the paper
adapts attention only, the default here is every linear layer of a block, again as MTLoRA does.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.base import (
    MethodConfig,
    Range,
    Site,
    freeze,
    register,
    replace,
    require_at_least,
    require_choices,
    require_layers,
    require_probability,
    sites,
)
from methods.shape import Shape

SCALINGS = ("fixed", "alpha_over_rank")


@dataclass(frozen=True, kw_only=True)
class LoRAConfig(MethodConfig):
    """Dials of LoRA.

    Attributes:
        rank: Rank of every update.
        stage_ranks: One rank a stage in the place of `rank`; 0 leaves a stage's layers as they are.
        scale, scaling: s is `scale` ("fixed") or `scale` / rank ("alpha_over_rank").
        trainable_scale: Whether every layer trains its s, from that start.
        dropout: On the update's input.
        layers: Kinds of layers that get an update.
    """

    title = "LoRA"
    dial = "rank"
    dial_title = "r"
    tunable: ClassVar[dict[str, Range]] = {"scale": Range(low=0.5, high=16, log=True), "dropout": Range(low=0, high=0.2)}
    paper: ClassVar[str] = "arXiv 2106.09685"

    rank: int = 16
    stage_ranks: tuple[int, ...] = ()
    scale: float = 4.0
    scaling: str = "fixed"
    trainable_scale: bool = False
    dropout: float = 0.05
    layers: tuple[str, ...] = ("qkv", "proj", "fc1", "fc2")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_layers(self.layers)
        require_at_least("rank", self.rank, 1)
        require_at_least("stage_ranks", min(self.stage_ranks, default=0), 0)
        require_choices("scaling", [self.scaling], SCALINGS)
        require_probability("dropout", self.dropout)

    def parameters(self, shape: Shape) -> int:
        ranks = self.stage_ranks or (self.rank,) * len(shape.widths)
        return count_pairs(shape, self.layers, ranks, trainable_scale=self.trainable_scale)


class LoRALinear(nn.Module):
    """A frozen linear layer plus a low-rank update: `(..., in) -> (..., out)`, whatever the number of streams in dim 0."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float, trainable_scale: bool = False) -> None:
        super().__init__()
        self.linear = linear
        self.scale = nn.Parameter(linear.weight.new_tensor(scale)) if trainable_scale else scale
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


def pair_scale(scale: float, rank: int, scaling: str) -> float:
    """Return s of a pair of this rank; without a pair (rank 0) it has no meaning."""
    return scale / rank if scaling == "alpha_over_rank" and rank > 0 else scale


def per_stage(backbone: nn.Module, field: str, values: tuple[int, ...], default: int) -> tuple[int, ...]:
    """Return one value a stage: those of the field, or the default everywhere when the field is empty.

    Raises:
        ValueError: When there are values for another number of stages than the backbone has.
    """
    stages = 1 + max(site.stage for site in sites(backbone, ["qkv"]))
    if values and len(values) != stages:
        raise ValueError(f"{field}: got {len(values)} value(s) {values} for {stages} stages; give one a stage, or none")
    return values or (default,) * stages


def count_pairs(shape: Shape, kinds: Iterable[str], ranks: Sequence[int], *, trainable_scale: bool, only_last: bool = False) -> int:
    """Count the parameters of one pair a layer in the given kinds, with one rank a stage; `only_last` in the last block of each stage."""
    wanted = frozenset(kinds)
    layers = [layer for layer in shape.layers if layer.kind in wanted and (layer.last or not only_last)]
    return sum(ranks[layer.stage] * (layer.into + layer.out) + (trainable_scale and ranks[layer.stage] > 0) for layer in layers)


@register("lora", LoRAConfig)
def apply(backbone: nn.Module, config: LoRAConfig) -> None:
    """Freeze the backbone and give every layer of `config.layers` a low-rank update."""
    freeze(backbone, config.also_train)
    ranks = per_stage(backbone, "stage_ranks", config.stage_ranks, config.rank)

    def build(site: Site) -> nn.Module:
        rank = ranks[site.stage]
        scale = pair_scale(config.scale, rank, config.scaling)
        return LoRALinear(site.module, rank, scale, config.dropout, config.trainable_scale) if rank > 0 else site.module

    replace(backbone, config.layers, build)
