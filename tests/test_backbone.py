"""The pyramid against timm's own stages, weights in every layout, streams, and the decoders against a functional version."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, interpolate, relu

from bench.model.backbone import (
    DEMO_BACKBONE,
    SwinPyramid,
    WeightsError,
    add_streams,
    build_backbone,
    load_weights,
    repeat_streams,
    task_stream,
)
from bench.model.decoders import HighResolutionHead
from bench.tasks import TASK_NAMES, TASKS

TINY = "swin_tiny_patch4_window7_224"


def backbone(name: str = DEMO_BACKBONE, *, image_size: int = 64, weights: str = "scratch", file: Path | None = None) -> SwinPyramid:
    tasks = ("semseg", "normals")
    return build_backbone(name, image_size=image_size, tasks=tasks, drop_path=0.1, weights=weights, weights_file=file).eval()


def classifier(image_size: int = 64) -> timm.models.SwinTransformer:
    """A whole timm model, with norm and head, whose tensors are all random: also those that start at zero or one."""
    torch.manual_seed(0)
    swin = timm.create_model(DEMO_BACKBONE, img_size=image_size, num_classes=10)
    with torch.no_grad():
        for parameter in swin.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return swin.eval()


def pyramid_of_timm(swin: timm.models.SwinTransformer, image: Tensor) -> list[Tensor]:
    """timm's features at the end of each stage, merged by the next stage's first module."""
    stages = swin.forward_intermediates(image, indices=4, intermediates_only=True)
    merged = [swin.layers[i + 1].downsample(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for i, x in enumerate(stages[:3])]
    return [*merged, stages[3]]


def microsofts_layout(swin: timm.models.SwinTransformer) -> dict[str, Tensor]:
    """Rename a timm state dict as Microsoft's checkpoints name theirs, with their buffers."""
    state = {}
    for name, value in swin.state_dict().items():
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
        state[name.replace("head.fc.", "head.")] = value
    for name, block in swin.named_modules():
        if hasattr(block, "attn") and hasattr(block, "norm1"):
            state[f"{name}.attn.relative_position_index"] = block.attn.relative_position_index
            if block.attn_mask is not None:
                state[f"{name}.attn_mask"] = block.attn_mask
    return state


@torch.no_grad()
def test_stochastic_depth_is_drawn_in_training_as_timms_own_stages_draw_it():
    swin = timm.create_model(DEMO_BACKBONE, drop_path_rate=0.6, num_classes=0).train()
    pyramid, image = SwinPyramid(swin, ("semseg",)), torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    ours = pyramid(image)["semseg"][-1]
    torch.manual_seed(0)
    x = swin.patch_embed(image)
    for stage in swin.layers:
        x = stage(x)
    torch.testing.assert_close(ours, x.permute(0, 3, 1, 2))
    assert not torch.allclose(ours, pyramid.eval()(image)["semseg"][-1])


@pytest.mark.parametrize("image_size", [64, 96, 72], ids=["divisible", "other_size", "padded_windows"])
def test_pyramid_equals_timms_stages(image_size: int):
    swin, image = classifier(image_size), torch.randn(2, 3, image_size, image_size)
    with torch.no_grad():
        expected = pyramid_of_timm(swin, image)
        pyramids = SwinPyramid(swin, ("semseg", "normals"))(image)
    assert list(pyramids) == ["semseg", "normals"]
    for maps in pyramids.values():
        for actual, wanted in zip(maps, expected, strict=True):
            torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize(("image_size", "sides"), [(224, (28, 14, 7, 7)), (448, (56, 28, 14, 14))])
def test_swin_tiny_has_the_channels_and_strides_of_the_release(image_size: int, sides: tuple[int, ...]):
    with torch.device("meta"):
        model = backbone(TINY, image_size=image_size)
        maps = model(torch.empty(1, 3, image_size, image_size))["semseg"]
    assert model.channels == [192, 384, 768, 768]
    assert [tuple(x.shape) for x in maps] == [(1, c, s, s) for c, s in zip(model.channels, sides, strict=True)]
    assert any(model.swin.layers[3].blocks[1].shift_size) == (image_size == 448)


def test_backbone_has_neither_final_norm_nor_classifier():
    names = {name for name, _ in backbone().named_parameters()}
    assert not {name for name in names if name.startswith(("swin.norm.", "swin.head."))}


def test_stochastic_depth_rises_linearly_to_drop_path():
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for stage in backbone().swin.layers for block in stage.blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.1, 12))


@pytest.mark.parametrize("layout", ["timm", "timm_without_head", "microsoft"])
@pytest.mark.parametrize("container", ["safetensors", "pth", "pth_model", "pth_state_dict"])
def test_weights_of_every_layout_give_the_same_features(tmp_path: Path, layout: str, container: str):
    swin, image = classifier(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = pyramid_of_timm(swin, image)
    state = microsofts_layout(swin) if layout == "microsoft" else swin.state_dict()
    if layout == "timm_without_head":
        state = {name: value for name, value in state.items() if not name.startswith(("norm.", "head."))}
    if container == "safetensors":
        file = tmp_path / "weights.safetensors"
        safetensors.torch.save_file({name: value.clone() for name, value in state.items()}, file)
    else:
        file, _, wrapper = tmp_path / "weights.pth", *container.partition("_")[1:]
        torch.save({wrapper: state, "epoch": 7} if wrapper else state, file)
    with torch.no_grad():
        actual = backbone(weights="sha256:0", file=file)(image)["semseg"]
    for mine, wanted in zip(actual, expected, strict=True):
        assert torch.equal(mine, wanted)


@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple sequence")  # timm's, where it resizes a table
def test_weights_fit_another_image_size_and_window(tmp_path: Path):
    file = tmp_path / "weights.pth"
    state = classifier(64).state_dict()
    name = "layers.3.blocks.0.attn.relative_position_bias_table"  # 3 * 3 places for the window of 2 at 64 px, 7 * 7 at 128 px
    state[name] = torch.arange(8.0).expand(9, 8).clone()
    torch.save(state, file)
    model = backbone(image_size=128, weights="sha256:0", file=file)
    torch.testing.assert_close(model.swin.state_dict()[name], torch.arange(8.0).expand(49, 8))


def edited(change: Callable[[dict[str, Tensor]], object], tmp_path: Path) -> Path:
    state = classifier().state_dict()
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.mark.parametrize(
    ("change", "kind", "name"),
    [
        (lambda s: s.pop("layers.0.blocks.1.mlp.fc1.bias"), "1 missing", "layers.0.blocks.1.mlp.fc1.bias"),
        (lambda s: s.update({"layers.0.blocks.1.mlp.extra": torch.zeros(3)}), "1 surplus", "layers.0.blocks.1.mlp.extra"),
        (
            lambda s: s.update({"layers.2.blocks.6.attn.relative_position_bias_table": torch.zeros(49, 4)}),
            "1 surplus",
            "layers.2.blocks.6.attn.relative_position_bias_table",
        ),
        (
            lambda s: s.update({"layers.0.blocks.1.mlp.fc1.weight": torch.zeros(5, 7)}),
            "1 of another shape",
            "layers.0.blocks.1.mlp.fc1.weight: (5, 7)",
        ),
        (
            lambda s: s.update({"layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(49, 9)}),
            "1 of another shape",
            "relative_position_bias_table: (49, 9)",
        ),
        (lambda s: s.update({"layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(48, 1)}), "", "size 48"),
    ],
    ids=["missing", "surplus", "surplus_block", "misshaped", "misshaped_table", "no_square_table"],
)
def test_weights_that_do_not_fit_are_listed(tmp_path: Path, change: Callable, kind: str, name: str):
    with pytest.raises(WeightsError) as error:
        load_weights(backbone().swin, edited(change, tmp_path), SwinPyramid.translate)
    assert kind in str(error.value)
    assert name in str(error.value)
    assert "Choose the backbone" in str(error.value)


def test_unreadable_weights_are_a_clear_error(tmp_path: Path):
    for file in (tmp_path / "damaged.pth", tmp_path / "damaged.safetensors"):
        file.write_bytes(b"no weights at all")
        with pytest.raises(WeightsError, match="not a readable weights file"):
            load_weights(backbone().swin, file, SwinPyramid.translate)
    with pytest.raises(WeightsError, match="no weights file at"):
        load_weights(backbone().swin, tmp_path / "absent.safetensors", SwinPyramid.translate)
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        load_weights(backbone().swin, tmp_path / "tensor.pth", SwinPyramid.translate)


def test_weights_by_hash_ask_for_their_file():
    with pytest.raises(WeightsError, match="--weights FILE"):
        backbone(weights="sha256:0123")
    with pytest.raises(ValueError, match="allowed: timm, demo, scratch"):
        backbone(weights="imagenet")


@pytest.mark.parametrize("name", ["swin_tiny_patch4_windw7_224", "swin_tiny_patch4_window7"])
def test_an_unknown_backbone_is_answered_with_near_names(name: str):
    with pytest.raises(ValueError, match=r"near: .*swin_tiny_patch4_window7_224"):
        backbone(name)


def test_a_backbone_of_no_supported_family_is_an_error():
    with pytest.raises(ValueError, match="'resnet18' is none of the suite's: timm's SwinTransformer, SwinTransformerV2, VisionTransformer"):
        backbone("resnet18")


def test_a_backbone_may_name_one_of_timms_weights():
    with torch.device("meta"):
        assert backbone(f"{TINY}.ms_in22k", image_size=224).channels == [192, 384, 768, 768]


def test_each_task_takes_its_own_stream():
    assert [task_stream(t, 1, 3) for t in range(3)] == [0, 0, 0]
    assert [task_stream(t, 3, 3) for t in range(3)] == [0, 1, 2]
    assert [task_stream(t, 4, 3) for t in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="2 streams for 3 tasks; a method may use 1, 3 or 4"):
        task_stream(0, 2, 3)


def test_adding_streams_gives_one_stream_to_all():
    one, three = torch.randn(2, 5), torch.randn(6, 5)  # a batch of 2; streams stand one behind the other
    expected = three.view(3, 2, 5) + one
    assert torch.equal(add_streams(one, three).view(3, 2, 5), expected)
    assert torch.equal(add_streams(three, one).view(3, 2, 5), expected)
    assert torch.equal(add_streams(three, three), 2 * three)
    assert torch.equal(repeat_streams(one, 6), torch.cat([one, one, one]))


class Marked(torch.nn.Module):
    """Stand for a method: turn one stream into `streams` after the MLP, stream s with s * (0, 1, 2, ...) added to its channels."""

    def __init__(self, mlp: torch.nn.Module, streams: int) -> None:
        super().__init__()
        self.mlp, self.streams = mlp, streams

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(x)
        return torch.cat([y + s * torch.arange(y.shape[-1]) for s in range(self.streams)])


@pytest.mark.parametrize("streams", [2, 3])
def test_streams_part_at_the_end_of_a_stage(streams: int):
    model, image = backbone(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = model(image)["semseg"]
        block = model.swin.layers[3].blocks[1]
        block.mlp = Marked(block.mlp, streams)
        pyramids = model(image)
        for t, maps in enumerate(pyramids.values()):
            for i in range(3):
                assert torch.equal(maps[i], plain[i])
            torch.testing.assert_close(maps[3], plain[3] + (t + streams - 2) * torch.arange(192).view(-1, 1, 1))


@pytest.mark.parametrize(("streams", "shared"), [(3, True), (2, False)], ids=["shared_and_tasks", "tasks"])
def test_only_the_shared_stream_or_all_task_streams_go_on(streams: int, shared: bool):
    model, image = backbone(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = model(image)["semseg"]
        model.swin.layers[0].blocks[1].mlp = Marked(model.swin.layers[0].blocks[1].mlp, streams)
        pyramids = model(image)
    later = {task: torch.allclose(maps[3], plain[3], atol=1e-5) for task, maps in pyramids.items()}
    assert later == {"semseg": True, "normals": shared}  # stream 0 is unmarked


def functional_head(head: HighResolutionHead, pyramid: list[Tensor], size: int) -> Tensor:
    """The release's head in evaluation, written down as functions."""
    w = dict(head.state_dict())
    narrow = [conv2d(x, w[f"narrow.{i}.weight"]) for i, x in enumerate(pyramid)]
    x = torch.cat([interpolate(m, (size, size), mode="bilinear", align_corners=False) for m in narrow], 1)
    x = conv2d(x, w["head.0.weight"], w["head.0.bias"])
    x = batch_norm(x, w["head.1.running_mean"], w["head.1.running_var"], w["head.1.weight"], w["head.1.bias"], eps=1e-5)
    return conv2d(relu(x), w["head.3.weight"], w["head.3.bias"])


def test_decoder_equals_its_functional_version():
    torch.manual_seed(0)
    channels, sides = [48, 96, 192, 192], (8, 4, 2, 2)
    head = HighResolutionHead(channels, (9, 18, 36, 72), 21)
    pyramid = [torch.randn(2, c, s, s) for c, s in zip(channels, sides, strict=True)]
    head(pyramid)  # moves the running statistics away from 0 and 1
    with torch.no_grad():
        torch.testing.assert_close(head.eval()(pyramid), functional_head(head, pyramid, 8))


def test_decoders_of_swin_tiny_have_the_published_number_of_parameters():
    heads = [HighResolutionHead([192, 384, 768, 768], (18, 36, 72, 144), TASKS[task].channels) for task in TASK_NAMES]
    counts = [sum(p.numel() for p in head.parameters()) for head in heads]
    assert counts == [183_168 + 294_840 + 1_081 * TASKS[task].channels for task in TASK_NAMES]
    assert sum(counts) == 1_946_624


def test_decoder_widths_must_be_one_a_map():
    with pytest.raises(ValueError, match="decoder_channels needs 4 values"):
        HighResolutionHead([48, 96, 192, 192], (9, 18, 36), 21)
