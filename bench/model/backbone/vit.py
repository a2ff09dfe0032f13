"""timm's plain Vision Transformer (arXiv 2010.11929) as a pyramid of four maps of one size.

The blocks are parted into four stages of equal length. A stage ends with the map of its patch tokens, without class and register tokens,
before any final norm: four maps of width C at the stride of a patch, 16 pixels as a rule. Nothing is added that would have to be trained;
what is missing to a pyramid, other strides, the decoders' resizing makes up for.
"""

from typing import ClassVar

from timm.models import vision_transformer
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from bench.errors import SuiteError
from bench.model.backbone.pyramid import Pyramid
from bench.model.backbone.streams import add_streams, hand_out

STAGES = 4


class Stage(nn.Module):
    """A run of blocks, under the names that methods look for."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class PlainPyramid(Pyramid):
    """A timm ViT that maps images to one pyramid a task: four maps at the stride of a patch."""

    timm_modules: ClassVar[tuple[str, ...]] = ("vision_transformer",)
    architecture = VisionTransformer
    translate = staticmethod(vision_transformer.checkpoint_filter_fn)

    def __init__(self, vit: VisionTransformer, tasks: tuple[str, ...]) -> None:
        super().__init__(tasks, channels=[vit.embed_dim] * STAGES)
        strangers = {type(block).__name__ for block in vit.blocks if type(block) is not Block}
        if strangers or len(vit.blocks) % STAGES:
            raise SuiteError(f"a plain ViT of 4 n ordinary blocks is needed; this one has {len(vit.blocks)}, {strangers or 'ordinary'}")
        size, patch = vit.patch_embed.img_size, vit.patch_embed.patch_size
        if any(s % p for s, p in zip(size, patch, strict=True)):
            raise SuiteError(f"this ViT cuts images into patches of {patch[0]} pixels: the image size must be a multiple, got {size[0]}")
        depth = len(vit.blocks) // STAGES
        vit.layers = nn.ModuleList(Stage(list(vit.blocks[i * depth : (i + 1) * depth])) for i in range(STAGES))
        del vit.blocks
        vit.norm, vit.fc_norm, vit.head = nn.Identity(), nn.Identity(), nn.Identity()
        self.vit = vit

    def stages(self, image: Tensor, pyramids: list[list[Tensor]]) -> None:
        vit, grid = self.vit, self.vit.patch_embed.grid_size
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(image))))  # (B, tokens, C)
        for stage in vit.layers:
            for block in stage.blocks:
                x = add_streams(x, block.drop_path1(block.ls1(block.attn(block.norm1(x)))))
                x = add_streams(x, block.drop_path2(block.ls2(block.mlp(block.norm2(x)))))
            streams = len(x) // len(image)
            hand_out(x[:, vit.num_prefix_tokens :].unflatten(1, grid), len(image), pyramids)
            x = x[: len(image)] if streams == 1 + len(pyramids) else x
