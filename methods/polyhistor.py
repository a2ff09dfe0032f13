"""Polyhistor: adapters from decomposed hypernetworks and layer-wise scaling kernels (Liu et al., arXiv 2210.03265, NeurIPS 2022).

    A(h) = h + U gelu(D h),   h the branch's output before the residual is added
    D = K (x) (P_t Q_t),   P_t = P z_t: (w / rho, r),   Q_t = Q z_t: (r, w);   U alike, with factors and a kernel of its own, K = 0 at init

z_t: (k,) is the learned embedding of task t. The two linear hypernetworks P and Q, without biases, emit factors of rank r, whose product is
the template kernel (decomposed hypernetworks). Each adapter - a block has one after attention and one after the MLP - owns one scaling
kernel K: (n, n) for D and one for U, shared by the tasks; the Kronecker product with the template is its matrix (layer-wise scaling
kernels). The adapters differ by task: from the first one on there is one stream a task.

Polyhistor has a template for each stage, w = C / n with n = `kernel`. Polyhistor-Lite has one for all stages, of the narrowest stage's
w = C_0 / n, so that wider stages have larger kernels: n C / C_0, which is n times 1, 2, 4, 8 on Swin.

WHAT IS INFERRED. This file was written from the abstract, the authors' project page and second-hand notes; the equations are to be checked
against the PDF. Not known: r, k, rho and n, whether templates differ by position, biases, initialisation, and whether Polyhistor without
-Lite has scaling kernels at all. The published encoder counts at four tasks on Swin-T, 6.41 M and 0.41 M, stand as 15.6 : 1; one template a
stage against one in all gives sum C / C_0 = 15 : 1 (one a block would give 46 : 1), hence n has the same default in both. The defaults were
not tuned to these counts; they give 3.69 M and 0.25 M.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from methods.adapter import bottleneck_width
from methods.base import MethodConfig, Site, freeze, register, replace, require_at_least, sites
from methods.hyperformer import POSITIONS, task_streams
from methods.shape import Shape


@dataclass(frozen=True, kw_only=True)
class PolyhistorConfig(MethodConfig):
    """Dials: `rank` r of a template, `reduction` rho, entries k of a task's `embedding`, side n of a scaling `kernel`."""

    title = "Polyhistor"
    dial = "rank"
    dial_title = "r"
    paper: ClassVar[str] = "arXiv 2210.03265"
    single_path: ClassVar[bool] = False
    one_template: ClassVar[bool] = False

    rank: int = 16
    reduction: int = 4
    embedding: int = 64
    kernel: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("rank", "reduction", "embedding", "kernel"):
            require_at_least(field, getattr(self, field), 1)

    def parameters(self, shape: Shape) -> int:
        widths = [c // self.kernel for c in (shape.widths[:1] if self.one_template else shape.widths)]
        factors = sum(2 * self.embedding * self.rank * (w + bottleneck_width(w, self.reduction)) for w in widths)
        kernels = shape.over_blocks(lambda c: 2 * len(POSITIONS) * (c // widths[0] if self.one_template else self.kernel) ** 2)
        return self.embedding * shape.tasks + factors + kernels


@dataclass(frozen=True, kw_only=True)
class PolyhistorLiteConfig(PolyhistorConfig):
    """Polyhistor's dials; `kernel` is the narrowest stage's n."""

    title = "Polyhistor-Lite"
    one_template: ClassVar[bool] = True


class Templates(nn.Module):
    """The tasks' embeddings and the hypernetworks of the templates.

    Args:
        tasks: T names, in the order of the streams.
        shapes: Width w of a template and w / rho of its bottleneck, by the template's name.
        embedding: Entries k.
        rank: r.
    """

    def __init__(self, tasks: tuple[str, ...], shapes: dict[str, tuple[int, int]], embedding: int, rank: int) -> None:
        super().__init__()
        self.tasks, self.shapes, self.rank = tasks, shapes, rank  # in the order of the streams; a ParameterDict sorts its keys
        self.task_embeddings = nn.ParameterDict({task: nn.Parameter(torch.randn(embedding)) for task in tasks})
        # The four hypernetworks of a template, P and Q of D and of U, stand in one matrix: one product for all.
        self.factors = nn.ModuleDict(
            {name: nn.Linear(embedding, 2 * rank * (width + narrow), bias=False) for name, (width, narrow) in shapes.items()}
        )
        for linear in self.factors.values():
            nn.init.normal_(linear.weight, std=embedding**-0.5 * rank**-0.25)  # a template's entries have variance 1

    def forward(self, name: str) -> tuple[Tensor, Tensor]:
        """Return a template of every task: for D (T, w / rho, w), for U (T, w, w / rho)."""
        width, narrow = self.shapes[name]
        z = torch.stack([self.task_embeddings[task] for task in self.tasks])
        factors = self.factors[name](z).unflatten(1, (self.rank, -1))
        down_p, down_q, up_p, up_q = factors.split([narrow, width, width, narrow], dim=2)
        return down_p.mT @ down_q, up_p.mT @ up_q


class ScaledAdapter(nn.Module):
    """A frozen linear layer and one adapter a task, `(streams_in * B, ..., in) -> (T * B, ..., out)`; `streams_in` is 1 or T."""

    def __init__(self, linear: nn.Linear, templates: Templates, name: str, side: int, streams_in: int) -> None:
        super().__init__()
        self.linear, self.name, self.streams_in = linear, name, streams_in
        self.templates = (templates,)  # in a tuple: the backbone owns it
        # Orthogonal, so that a kernel of one entry is no smaller than others; D's entries have variance 1 / C.
        self.down = nn.Parameter(nn.init.orthogonal_(torch.empty(side, side), gain=(side / linear.out_features) ** 0.5))
        self.up = nn.Parameter(torch.zeros(side, side))

    def forward(self, x: Tensor) -> Tensor:
        down, up = (torch.kron(k[None], t) for k, t in zip((self.down, self.up), self.templates[0](self.name), strict=True))
        h = task_streams(self.linear(x), self.streams_in, len(down))
        h = h + torch.bmm(gelu(torch.bmm(h, down.mT)), up.mT)
        return h.reshape(-1, *x.shape[1:-1], h.shape[-1])


@register("polyhistor_lite", PolyhistorLiteConfig)
@register("polyhistor", PolyhistorConfig)
def apply(backbone: nn.Module, config: PolyhistorConfig) -> None:
    """Freeze the backbone; add the templates as `backbone.templates`, and an adapter a task behind attention and MLP."""
    freeze(backbone, config.also_train)
    found = sites(backbone, POSITIONS)
    narrowest = min(site.module.out_features for site in found)

    def template(site: Site) -> tuple[str, int]:
        """Return the name and width of a site's template."""
        channels = narrowest if config.one_template else site.module.out_features
        if channels % config.kernel:
            raise ValueError(f"kernel = {config.kernel} does not divide {channels} channels; use a divisor")
        return "all" if config.one_template else f"{site.stage}", channels // config.kernel

    shapes = {name: (width, bottleneck_width(width, config.reduction)) for name, width in map(template, found)}
    with found[0].module.weight.device:
        backbone.templates = Templates(backbone.tasks, shapes, config.embedding, config.rank)

    def build(site: Site) -> nn.Module:
        streams_in = 1 if site.name == found[0].name else len(backbone.tasks)
        name, width = template(site)
        with site.module.weight.device:
            return ScaledAdapter(site.module, backbone.templates, name, site.module.out_features // width, streams_in)

    replace(backbone, POSITIONS, build)
