"""HyperFormer: adapters whose weights a hypernetwork generates for each task (Karimi Mahabadi et al., arXiv 2106.04489, ACL 2021).

    A(h) = h + gamma * LN(U gelu(D h + d) + u) + beta,   h the branch's output before the residual is added, LN without weights
    I = LN(W2 relu(W1 [z_t; l_b; p_j] + b1) + b2),   (D, d, U, u) = H I,   (gamma, beta) = N I,   N = 0 at init

z_t, l_b and p_j are learned embeddings, k entries each, of task t, block b and position j (after attention, after the MLP); I has k entries
as well; D: (C / rho, C), U: (C, C / rho). All tasks share the projector (W1, W2), H and N, which are linear maps with biases; only z_t is a
task's own. The adapters differ by task: from the first one on there is one stream a task.

H depends on the width C, so that one hypernetwork cannot serve a whole Swin. `share = "block"` gives every block its own, as the paper's
HyperFormer has one a layer; `share = "stage"` shares it over the blocks of a stage, as HyperFormer++ shares it over all layers. The default
is "block", because its 2 * sum C^2 * k / rho with k / rho = 16 is what the published 72.77 M of the PASCAL-Context tables suggest (an
inference from arithmetic; the exact configuration is unknown): 71.05 M at four tasks on Swin-T.

From the authors' code: embeddings and I of 64 entries, a projector with 128 hidden units, the LayerNorm of I, normal(0, 0.01) weights and
zero biases. Different here: rho = 4, the tables' adapter, instead of 32; N starts at zero, so that training starts exactly from the
pretrained network; the backbone's norms, which the authors train as well, stay frozen (`also_train`).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from methods.adapter import bottleneck_width
from methods.base import MethodConfig, Site, freeze, register, replace, require_at_least, require_choices, sites
from methods.shape import Shape

POSITIONS = ("proj", "fc2")


@dataclass(frozen=True, kw_only=True)
class HyperFormerConfig(MethodConfig):
    """Dials: `reduction` rho, entries k of an `embedding`, `hidden` units of the projector, and who has one hypernetwork together."""

    title = "HyperFormer"
    dial = "reduction"
    dial_title = "ρ"
    paper: ClassVar[str] = "arXiv 2106.04489"
    single_path: ClassVar[bool] = False

    reduction: int = 4
    embedding: int = 64
    hidden: int = 128
    share: str = "block"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("reduction", "embedding", "hidden"):
            require_at_least(field, getattr(self, field), 1)
        require_choices("share", [self.share], ("block", "stage"))

    def parameters(self, shape: Shape) -> int:
        k, m = self.embedding, self.hidden

        def generators(c: int) -> int:  # D and U, d, u with gamma and beta
            width = bottleneck_width(c, self.reduction)
            return (k + 1) * (2 * c * width + width + 3 * c)

        projector = (3 * k + 1) * m + (m + 1) * k + 2 * k
        hypernetworks = shape.over_blocks(generators) if self.share == "block" else sum(map(generators, shape.widths))
        return k * (shape.tasks + sum(shape.depths) + len(POSITIONS)) + projector + hypernetworks


class HyperNetworks(nn.Module):
    """The embeddings of T tasks, of the blocks and of the positions, the projector, and one hypernetwork for each entry of `shapes`.

    Args:
        tasks: In the order of the streams.
        blocks: Number of blocks.
        shapes: Channels C of the adapters and C / rho of their bottleneck, by the hypernetwork's name.
        embedding: Entries k.
        hidden: Hidden units of the projector.
    """

    def __init__(self, tasks: tuple[str, ...], blocks: int, shapes: dict[str, tuple[int, int]], embedding: int, hidden: int) -> None:
        super().__init__()
        self.tasks = tasks  # in the order of the streams; a ParameterDict sorts its keys
        self.task_embeddings = nn.ParameterDict({task: nn.Parameter(torch.randn(embedding)) for task in tasks})
        self.block_embeddings = nn.Parameter(torch.randn(blocks, embedding))
        self.position_embeddings = nn.Parameter(torch.randn(len(POSITIONS), embedding))
        self.projector = nn.Sequential(
            nn.Linear(3 * embedding, hidden), nn.ReLU(), nn.Linear(hidden, embedding), nn.LayerNorm(embedding, eps=1e-6)
        )
        self.adapters = nn.ModuleDict({name: nn.Linear(embedding, (2 * c + 1) * width + c) for name, (c, width) in shapes.items()})
        self.norms = nn.ModuleDict({name: nn.Linear(embedding, 2 * c) for name, (c, _) in shapes.items()})
        for linear in (self.projector[0], self.projector[2], *self.adapters.values(), *self.norms.values()):
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)
        for linear in self.norms.values():
            nn.init.zeros_(linear.weight)

    def forward(self, name: str, block: int, position: int) -> tuple[Tensor, Tensor]:
        """Return the weights of one adapter for every task: D, d, U and u in one row, (T, 2 C w + w + C); gamma and beta, (T, 2 C)."""
        z = torch.stack([self.task_embeddings[task] for task in self.tasks])
        place = torch.cat([self.block_embeddings[block], self.position_embeddings[position]])
        i = self.projector(torch.cat([z, place.expand(len(z), -1)], dim=1))
        return self.adapters[name](i), self.norms[name](i)


class GeneratedAdapter(nn.Module):
    """A frozen linear layer and generated adapters, `(streams_in * B, ..., in) -> (T * B, ..., out)`; `streams_in` is 1 or T."""

    def __init__(
        self, linear: nn.Linear, hypernetworks: HyperNetworks, name: str, block: int, position: int, width: int, streams_in: int
    ) -> None:
        super().__init__()
        self.linear, self.width, self.streams_in = linear, width, streams_in
        self.hypernetworks, self.place = (hypernetworks,), (name, block, position)  # in a tuple: the backbone owns it

    def forward(self, x: Tensor) -> Tensor:
        c, w = self.linear.out_features, self.width
        weights, affine = self.hypernetworks[0](*self.place)
        down, d, up, u = weights.split([w * c, w, c * w, c], dim=1)
        gamma, beta = affine[:, None].chunk(2, dim=2)
        h = task_streams(self.linear(x), self.streams_in, len(weights))
        z = gelu(torch.bmm(h, down.unflatten(1, (w, c)).mT) + d[:, None])
        z = torch.bmm(z, up.unflatten(1, (c, w)).mT) + u[:, None]
        update = gamma * layer_norm(z, (c,)) + beta
        return (h + update.to(h.dtype)).reshape(-1, *x.shape[1:-1], c)  # autocast may normalise in fp32; the streams stay as they are


def task_streams(h: Tensor, streams: int, tasks: int) -> Tensor:
    """View `(S * B, ..., C)`, stream-major with S = 1 or T, as one stream a task: (T, B * ..., C)."""
    return h.reshape(streams, -1, h.shape[-1]).expand(tasks, -1, -1)


@register("hyperformer", HyperFormerConfig)
def apply(backbone: nn.Module, config: HyperFormerConfig) -> None:
    """Freeze the backbone; add the hypernetworks as `backbone.hyperformer`, and a generated adapter behind attention and MLP."""
    freeze(backbone, config.also_train)
    found = sites(backbone, POSITIONS)
    blocks = sorted({(site.stage, site.block) for site in found})

    def name(site: Site) -> str:
        return f"{site.stage}_{site.block}" if config.share == "block" else f"{site.stage}"

    def shape(site: Site) -> tuple[int, int]:
        return site.module.out_features, bottleneck_width(site.module.out_features, config.reduction)

    with found[0].module.weight.device:
        hypernetworks = HyperNetworks(backbone.tasks, len(blocks), {name(s): shape(s) for s in found}, config.embedding, config.hidden)
    backbone.hyperformer = hypernetworks

    def build(site: Site) -> nn.Module:
        streams_in = 1 if site.name == found[0].name else len(backbone.tasks)
        place = (name(site), blocks.index((site.stage, site.block)), POSITIONS.index(site.kind))
        return GeneratedAdapter(site.module, hypernetworks, *place, shape(site)[1], streams_in)

    replace(backbone, POSITIONS, build)
