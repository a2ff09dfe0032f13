"""Compacter and Compacter++: adapters whose matrices are sums of Kronecker products (Mahabadi et al., arXiv 2106.04647, NeurIPS 2021).

    y = h + U gelu(D h + d) + u,   D = sum_i A_i (x) (s_i t_i),   i = 1 .. n, U alike;   A_i: (n, n), s_i: (out / n, q), t_i: (q, in / n)

Compacter puts one behind attention and one behind the MLP of each block, Compacter++ only behind the MLP. The paper shares the A_i over all
layers and takes n = 4, q = 1; here every matrix has its own, q = 2, because that reproduces the counts of the PASCAL-Context tables (an
inference from arithmetic). `t` of U is zero at init, so that training starts exactly from the pretrained network.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from methods.adapter import AdaptedLinear, bottleneck_width
from methods.base import MethodConfig, Site, freeze, register, replace, require_at_least, require_layers
from methods.shape import Shape


@dataclass(frozen=True, kw_only=True)
class CompacterConfig(MethodConfig):
    """Dials of Compacter: `reduction` rho of the bottleneck, `terms` n of the sum, and `rank` q of each term's second factor."""

    title = "Compacter"
    dial = "reduction"
    dial_title = "ρ"
    paper: ClassVar[str] = "arXiv 2106.04647"

    reduction: int = 4
    terms: int = 4
    rank: int = 2
    layers: tuple[str, ...] = ("proj", "fc2")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_layers(self.layers)
        for field in ("reduction", "terms", "rank"):
            require_at_least(field, getattr(self, field), 1)

    def parameters(self, shape: Shape) -> int:
        def bottleneck(channels: int) -> int:
            return (2 * self.rank + 1) * (channels + channels // self.reduction) + 2 * self.terms**3

        return shape.over_layers(self.layers, lambda _, out: bottleneck(out))


@dataclass(frozen=True, kw_only=True)
class CompacterPlusPlusConfig(CompacterConfig):
    """Compacter's dials; only the MLP gets an adapter."""

    title = "Compacter++"

    layers: tuple[str, ...] = ("fc2",)


class KroneckerLinear(nn.Module):
    """A linear layer `(..., in) -> (..., out)` with W = sum_i A_i (x) (s_i t_i) and a bias."""

    def __init__(self, in_features: int, out_features: int, terms: int, rank: int) -> None:
        super().__init__()
        if in_features % terms or out_features % terms:
            raise ValueError(f"terms = {terms} does not divide {in_features} and {out_features} channels; use another number or reduction")
        self.A = nn.Parameter(nn.init.xavier_normal_(torch.empty(terms, terms, terms)))
        self.s = nn.Parameter(nn.init.xavier_normal_(torch.empty(terms, out_features // terms, rank)))
        self.t = nn.Parameter(nn.init.xavier_normal_(torch.empty(terms, rank, in_features // terms)))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def weight(self) -> Tensor:
        """Return W, (out, in)."""
        w = torch.einsum("iab,icd->acbd", self.A, self.s @ self.t)  # W[a * out / n + c, b * in / n + d]
        return w.flatten(2).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight(), self.bias)


@register("compacter_plus_plus", CompacterPlusPlusConfig)
@register("compacter", CompacterConfig)
def apply(backbone: nn.Module, config: CompacterConfig) -> None:
    """Freeze the backbone and put a Kronecker bottleneck behind every layer of `config.layers`."""
    freeze(backbone, config.also_train)

    def build(site: Site) -> nn.Module:
        channels = site.module.out_features
        width = bottleneck_width(channels, config.reduction)
        down, up = (KroneckerLinear(*sizes, config.terms, config.rank) for sizes in ((channels, width), (width, channels)))
        nn.init.zeros_(up.t)
        return AdaptedLinear(site.module, down, up)

    replace(backbone, config.layers, build)
