"""timm's Swin (arXiv 2103.14030) and SwinV2 (arXiv 2111.09883) as pyramids.

Features are taken after patch merging, as the MTLoRA release does: for Swin-T 192/384/768/768 channels at strides 8/16/32/32, without a
final norm. timm merges at the start of a stage, the release at the end of the one before; the numbers are the same.

SwinV2 normalises the output of a branch instead of its input, generates its relative-position bias with a small network (`cpb_mlp`), and
adds the biases of query and value outside of `qkv`; it is told to call `qkv` as a layer, so that methods may replace it.
"""

from pathlib import Path

from timm.models import register_model, swin_transformer, swin_transformer_v2
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn

from bench.model.backbone.pyramid import Pyramid
from bench.model.backbone.streams import add_streams, hand_out
from methods.shape import Shape, swin_shape

DEMO_BACKBONE = "swin_micro_patch4_window4_64"
DEMO_WEIGHTS = Path(__file__).parents[2] / "assets" / f"{DEMO_BACKBONE}.safetensors"


@register_model
def swin_micro_patch4_window4_64(pretrained: bool = False, **kwargs) -> SwinTransformer:
    """Swin with 1.7 M parameters: embed 24, depths 2/2/6/2, window 4, 64 px. Its weights come from `run_suite.py pretrain`."""
    if pretrained:
        raise ValueError(f"{DEMO_BACKBONE} has no weights at timm; use weights='demo' or a file made by `run_suite.py pretrain`")
    default = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2, 6, 2), "num_heads": (1, 2, 4, 8)}
    kwargs = {key: value for key, value in kwargs.items() if key not in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")}
    return SwinTransformer(**(default | kwargs))


class SwinPyramid(Pyramid):
    """A timm Swin that maps images to one feature pyramid a task: four maps at strides 8, 16, 32 and 32 for a patch of 4 pixels."""

    timm_modules = ("swin_transformer", "swin")
    architecture = SwinTransformer
    translate = staticmethod(swin_transformer.checkpoint_filter_fn)

    def __init__(self, swin: SwinTransformer | SwinTransformerV2, tasks: tuple[str, ...]) -> None:
        widths = [stage.blocks[-1].dim for stage in swin.layers]
        super().__init__(tasks, channels=[*widths[1:], widths[-1]])
        swin.norm, swin.head = nn.Identity(), nn.Identity()
        self.swin = swin

    def stages(self, image: Tensor, pyramids: list[list[Tensor]]) -> None:
        x = self.swin.patch_embed(image)  # (B, H/4, W/4, C)
        for i, stage in enumerate(self.swin.layers):
            for block in stage.blocks:
                x = self.block(block, x)
            if i + 1 < len(self.swin.layers):
                x = self.swin.layers[i + 1].downsample(x)
            x = hand_out(x, len(image), pyramids)

    @staticmethod
    def block(block: nn.Module, x: Tensor) -> Tensor:
        """Run one block on `(S * B, h, w, C)`; the number of streams S may grow on the way, and the residual follows."""
        x = add_streams(x, block.drop_path1(block._attn(block.norm1(x))))
        tokens = x.flatten(1, 2)
        tokens = add_streams(tokens, block.drop_path2(block.mlp(block.norm2(tokens))))
        return tokens.unflatten(1, x.shape[1:3])

    def shape(self, tasks: int) -> Shape:
        """Return the sizes, by formula."""
        first = [stage.blocks[0] for stage in self.swin.layers]
        return swin_shape(
            widths=tuple(block.dim for block in first),
            depths=tuple(len(stage.blocks) for stage in self.swin.layers),
            heads=tuple(block.attn.num_heads for block in first),
            windows=tuple(block.attn.window_size[0] for block in first),
            patch=self.swin.patch_embed.patch_size[0],
            tasks=tasks,
        )


class SwinV2Pyramid(SwinPyramid):
    """A timm SwinV2; the maps are placed as Swin's."""

    timm_modules = ("swin_transformer_v2",)
    architecture = SwinTransformerV2
    translate = staticmethod(swin_transformer_v2.checkpoint_filter_fn)

    def __init__(self, swin: SwinTransformerV2, tasks: tuple[str, ...]) -> None:
        super().__init__(swin, tasks)
        for stage in swin.layers:
            for block in stage.blocks:
                block.attn.qkv_bias_separate = True  # else timm reads qkv's weight and never calls the layer

    @staticmethod
    def block(block: nn.Module, x: Tensor) -> Tensor:
        """Run one block, as `SwinPyramid.block`."""
        x = add_streams(x, block.drop_path1(block.norm1(block._attn(x))))
        tokens = x.flatten(1, 2)
        tokens = add_streams(tokens, block.drop_path2(block.norm2(block.mlp(tokens))))
        return tokens.unflatten(1, x.shape[1:3])

    def shape(self, tasks: int) -> Shape:
        """Return the sizes, counted."""
        return Pyramid.shape(self, tasks)
