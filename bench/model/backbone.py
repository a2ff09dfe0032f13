"""The backbone: any Swin from timm by name, as a pyramid with one set of features a task.

Features are taken after patch merging, as the MTLoRA release does: for Swin-T 192/384/768/768 channels at strides 8/16/32/32, without a
final norm. timm merges at the start of a stage, the release at the end of the one before; the numbers are the same.

Streams (methods.base): a block may return more streams than it got; at the end of a stage each task takes its own stream, and the shared
one goes on.
"""

import difflib
from functools import cache
from pathlib import Path

import safetensors
import safetensors.torch
import timm
import torch
from timm.models import register_model
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from bench.errors import SuiteError
from methods.base import Shape

DEMO_BACKBONE = "swin_micro_patch4_window4_64"
DEMO_WEIGHTS = Path(__file__).parent.parent / "assets" / f"{DEMO_BACKBONE}.safetensors"


@register_model
def swin_micro_patch4_window4_64(pretrained: bool = False, **kwargs) -> SwinTransformer:
    """Swin with 1.7 M parameters: embed 24, depths 2/2/6/2, window 4, 64 px. Its weights come from `run_suite.py pretrain`."""
    if pretrained:
        raise ValueError(f"{DEMO_BACKBONE} has no weights at timm; use weights='demo' or a file made by `run_suite.py pretrain`")
    default = {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2, 6, 2), "num_heads": (1, 2, 4, 8)}
    kwargs = {key: value for key, value in kwargs.items() if key not in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")}
    return SwinTransformer(**(default | kwargs))


class WeightsError(SuiteError):
    """A weights file does not fit the backbone."""


class SwinPyramid(nn.Module):
    """A timm Swin that maps images to one feature pyramid a task.

    Attributes:
        tasks: Names of the tasks, in the order of the task streams.
        channels: Channels of the four maps.
    """

    def __init__(self, swin: SwinTransformer, tasks: tuple[str, ...]) -> None:
        super().__init__()
        swin.norm, swin.head = nn.Identity(), nn.Identity()
        self.swin = swin
        self.tasks = tuple(tasks)
        widths = [stage.blocks[-1].dim for stage in swin.layers]
        self.channels = [*widths[1:], widths[-1]]

    def forward(self, image: Tensor) -> dict[str, list[Tensor]]:
        """Compute the pyramids.

        Args:
            image: (B, 3, H, W) float.

        Returns:
            For each task four maps (B, C, h, w), at strides 8, 16, 32 and 32 for a patch of 4 pixels.
        """
        x = self.swin.patch_embed(image)  # (B, H/4, W/4, C)
        pyramids: dict[str, list[Tensor]] = {task: [] for task in self.tasks}
        for i, stage in enumerate(self.swin.layers):
            for block in stage.blocks:
                x = block_forward(block, x)
            if i + 1 < len(self.swin.layers):
                x = self.swin.layers[i + 1].downsample(x)
            streams = x.unflatten(0, (-1, len(image)))  # (S, B, h, w, C)
            for t, task in enumerate(self.tasks):
                stream = streams[task_stream(t, len(streams), len(self.tasks))]
                pyramids[task].append(stream.permute(0, 3, 1, 2))
            if len(streams) == 1 + len(self.tasks):
                x = streams[0]
        return pyramids


def task_stream(task_index: int, streams: int, tasks: int) -> int:
    """Return which stream feeds a task: 1 stream serves all, T are one a task, 1 + T have the shared one first.

    Raises:
        ValueError: For any other number of streams.
    """
    if streams == 1:
        return 0
    if streams in (tasks, 1 + tasks):
        return task_index + streams - tasks
    raise ValueError(f"a stage returned {streams} streams for {tasks} tasks; a method may use 1, {tasks} or {1 + tasks}")


def block_forward(block: nn.Module, x: Tensor) -> Tensor:
    """Run one timm Swin block on `(S * B, h, w, C)`; the number of streams S may grow on the way, and the residual follows."""
    x = add_streams(x, block.drop_path1(block._attn(block.norm1(x))))
    tokens = x.flatten(1, 2)
    tokens = add_streams(tokens, block.drop_path2(block.mlp(block.norm2(tokens))))
    return tokens.unflatten(1, x.shape[1:3])


def add_streams(residual: Tensor, update: Tensor) -> Tensor:
    """Add `(S1 * B, ...)` and `(S2 * B, ...)`, S1 and S2 equal or one of them 1, which then goes to every stream of the other."""
    streams = max(len(residual), len(update))
    return repeat_streams(residual, streams) + repeat_streams(update, streams)


def repeat_streams(x: Tensor, length: int) -> Tensor:
    """Repeat dim 0 up to `length`, stream-major."""
    return x if len(x) == length else x.repeat(length // len(x), *[1] * (x.ndim - 1))


def build_backbone(
    name: str, *, image_size: int, tasks: tuple[str, ...], drop_path: float, weights: str, weights_file: Path | None
) -> SwinPyramid:
    """Build a Swin pyramid.

    Args:
        name: A Swin of timm's registry.
        image_size: Side of the square input in pixels.
        tasks: Names of the tasks.
        drop_path: Stochastic depth of the last block; rises linearly from 0 over the blocks.
        weights: "timm" (timm's own download), "demo" (the small backbone of this suite), "scratch", or "sha256:..." of `weights_file`.
        weights_file: The file for "sha256:...".

    Raises:
        ValueError: Unknown name, or a backbone that is no Swin.
        WeightsError: The weights do not fit.
    """
    swins = timm.list_models("swin_*")
    if name.partition(".")[0] not in swins:  # behind the dot stands the tag of one of timm's weights
        near = dict.fromkeys([*difflib.get_close_matches(name, swins, 4), *timm.list_models(f"*{name}*", module="swin_transformer")])
        raise SuiteError(f"backbone {name!r} is not a Swin of timm; near: {', '.join(near or swins)}")
    swin = timm.create_model(name, pretrained=weights == "timm", img_size=image_size, drop_path_rate=drop_path, num_classes=0)
    if not isinstance(swin, SwinTransformer):
        raise SuiteError(f"backbone {name!r} is a {type(swin).__name__}; the suite supports timm's SwinTransformer")
    swin.norm, swin.head = nn.Identity(), nn.Identity()
    if weights == "demo":
        load_weights(swin, DEMO_WEIGHTS)
    elif weights.startswith("sha256:"):
        if weights_file is None:
            raise WeightsError(f"the trial names weights {weights}; give the file again with --weights FILE")
        load_weights(swin, weights_file)
    elif weights not in ("timm", "scratch"):
        raise SuiteError(f"weights {weights!r} unknown; allowed: timm, demo, scratch, or a file with --weights FILE")
    return SwinPyramid(swin, tasks)


@cache
def shape_of(name: str, *, image_size: int, tasks: int) -> Shape:
    """Return the sizes of a backbone for closed forms of parameters; nothing is allocated. Arguments as of `build_backbone`."""
    with torch.device("meta"):
        pyramid = build_backbone(name, image_size=image_size, tasks=(), drop_path=0.0, weights="scratch", weights_file=None)
    first = [stage.blocks[0] for stage in pyramid.swin.layers]
    return Shape(
        widths=tuple(block.dim for block in first),
        depths=tuple(len(stage.blocks) for stage in pyramid.swin.layers),
        heads=tuple(block.attn.num_heads for block in first),
        windows=tuple(block.attn.window_size[0] for block in first),
        patch=pyramid.swin.patch_embed.patch_size[0],
        tasks=tasks,
    )


def load_weights(swin: SwinTransformer, path: Path) -> None:
    """Load a Swin from safetensors or .pth, in timm's or Microsoft's key layout, without its final norm and classifier.

    Tables of another window size are resized by timm.

    Raises:
        WeightsError: The file is unreadable, or a key is missing or surplus; the message lists them.
    """
    stored, expected = read_state(path), set(swin.state_dict())
    foreign = {key for key in stored if key.endswith("relative_position_bias_table") and key not in expected}  # timm's filter stops there
    try:
        state = checkpoint_filter_fn({key: value for key, value in stored.items() if key not in foreign}, swin)
    except ValueError as error:
        raise WeightsError(f"{path} does not fit this backbone: {error}. Choose the backbone that the file was made for") from error
    state = {key: value.float() for key, value in state.items() if not key.startswith(("norm.", "head.", "fc_norm."))}
    missing, surplus = sorted(expected - set(state)), sorted(set(state) - expected | foreign)
    wrong = [f"{k}: {tuple(state[k].shape)} in the file" for k, v in swin.state_dict().items() if k in state and state[k].shape != v.shape]
    if missing or surplus or wrong:
        raise WeightsError(
            f"{path} does not fit this backbone: {len(missing)} missing {missing}; {len(surplus)} surplus {surplus}; "
            f"{len(wrong)} of another shape {wrong}. Choose the backbone that the file was made for"
        )
    swin.load_state_dict(state)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors or from a torch file (weights only; `model` or `state_dict` inside are unwrapped)."""
    try:
        if Path(path).suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"no weights file at {path}") from None
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise WeightsError(f"{path} is not a readable weights file (.safetensors or .pth): {error}") from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name; give a state dict, as such or under 'model' or 'state_dict'")
    return tensors
