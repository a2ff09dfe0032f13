"""MTLoRA: shared low-rank updates everywhere, per-task ones in the last block of each stage (arXiv 2403.20320, CVPR 2024).

With P = W x + b of the shared stream x, S = s * B A dropout(x), and D_t = s_t * B_t A_t u_t, where u_t is task t's own stream where there
is one, else dropout(x):

    mode        shared stream                       task stream t
    matrix      P + S                               P + D_t
    matrixv2    P + S                               P + S + D_t
    addition    P + LayerNorm(sum_t (P + D_t))      P + D_t          (no shared pair in these layers)
    lora_only   P + S in every layer, no task streams: shared LoRA with MTLoRA's trainable rest

Frozen layers see the shared stream only: one pass serves all tasks. qkv never gets task pairs; the shared stream alone enters the next
stage. As released, the patch merging, all norms, the relative-position tables and the patch embedding train as well (`also_train`).

Differences from the release, all where its switches misbehave: with `proj` left out, task streams keep the residual (there it is lost);
with `fc2` left out, task streams that exist are kept (there every task falls back to the shared feature).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from methods.base import LAYERS, MethodConfig, Site, freeze, register, replace, require_at_least, require_choices, require_layers
from methods.lora import LoRALinear, lora_pair

MODES = ("matrix", "matrixv2", "addition", "lora_only")


@dataclass(frozen=True, kw_only=True)
class MTLoRAConfig(MethodConfig):
    """Dials of MTLoRA: shared rank, the tasks' rank, one scale for all, dropout on the shared stream, layers, and stream mode."""

    title = "MTLoRA"
    dial = "rank"
    dial_title = "r"
    paper: ClassVar[str] = "arXiv 2403.20320"

    rank: int = 16
    task_rank: int = 4
    scale: float = 4.0
    dropout: float = 0.05
    mode: str = "matrix"
    layers: tuple[str, ...] = ("qkv", "proj", "fc1", "fc2")
    also_train: tuple[str, ...] = ("norm", "relative_position", "patch_embed", "patch_merging")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_layers(self.layers)
        require_at_least("rank", self.rank, 1)
        require_at_least("task_rank", self.task_rank, 1)
        require_choices("mode", [self.mode], MODES)


class MTLoRALinear(nn.Module):
    """A frozen linear layer with a shared low-rank pair and one pair a task.

    Maps `(S_in * B, ..., in)` to `(S_out * B, ..., out)`, stream-major; `S_in = streams_in` is 1 or 1 + T, and S_out is 1 + T, or 1 where
    `ranks` is empty. `rank = 0` leaves the shared pair out. `ranks` and `scales` map a task to its rank and scale.
    """

    def __init__(
        self, linear: nn.Linear, rank: int, ranks: Mapping[str, int], scale: float, scales: Mapping[str, float],
        dropout: float, mode: str, streams_in: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.linear, self.scale, self.mode, self.streams_in = linear, scale, mode, streams_in
        self.tasks = tuple(ranks)  # in the order of the streams; a ParameterDict sorts its keys
        self.dropout = nn.Dropout(dropout)
        shared = rank > 0 and (mode != "addition" or not ranks)
        self.lora_A, self.lora_B = lora_pair(linear, rank) if shared else (None, None)
        pairs = {task: lora_pair(linear, task_rank) for task, task_rank in ranks.items()}
        self.task_A = nn.ParameterDict({task: a for task, (a, _) in pairs.items()})
        self.task_B = nn.ParameterDict({task: b for task, (_, b) in pairs.items()})
        self.register_buffer("task_scale", linear.weight.new_tensor([scales[task] for task in ranks]).view(-1, 1, 1), persistent=False)
        self.norm = nn.LayerNorm(linear.out_features) if mode == "addition" and ranks else None

    def forward(self, x: Tensor) -> Tensor:
        streams = x.reshape(self.streams_in, -1, x.shape[-1])
        shared, own = streams[0], streams[1:]
        base, dropped = self.linear(shared), self.dropout(shared)
        update = 0 if self.lora_A is None else self.scale * (dropped @ self.lora_A.T @ self.lora_B.T)
        outputs = [(base + update)[None]]
        if self.tasks:
            a, b = self.stacked()
            delta = torch.bmm(torch.bmm(own if len(own) else dropped.expand(len(a), -1, -1), a), b)
            delta = self.task_scale.to(delta.dtype) * delta  # the buffer's fp32 would lift an autocast stream to fp32
            tasks = base + delta + (update if self.mode == "matrixv2" else 0)
            if self.norm is not None:
                outputs = [(base + self.norm(tasks.sum(0)))[None]]
            outputs.append(tasks)
        return torch.cat(outputs).reshape(-1, *x.shape[1:-1], base.shape[-1])

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Stack the tasks' pairs, zero-padded to the largest rank R: A^T (T, in, R) and B^T (T, R, out)."""
        a = pad_sequence([self.task_A[task] for task in self.tasks], batch_first=True)
        b = pad_sequence([self.task_B[task].T for task in self.tasks], batch_first=True)
        return a.mT, b


def task_specific(site: Site, config: MTLoRAConfig) -> bool:
    """Whether a layer carries one pair a task: proj, fc1 and fc2 of the last block of each stage, where they are adapted at all."""
    return config.mode != "lora_only" and site.last and site.kind in ("proj", "fc1", "fc2") and site.kind in config.layers


@register("mtlora", MTLoRAConfig)
def apply(backbone: nn.Module, config: MTLoRAConfig) -> None:
    """Freeze the backbone but for `also_train`; low-rank pairs as in the module's docstring."""
    freeze(backbone, config.also_train)
    tasks = backbone.tasks
    streams = {}  # of each stage's last block, as the forward pass reaches its layers

    def build(site: Site) -> nn.Module:
        streams_in = streams.get(site.stage, 1) if site.last else 1
        own = task_specific(site, config)
        if site.kind not in config.layers and (streams_in == 1 or site.kind == "reduction"):
            return site.module
        if site.kind in config.layers and streams_in == 1 and not own:
            return LoRALinear(site.module, config.rank, config.scale, config.dropout)
        if site.last:
            streams[site.stage] = 1 + len(tasks) if own else 1
        return MTLoRALinear(
            site.module,
            rank=config.rank if site.kind in config.layers else 0,
            ranks=dict.fromkeys(tasks if own else (), config.task_rank),
            scale=config.scale,
            scales=dict.fromkeys(tasks, config.scale),
            dropout=config.dropout,
            mode=config.mode,
            streams_in=streams_in,
        )

    replace(backbone, [kind for kind in LAYERS if kind != "reduction" or kind in config.layers], build)
