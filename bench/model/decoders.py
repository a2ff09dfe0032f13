"""Decoders: the MTLoRA release's default head, one a task (HRNet-style: concatenate, 1x1, BN, ReLU, 1x1).

Each task owns four 1x1 convolutions without bias that narrow the pyramid's maps, 18/36/72/144 channels by default.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

EXPANSION = 4


class HighResolutionHead(nn.Module):
    """Decode one task's pyramid into logits at the resolution of its finest map."""

    def __init__(self, channels: list[int], widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        if len(widths) != len(channels):
            raise ValueError(f"decoder_channels needs {len(channels)} values, one a feature map; got {widths}")
        total = sum(widths)
        self.narrow = nn.ModuleList(nn.Conv2d(c, w, 1, bias=False) for c, w in zip(channels, widths, strict=True))
        self.head = nn.Sequential(
            nn.Conv2d(total, EXPANSION * total, 1), nn.BatchNorm2d(EXPANSION * total), nn.ReLU(), nn.Conv2d(EXPANSION * total, outputs, 1)
        )

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Map four (B, C, h, w) to logits (B, outputs, h0, w0)."""
        maps = [conv(x) for conv, x in zip(self.narrow, pyramid, strict=True)]
        size = maps[0].shape[-2:]
        maps = [m if m.shape[-2:] == size else interpolate(m, size, mode="bilinear", align_corners=False) for m in maps]
        return self.head(torch.cat(maps, 1))
