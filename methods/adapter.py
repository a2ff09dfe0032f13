"""Bottleneck adapters: two a block, after attention and after the MLP (Houlsby et al., arXiv 1902.00751).

    y = h + U gelu(D h + d) + u,   h the branch's output before the residual is added, D: (C / rho, C), U: (C, C / rho), U = u = 0 at init

The paper draws U near zero; here it is zero, so that training starts exactly from the pretrained network. The adapter is pointwise, so
that it may sit on `attn.proj` and `mlp.fc2` themselves. On one task a trial this is the Adapter row of the published tables; on several
tasks one set serves all (VL-Adapter's arrangement).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from methods.base import MethodConfig, Site, freeze, register, replace, require_at_least, require_layers
from methods.shape import Shape


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(MethodConfig):
    """Dial of the adapter: `reduction` rho, the bottleneck has C / rho channels; or `width` channels in every stage, where it is not 0."""

    title = "Adapter"
    paper: ClassVar[str] = "arXiv 1902.00751"

    reduction: int = 4
    width: int = 0
    layers: tuple[str, ...] = ("proj", "fc2")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_layers(self.layers)
        require_at_least("reduction", self.reduction, 1)
        require_at_least("width", self.width, 0)

    @property
    def dial(self) -> str:
        return "width" if self.width else "reduction"

    @property
    def dial_title(self) -> str:
        return "w" if self.width else "ρ"

    def parameters(self, shape: Shape) -> int:
        def bottleneck(channels: int) -> int:
            width = self.width or bottleneck_width(channels, self.reduction)
            return 2 * channels * width + width + channels

        return shape.over_layers(self.layers, lambda _, out: bottleneck(out))


class AdaptedLinear(nn.Module):
    """A frozen linear layer followed by a residual bottleneck, `(..., in) -> (..., out)`; `down` and `up` map between out and C / rho."""

    def __init__(self, linear: nn.Linear, down: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.linear, self.down, self.up = linear, down, up

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        return h + self.up(nn.functional.gelu(self.down(h)))


def bottleneck_width(channels: int, reduction: int) -> int:
    """Return C / rho, rounded down.

    Raises:
        ValueError: Nothing is left.
    """
    if channels < reduction:
        raise ValueError(f"reduction {reduction} leaves no channel of {channels}; use a smaller one")
    return channels // reduction


@register("adapter", AdapterConfig)
def apply(backbone: nn.Module, config: AdapterConfig) -> None:
    """Freeze the backbone and put a bottleneck behind every layer of `config.layers`."""
    freeze(backbone, config.also_train)

    def build(site: Site) -> nn.Module:
        channels = site.module.out_features
        width = config.width or bottleneck_width(channels, config.reduction)
        up = nn.Linear(width, channels)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        return AdaptedLinear(site.module, nn.Linear(channels, width), up)

    replace(backbone, config.layers, build)
