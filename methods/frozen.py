"""Decoders only: the pretrained backbone stays as it is.

The lower baseline of the comparison. As in the MTLoRA release, stochastic depth stays active in training. `also_train` gives it any group
of the backbone's own parameters: the control for methods that leave such groups trainable.
"""

from dataclasses import dataclass

from torch import nn

from methods.base import MethodConfig, freeze, register
from methods.shape import Shape


@dataclass(frozen=True, kw_only=True)
class FrozenConfig(MethodConfig):
    """Decoders only; `also_train` is its one field."""

    title = "Decoders only"

    def parameters(self, shape: Shape) -> int:
        return 0


@register("frozen", FrozenConfig)
def apply(backbone: nn.Module, config: FrozenConfig) -> None:
    """Freeze the backbone."""
    freeze(backbone, config.also_train)
