"""Full fine-tuning: every parameter of the backbone trains.

On several tasks it is the usual upper baseline (one encoder for all tasks); on one task a trial it gives the single-task references that
delta_m divides by.
"""

from dataclasses import dataclass

from torch import nn

from methods.base import MethodConfig, register
from methods.shape import Shape


@dataclass(frozen=True, kw_only=True)
class FullConfig(MethodConfig):
    """Full fine-tuning has no dial."""

    title = "Full fine-tuning"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.also_train:
            raise ValueError(f"also_train: full fine-tuning trains everything already; leave out {self.also_train}")

    def parameters(self, shape: Shape) -> int:
        return shape.backbone()


@register("full", FullConfig)
def apply(backbone: nn.Module, config: FullConfig) -> None:
    """Make every parameter of the backbone trainable."""
    backbone.requires_grad_(True)
