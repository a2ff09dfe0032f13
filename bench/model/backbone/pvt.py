"""timm's Pyramid Vision Transformer v2 (arXiv 2106.13797) as a pyramid: each stage's normalised output, at strides 4, 8, 16 and 32.

Its attention projects queries apart from keys and values, which it computes on a smaller map; its MLP holds a depthwise convolution; its
patch merging is a strided convolution, so that there is no `reduction` to adapt.
"""

from typing import Any, ClassVar

from timm.models import pvt_v2
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from torch import Tensor, nn

from bench.model.backbone.pyramid import Pyramid
from bench.model.backbone.streams import add_streams, hand_out


class PVTPyramid(Pyramid):
    """A timm PVT v2 that maps images to one pyramid a task."""

    timm_modules: ClassVar[tuple[str, ...]] = ("pvt_v2",)
    architecture = PyramidVisionTransformerV2
    translate = staticmethod(pvt_v2.checkpoint_filter_fn)

    def __init__(self, pvt: PyramidVisionTransformerV2, tasks: tuple[str, ...]) -> None:
        super().__init__(tasks, channels=[stage.norm.normalized_shape[0] for stage in pvt.stages])
        pvt.layers = pvt.stages  # the name that methods look for
        del pvt.stages
        pvt.head = nn.Identity()
        self.pvt = pvt

    @staticmethod
    def options(image_size: int) -> dict[str, Any]:
        """Return nothing: the architecture takes any size."""
        return {}

    def stages(self, image: Tensor, pyramids: list[list[Tensor]]) -> None:
        x = self.pvt.patch_embed(image)  # (B, H/4, W/4, C)
        for stage in self.pvt.layers:
            if stage.downsample is not None:
                x = stage.downsample(x.permute(0, 3, 1, 2))
            size, tokens = x.shape[1:3], x.flatten(1, 2)
            for block in stage.blocks:
                tokens = add_streams(tokens, block.drop_path1(block.attn(block.norm1(tokens), size)))
                tokens = add_streams(tokens, block.drop_path2(block.mlp(block.norm2(tokens), size)))
            x = hand_out(stage.norm(tokens).unflatten(1, size), len(image), pyramids)
