"""Decoders, one a task, of the kinds that the MTLoRA release (arXiv 2403.20320) offers.

| kind | head | parameters beside the narrowing, widths w_i with sum W, n outputs |
|---|---|---|
| `hrnet` | HRNetV2 (Wang et al., arXiv 1908.07919), the release's default | 4 W² + 12 W + (4 W + 1) n |
| `segformer` | SegFormer's all-MLP head (Xie et al., arXiv 2105.15203) | 256 (W + 4) + 262,656 + 257 n |
| `aspp` | DeepLabv3's (Chen et al., arXiv 1706.05587), from torchvision | 7,424 W + 921,088 + 257 n |

Every kind starts with the task's own four 1x1 convolutions without bias that narrow the pyramid's maps C_i to w_i channels, 18/36/72/144 by
default: sum C_i w_i parameters more. Logits are at the resolution of the finest map; all resizing is bilinear with align_corners False.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

EXPANSION = 4
SEGFORMER_WIDTH = 256
ATROUS_RATES = (12, 24, 36)


def narrowing(channels: Sequence[int], widths: Sequence[int]) -> nn.ModuleList:
    """Return a 1x1 convolution without bias for each map: (B, channels[i], h, w) -> (B, widths[i], h, w).

    Raises:
        ValueError: Not one width a map; give as many as the backbone has stages.
    """
    if len(widths) != len(channels):
        raise ValueError(f"decoder_channels needs {len(channels)} values, one a feature map; got {widths}")
    return nn.ModuleList(nn.Conv2d(c, w, 1, bias=False) for c, w in zip(channels, widths, strict=True))


def per_map(layers: nn.ModuleList, maps: Sequence[Tensor]) -> list[Tensor]:
    """Apply to each map its own layer."""
    return [layer(x) for layer, x in zip(layers, maps, strict=True)]


def concatenated(maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """Resize maps (B, c_i, h_i, w_i) to `size` (h, w) and concatenate them: (B, sum c_i, h, w)."""
    return torch.cat([m if m.shape[-2:] == size else interpolate(m, size, mode="bilinear", align_corners=False) for m in maps], 1)


class HighResolutionHead(nn.Module):
    """Decode one task's pyramid by 1x1, BN, ReLU, 1x1 on the concatenated maps: `hrnet`."""

    def __init__(self, channels: Sequence[int], widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        total = sum(widths)
        self.narrow = narrowing(channels, widths)
        self.head = nn.Sequential(
            nn.Conv2d(total, EXPANSION * total, 1), nn.BatchNorm2d(EXPANSION * total), nn.ReLU(), nn.Conv2d(EXPANSION * total, outputs, 1)
        )

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Map (B, channels[i], h_i, w_i), the finest first, to logits (B, outputs, h_0, w_0)."""
        return self.head(concatenated(per_map(self.narrow, pyramid), pyramid[0].shape[-2:]))


class ASPPHead(nn.Module):
    """Decode one task's pyramid by atrous spatial pyramid pooling of the concatenated maps: `aspp`.

    torchvision's head: a 1x1, three dilated 3x3 and an image-pooling branch of 256 channels each, projected with dropout 0.5; then 3x3,
    BN, ReLU, 1x1. On a finest map no wider than its rate a dilated convolution sees its centre only: none at 448 px (56 pixels), one of
    three at 224 px (28), all at 64 px (8).

    The pooling branch normalises 1x1 maps over the batch, so training needs two images a step, and more are better: two become +1 and
    -1 whatever they were. torch raises at one; `TrialConfig` refuses a batch size of 1, and the training loader drops the last
    incomplete batch, so none gets there. Evaluation takes any batch.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.narrow = narrowing(channels, widths)
        self.head = DeepLabHead(sum(widths), outputs, ATROUS_RATES)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Map (B, channels[i], h_i, w_i), the finest first, to logits (B, outputs, h_0, w_0)."""
        return self.head(concatenated(per_map(self.narrow, pyramid), pyramid[0].shape[-2:]))


class SegFormerHead(nn.Module):
    """Decode one task's pyramid by per-pixel linear layers alone: `segformer`.

    Each map is embedded into 256 channels, then resized; concatenated coarsest first; 1x1 without bias, BN, ReLU; dropout of whole
    channels, 0.1; 1x1. The release's head holds a second, unused classifier beside (257 n parameters), which is left out here.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.narrow = narrowing(channels, widths)
        self.embed = nn.ModuleList(nn.Conv2d(width, SEGFORMER_WIDTH, 1) for width in widths)
        self.head = nn.Sequential(
            nn.Conv2d(len(widths) * SEGFORMER_WIDTH, SEGFORMER_WIDTH, 1, bias=False),
            nn.BatchNorm2d(SEGFORMER_WIDTH),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(SEGFORMER_WIDTH, outputs, 1),
        )
        nn.init.kaiming_normal_(self.head[0].weight, mode="fan_out", nonlinearity="relu")  # as mmcv's ConvModule, which the release uses

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Map (B, channels[i], h_i, w_i), the finest first, to logits (B, outputs, h_0, w_0)."""
        embedded = per_map(self.embed, per_map(self.narrow, pyramid))
        return self.head(concatenated(embedded[::-1], pyramid[0].shape[-2:]))


DECODERS = {"hrnet": HighResolutionHead, "segformer": SegFormerHead, "aspp": ASPPHead}
"""Class of every kind that `TrialConfig.decoder` may name; each is built from (channels, widths, outputs)."""


def decoder_parameters(kind: str, channels: Sequence[int], widths: Sequence[int], outputs: int) -> int:
    """Return the closed form of a decoder's parameters, as in the table above."""
    total = sum(widths)
    heads = {
        "hrnet": 4 * total**2 + 12 * total + (4 * total + 1) * outputs,
        "segformer": 256 * (total + 4) + 262_656 + 257 * outputs,
        "aspp": 7_424 * total + 921_088 + 257 * outputs,
    }
    return heads[kind] + sum(c * w for c, w in zip(channels, widths, strict=True))
