"""MTLoRA: shared low-rank updates everywhere, per-task ones in the last block of each stage (arXiv 2403.20320, CVPR 2024).

With P = W x + b of the shared stream x, S = s * B A dropout(x), and D_t = s_t * B_t A_t u_t, where u_t is task t's own stream where there
is one, else dropout(x):

    mode        shared stream                       task stream t
    matrix      P + S                               P + D_t
    matrixv2    P + S                               P + S + D_t
    addition    P + LayerNorm(sum_t (P + D_t))      P + D_t          (no shared pair in these layers)
    lora_only   P + S in every layer, no task streams: shared LoRA with MTLoRA's trainable rest

Frozen layers see the shared stream only: one pass serves all tasks. qkv gets no task pairs (but see `task_qkv`); the shared stream alone
enters the next stage. As released, the patch merging, all norms, the relative-position tables and the patch embedding train as well
(`also_train`).

Beyond the paper, for ablations. `task_blocks="every"`: from a stage's first block on, x_t is task t's residual stream. Attention reads
the shared stream alone and enters every task's stream through proj, as in a last block; fc1's D_t reads norm2(x_t). `task_qkv`: each task
has its own q, k, v = P + D_t and attention over them; in "every", D_t reads norm1(x_t), so that attention sees the task's stream too.

Differences from the release, all where its switches misbehave: with `proj` left out, task streams keep the residual (there it is lost);
with `fc2` left out, task streams that exist are kept (there every task falls back to the shared feature); `task_blocks="every"` carries the
streams on (there INTERMEDIATE_SPECIALIZATION drops them but in the last block, and their pairs are dead); a shared rank of 0 leaves out the
shared pair alone (there the tasks' pairs too), and a task's rank of 0 its pair alone: its stream gets P; a trainable scale a task works
(there it crashes).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.base import (
    LAYERS,
    MethodConfig,
    Range,
    Site,
    freeze,
    register,
    replace,
    replace_module,
    require_at_least,
    require_choices,
    require_layers,
    require_probability,
    sites,
)
from methods.lora import SCALINGS, LoRALinear, count_pairs, pair_scale, per_stage
from methods.mtlora_layers import MTLoRALinear, StreamAttention
from methods.shape import Shape

MODES = ("matrix", "matrixv2", "addition", "lora_only")
TASK_BLOCKS = ("last", "every", "none")


@dataclass(frozen=True, kw_only=True)
class MTLoRAConfig(MethodConfig):
    """Dials of MTLoRA.

    Attributes:
        rank: Rank of every shared pair.
        task_rank: Rank of every task's pairs.
        stage_ranks, stage_task_ranks: One rank a stage in the place of `rank` and of `task_rank`; 0 for no pairs there.
        task_ranks: (task, rank) of the tasks that have a rank of their own, one in all stages or a tuple of one a stage; 0 for none. A
            dict will do.
        task_blocks: The blocks of each stage where the tasks have pairs: "last", "every" or "none".
        task_qkv: Whether they also have pairs in qkv, in these blocks; attention then runs once a task.
        scale, scaling: s and s_t are `scale` ("fixed") or `scale` / the pair's rank ("alpha_over_rank").
        trainable_scale: Whether every pair trains its scale, from that start.
        dropout: On what the shared stream gives to low-rank pairs.
        mode: As in the module's docstring.
        layers: Kinds of layers that get pairs.
    """

    title = "MTLoRA"
    dial = "rank"
    dial_title = "r"
    tunable: ClassVar[dict[str, Range]] = {"scale": Range(low=0.5, high=16, log=True), "dropout": Range(low=0, high=0.2)}
    paper: ClassVar[str] = "arXiv 2403.20320"

    rank: int = 16
    task_rank: int = 4
    stage_ranks: tuple[int, ...] = ()
    stage_task_ranks: tuple[int, ...] = ()
    task_ranks: tuple[tuple[str, int | tuple[int, ...]], ...] = ()
    task_blocks: str = "last"
    task_qkv: bool = False
    scale: float = 4.0
    scaling: str = "fixed"
    trainable_scale: bool = False
    dropout: float = 0.05
    mode: str = "matrix"
    layers: tuple[str, ...] = ("qkv", "proj", "fc1", "fc2")
    also_train: tuple[str, ...] = ("norm", "relative_position", "patch_embed", "patch_merging")

    def __post_init__(self) -> None:
        super().__post_init__()
        named = {task: tuple(rank) if isinstance(rank, list) else rank for task, rank in dict(self.task_ranks).items()}
        if len(named) < len(self.task_ranks):
            raise ValueError(f"task_ranks names a task twice: {self.task_ranks}")
        object.__setattr__(self, "task_ranks", tuple(sorted(named.items())))  # one order, one hash
        require_layers(self.layers)
        require_at_least("rank", self.rank, 1)
        require_at_least("task_rank", self.task_rank, 1)
        for field, ranks in (
            ("stage_ranks", self.stage_ranks),
            ("stage_task_ranks", self.stage_task_ranks),
            ("task_ranks", [rank for own in named.values() for rank in (own if isinstance(own, tuple) else (own,))]),
        ):
            require_at_least(field, min(ranks, default=0), 0)
        require_choices("task_blocks", [self.task_blocks], TASK_BLOCKS)
        require_choices("scaling", [self.scaling], SCALINGS)
        require_probability("dropout", self.dropout)
        require_choices("mode", [self.mode], MODES)
        if self.task_qkv and "qkv" not in self.layers:
            raise ValueError("task_qkv needs 'qkv' in layers")
        idle = [field for field in ("stage_task_ranks", "task_ranks", "task_qkv") if getattr(self, field)]
        idle += ["task_blocks='every'"] if self.task_blocks == "every" else []
        if idle and not self.task_kinds:
            raise ValueError(f"{', '.join(idle)} would have no effect: no task pairs with this mode, task_blocks and layers; leave it out")

    @property
    def task_kinds(self) -> tuple[str, ...]:
        """Kinds of layers with one pair a task, in the blocks of `task_blocks`; patch merging never is."""
        if self.mode == "lora_only" or self.task_blocks == "none":
            return ()
        return tuple(kind for kind in self.layers if kind in ("proj", "fc1", "fc2") or (kind == "qkv" and self.task_qkv))

    def parameters(self, shape: Shape) -> int:
        stages, named = len(shape.widths), dict(self.task_ranks)
        only_last, scaled = self.task_blocks == "last", self.trainable_scale
        ranks = self.stage_ranks or (self.rank,) * stages
        task_ranks = [rank if isinstance(rank, tuple) else (rank,) * stages for rank in named.values()]
        task_ranks += [self.stage_task_ranks or (self.task_rank,) * stages] * (shape.tasks - len(named))
        total = count_pairs(shape, self.layers, ranks, trainable_scale=scaled)
        for own in task_ranks:
            total += count_pairs(shape, self.task_kinds, own, trainable_scale=scaled, only_last=only_last)
        if self.mode == "addition":  # a LayerNorm in the place of the shared pair
            total -= count_pairs(shape, self.task_kinds, ranks, trainable_scale=scaled, only_last=only_last)
            normed = [layer for layer in shape.layers if layer.kind in self.task_kinds and (layer.last or not only_last)]
            total += sum(2 * layer.out for layer in normed)
        return total


def task_specific(site: Site, config: MTLoRAConfig) -> bool:
    """Whether a layer carries one pair a task: by default proj, fc1 and fc2 of each stage's last block, where they are adapted at all."""
    return site.kind in config.task_kinds and (site.last or config.task_blocks == "every")


def streams_into(found: Iterable[Site], config: MTLoRAConfig, tasks: int) -> dict[str, int]:
    """Return how many streams enter each layer, 1 or 1 + T, by its name; `found` in the order of the forward pass.

    Task streams begin at the first layer of a stage with task pairs, and last in the residual until the stage's end. A layer without task
    pairs hands on the shared stream alone.
    """
    entering, residual, inner = {}, 1, 1
    for site in found:
        if site.kind == "qkv" and site.block == 0:
            residual = 1
        entering[site.name] = {"qkv": residual, "fc1": residual, "proj": inner, "fc2": inner, "reduction": 1}[site.kind]
        inner = 1 + tasks if task_specific(site, config) else 1
        if site.kind in ("proj", "fc2"):
            residual = max(residual, inner)
    return entering


@register("mtlora", MTLoRAConfig)
def apply(backbone: nn.Module, config: MTLoRAConfig) -> None:
    """Freeze the backbone but for `also_train`; low-rank pairs as in the module's docstring."""
    freeze(backbone, config.also_train)
    tasks = backbone.tasks
    require_choices("task_ranks", dict(config.task_ranks), tasks)
    ranks = per_stage(backbone, "stage_ranks", config.stage_ranks, config.rank)
    stage_task_ranks = per_stage(backbone, "stage_task_ranks", config.stage_task_ranks, config.task_rank)
    named = {task: per_stage(backbone, "task_ranks", rank if isinstance(rank, tuple) else (), rank) for task, rank in config.task_ranks}
    kinds = [kind for kind in LAYERS if kind != "reduction" or kind in config.layers]
    entering = streams_into(sites(backbone, kinds), config, len(tasks))

    def build(site: Site) -> nn.Module:
        own, streams_in = task_specific(site, config), entering[site.name]
        rank = ranks[site.stage] if site.kind in config.layers else 0
        scale = pair_scale(config.scale, rank, config.scaling)
        if streams_in == 1 and not own:
            return LoRALinear(site.module, rank, scale, config.dropout, config.trainable_scale) if rank > 0 else site.module
        task_ranks = {task: named.get(task, stage_task_ranks)[site.stage] for task in tasks} if own else {}
        return MTLoRALinear(
            site.module,
            rank=rank,
            ranks=task_ranks,
            scale=scale,
            scales={task: pair_scale(config.scale, task_rank, config.scaling) for task, task_rank in task_ranks.items()},
            dropout=config.dropout,
            mode=config.mode,
            streams_in=streams_in,
            trainable_scale=config.trainable_scale,
        )

    replace(backbone, kinds, build)
    for site in sites(backbone, ["qkv"]):
        if isinstance(site.module, MTLoRALinear):
            name = site.name.rpartition(".")[0]
            attention = backbone.get_submodule(name)
            if not hasattr(attention, "relative_position_bias_table"):
                raise ValueError(f"task_qkv and task_blocks='every' need the attention of timm's Swin, not {type(attention).__name__}'s")
            replace_module(backbone, name, StreamAttention(attention))
