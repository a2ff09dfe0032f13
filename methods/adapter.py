"""Bottleneck adapters: two a block, after attention and after the MLP (Houlsby et al., arXiv 1902.00751).

    y = h + U gelu(D h + d) + u,   h the branch's output before the residual is added, D: (C / rho, C), U: (C, C / rho), U = u = 0 at init

The paper draws U near zero; here it is zero, so that training starts exactly from the pretrained network. The adapter is pointwise, so
that it may sit on `attn.proj` and `mlp.fc2` themselves. On one task a trial this is the Adapter row of the published tables; on several
tasks one set serves all (VL-Adapter's arrangement).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from methods.base import MethodConfig, freeze, register, replace, require_at_least


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(MethodConfig):
    """Dial of the adapter: `reduction` rho, the bottleneck has C / rho channels."""

    title = "Adapter"
    dial = "reduction"
    dial_title = "ρ"
    paper: ClassVar[str] = "arXiv 1902.00751"

    reduction: int = 4
    layers: tuple[str, ...] = ("proj", "fc2")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least("reduction", self.reduction, 1)


class AdaptedLinear(nn.Module):
    """A frozen linear layer followed by a residual bottleneck: `(..., in) -> (..., out)`."""

    def __init__(self, linear: nn.Linear, reduction: int) -> None:
        super().__init__()
        width = linear.out_features // reduction
        if width == 0:
            raise ValueError(f"reduction {reduction} leaves no channel of {linear.out_features}; use a smaller one")
        self.linear = linear
        self.down = nn.Linear(linear.out_features, width)
        self.up = nn.Linear(width, linear.out_features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        return h + self.up(nn.functional.gelu(self.down(h)))


@register("adapter", AdapterConfig)
def apply(backbone: nn.Module, config: AdapterConfig) -> None:
    """Freeze the backbone and put a bottleneck behind every layer of `config.layers`."""
    freeze(backbone, config.also_train)
    replace(backbone, config.layers, lambda site: AdaptedLinear(site.module, config.reduction))
