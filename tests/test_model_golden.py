"""The whole network against the official release: every stage's shared and task features, every output, every trainable name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import golden_directory
from timm.models.swin_transformer import SwinTransformer

from bench.model.backbone import SwinPyramid
from bench.model.backbone.streams import hand_out
from bench.model.decoders import HighResolutionHead
from bench.model.multitask import MultiTaskModel
from bench.model.release import name_from_release
from bench.tasks import TASKS
from methods import METHODS

ORDER = {"semseg": "semseg", "normals": "normals", "saliency": "sal", "human_parts": "human_parts"}
CASES = {
    "full": ("full", {}),
    "mtlora": ("mtlora", {"rank": 3, "task_rank": 2}),
    "mtlora_plus": ("mtlora_plus", {"rank": 3, "task_rank": 2}),
}


def assert_close(actual: torch.Tensor, expected: np.ndarray) -> None:
    expected = torch.from_numpy(expected)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def state_of(case: str) -> dict[str, torch.Tensor]:
    """Merge all weight files of a case, under our names."""
    state = {}
    for path in sorted(golden_directory().glob(f"model_{case}_weights*.npz")):
        for key, value in np.load(path, allow_pickle=False).items():
            name = key.removeprefix("w/").removeprefix("b/")
            state[name_from_release(name.replace(".linear.", ".") if case == "full" else name)] = torch.from_numpy(value)
    return state


def build(case: str) -> MultiTaskModel:
    swin = SwinTransformer(img_size=64, embed_dim=4, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4), window_size=4, num_classes=0)
    backbone = SwinPyramid(swin, tuple(ORDER))
    decoders = torch.nn.ModuleDict({t: HighResolutionHead(backbone.channels, (2, 3, 4, 5), TASKS[t].channels) for t in ORDER})
    name, dials = CASES[case]
    METHODS[name].apply(backbone, METHODS[name].config(**dials))
    model = MultiTaskModel(backbone, decoders, frozenset()).eval()
    result = model.load_state_dict(state_of(case), strict=False)
    assert not result.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)
    return model


def case_of(file: Path) -> str:
    """Name the case of a file model_<case>_io.npz."""
    return file.stem.removeprefix("model_").removesuffix("_io")


@pytest.mark.golden("model_*_io.npz")
def test_whole_network_equals_the_release(golden_file: Path, monkeypatch: pytest.MonkeyPatch):
    case, golden = case_of(golden_file), dict(np.load(golden_file, allow_pickle=False))
    model = build(case)
    image = torch.from_numpy(golden["in/x"])
    before_resize, handed_out = {}, []

    def spy(streams: torch.Tensor, images: int, pyramids: list) -> torch.Tensor:
        handed_out.append(streams[:images])  # the shared stream goes first
        return hand_out(streams, images, pyramids)

    monkeypatch.setattr("bench.model.backbone.swin.hand_out", spy)
    for task, decoder in model.decoders.items():
        decoder.register_forward_hook(lambda module, inputs, output, task=task: before_resize.__setitem__(task, output))
    with torch.no_grad():
        pyramids = model.backbone(image)
        shared = list(handed_out)
        outputs = model(image)
    for stage, features in enumerate(shared):
        assert_close(features.flatten(1, 2), golden[f"stage/{stage}/shared"])
    assert len(shared) == 4
    compared = 0
    for task, theirs in ORDER.items():
        for stage, features in enumerate(pyramids[task]):
            expected = golden.get(f"stage/{stage}/{theirs}", golden[f"stage/{stage}/shared"] if case == "full" else None)
            assert_close(features.flatten(2).mT, expected)
            compared += 1
        assert_close(before_resize[task], golden[f"out/pre_resize/{theirs}"])
        assert_close(outputs[task][:, :, ::5, ::5], golden[f"out/stride5/{theirs}"])
        assert_close(outputs[task].mean((0, 2, 3)), golden[f"out/chan_mean/{theirs}"])
        assert_close(outputs[task].abs().sum((0, 2, 3)), golden[f"out/chan_abs_sum/{theirs}"])
    assert compared == 16


@pytest.mark.golden("model_*_io.npz")
def test_trainable_parameters_are_those_of_the_release(golden_file: Path):
    case, golden = case_of(golden_file), np.load(golden_file, allow_pickle=False)
    theirs = {name_from_release(str(name)) for name in golden["trainable_names"]}
    ours = {name for name, parameter in build(case).named_parameters() if parameter.requires_grad}
    assert ours == theirs
