"""BitFit: only biases train (Ben Zaken et al., arXiv 2106.10199).

All `.bias` vectors of the backbone, those of the norms and of the patch embedding included. On Swin the tables of relative-position bias
are biases of attention as well; with them, one copy a task, the published count of the PASCAL-Context tables is reproduced (4 x 74,778),
without them it is not.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from methods.base import BIAS_VECTOR, MethodConfig, freeze, register
from methods.shape import Shape


@dataclass(frozen=True, kw_only=True)
class BitFitConfig(MethodConfig):
    """BitFit has no dial."""

    title = "BitFit"
    paper: ClassVar[str] = "arXiv 2106.10199"

    also_train: tuple[str, ...] = ("relative_position",)

    def parameters(self, shape: Shape) -> int:
        return shape.own(("vector",))

    def trainable(self, shape: Shape) -> int:
        return shape.own(("vector", *self.also_train))  # groups of `also_train` may hold biases themselves


@register("bitfit", BitFitConfig)
def apply(backbone: nn.Module, config: BitFitConfig) -> None:
    """Freeze the backbone but for its biases and `also_train`."""
    freeze(backbone, config.also_train)
    for name, parameter in backbone.named_parameters():
        if BIAS_VECTOR.search(name):
            parameter.requires_grad_(True)
