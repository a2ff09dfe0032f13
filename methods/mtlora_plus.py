"""MTLoRA+: MTLoRA whose patch merging is frozen and low-rank adapted instead of fully trained (arXiv 2403.20320, CVPR 2024).

Each reduction gets the shared rank of the stage that it ends; it never gets per-task pairs. The rest is MTLoRA.
"""

from dataclasses import dataclass

from methods.base import register
from methods.mtlora import MTLoRAConfig, apply


@dataclass(frozen=True, kw_only=True)
class MTLoRAPlusConfig(MTLoRAConfig):
    """MTLoRA's dials; `layers` and `also_train` differ."""

    title = "MTLoRA+"

    layers: tuple[str, ...] = ("qkv", "proj", "fc1", "fc2", "reduction")
    also_train: tuple[str, ...] = ("norm", "relative_position", "patch_embed")


register("mtlora_plus", MTLoRAPlusConfig)(apply)
