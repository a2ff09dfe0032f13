"""Checkpoints in the release's format: read, rebuilt and evaluated as the same model under our own names."""

import argparse
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from test_cli import cli  # noqa: F401
from torch import Tensor

from bench.config import BackboneConfig, ConfigError, DataConfig, RecipeConfig, TrialConfig
from bench.data.feed import Feed
from bench.data.roots import open_split
from bench.data.store import FileStore
from bench.data.synthetic import SyntheticConfig, write_pascal_mt
from bench.evaluate import load_released
from bench.model.backbone import DEMO_BACKBONE, WeightsError
from bench.model.multitask import MultiTaskModel, build_model
from bench.model.release import name_from_release, read_released
from bench.training.loop import evaluate
from methods import METHODS

WINDOW = {"relative_position_index": (16, 16), "attn_mask": (4, 16, 16)}


def model_of(method: str, dials: dict, tasks: tuple[str, ...]) -> MultiTaskModel:
    """A model whose every parameter and statistic is away from its start."""
    model = build_model(
        TrialConfig(
            method_name=method,
            method=METHODS[method].config(**dials),
            tasks=tasks,
            data=DataConfig(source="pascal_context", fingerprint="none"),
            backbone=BackboneConfig(name=DEMO_BACKBONE, weights="scratch", drop_path=0.0),
            decoder_channels=(3, 4, 5, 6),
            recipe=RecipeConfig(image_size=64),
        )
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand(value.shape, generator=generator))
    return model.eval()


def release_name(name: str) -> str:
    """Our name as the release writes it, by hand: the inverse of `name_from_release`."""
    parts = [{"saliency": "sal", "edges": "edge"}.get(part, part) for part in name.split(".")]
    if parts[0] == "backbone":
        parts = ["backbone", *parts[2:]]
        if parts[3:4] == ["downsample"]:
            parts[2] = str(int(parts[2]) - 1)
        renamed = {"lora_A": "lora_shared_A", "lora_B": "lora_shared_B", "task_A": "lora_tasks_A", "task_B": "lora_tasks_B"}
        parts = [renamed.get(part, part) for part in parts]
        return ".".join("lora_norm" if part == "norm" and parts[i - 1] in ("proj", "fc1", "fc2") else part for i, part in enumerate(parts))
    if parts[2] == "narrow":
        return ".".join(["downsampler", parts[1], f"downsample_{parts[3]}", parts[4]])
    return ".".join(["decoders", "decoders", parts[1], "last_layer", *parts[3:]])


def checkpoint_of(model: MultiTaskModel) -> dict[str, Tensor]:
    state = {release_name(name): value for name, value in model.state_dict().items()}
    assert {name_from_release(name) for name in state} == set(model.state_dict())
    return state | {f"backbone.layers.0.blocks.1.{name}": torch.zeros(shape) for name, shape in WINDOW.items()}


CASES = {
    "mtlora": ("mtlora", {"rank": 3, "task_rank": 2}, ("semseg", "normals", "saliency", "human_parts")),
    "stages": ("mtlora", {"stage_ranks": (1, 2, 3, 4), "stage_task_ranks": (4, 3, 2, 1)}, ("normals", "saliency")),
    "ranks": ("mtlora", {"rank": 2, "task_ranks": {"normals": 3, "saliency": (1, 2, 3, 4)}}, ("normals", "saliency")),
    "no qkv": ("mtlora", {"rank": 2, "layers": ("proj", "fc1", "fc2")}, ("semseg", "edges")),
    "addition": ("mtlora", {"rank": 2, "mode": "addition"}, ("semseg", "normals")),
    "lora_only": ("mtlora", {"rank": 2, "mode": "lora_only"}, ("semseg", "normals")),
    "plus": ("mtlora_plus", {"rank": 4, "task_rank": 4}, ("semseg", "saliency")),
    "full": ("full", {}, ("semseg", "saliency", "human_parts")),
}


def plain(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """The state dict without low-rank pairs in layers whose names match: the release leaves such layers plain."""
    off = {name.partition(".lora_")[0] for name in state if ".lora_" in name and re.search(where, name)}
    kept = {name: value for name, value in state.items() if not (name.partition(".lora_")[0] in off and ".lora_" in name)}
    return {name.replace(".linear.", ".") if name.partition(".linear.")[0] in off else name: value for name, value in kept.items()}


@pytest.mark.parametrize("off", [r"\.mlp\.fc1\.", r"layers\.0\.blocks", r"layers\.2\.blocks"])
def test_layers_and_stages_that_the_release_leaves_plain_load(off: str, tmp_path: Path):
    model, file = model_of("mtlora", {"rank": 2, "task_rank": 3}, ("semseg", "normals")), tmp_path / "ckpt.pth"
    torch.save({"model": plain(checkpoint_of(model), off)}, file)
    loaded = load_released(file, backbone=DEMO_BACKBONE, image_size=64).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            ours = name.replace("backbone.swin.", "backbone.").replace("downsample", "")
            if re.search(off, ours) and re.search(r"\.(lora|task)_B", name):
                value.zero_()  # a pair with B = 0 computes what a plain layer does
        image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
        expected, actual = model(image), loaded(image)
    for task in model.tasks:
        torch.testing.assert_close(actual[task], expected[task])


def test_dead_pairs_of_earlier_blocks_are_left_out(tmp_path: Path):
    model, file = model_of("mtlora", {"rank": 2, "task_rank": 3}, ("semseg", "normals")), tmp_path / "ckpt.pth"
    state = checkpoint_of(model)
    dead = {f"backbone.layers.2.blocks.1.mlp.fc1.lora_tasks_{m}.{t}": torch.ones(3, 3) for m in "AB" for t in ("semseg", "normals")}
    torch.save({"model": state | dead}, file)
    loaded = load_released(file, backbone=DEMO_BACKBONE, image_size=64)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("kind", ["proj", "fc2"])
def test_switches_that_the_release_gets_wrong_are_refused(kind: str, tmp_path: Path):
    file = tmp_path / "ckpt.pth"
    torch.save({"model": plain(checkpoint_of(model_of("mtlora", {"rank": 2}, ("semseg",))), rf"\.{kind}\.")}, file)
    with pytest.raises(WeightsError, match=f"task pairs but none in {kind}"):
        read_released(file)


@pytest.mark.parametrize("case", CASES)
def test_a_released_checkpoint_gives_the_same_outputs(case: str, tmp_path: Path):
    model, file = model_of(*CASES[case]), tmp_path / "ckpt_epoch_299.pth"
    torch.save({"model": checkpoint_of(model), "epoch": 299}, file)
    released, loaded = read_released(file), load_released(file, backbone=DEMO_BACKBONE, image_size=64).eval()
    assert released.method == CASES[case][0]
    assert set(released.tasks) == set(CASES[case][2])
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, actual = model(image), loaded(image)
    for task in model.tasks:
        torch.testing.assert_close(actual[task], expected[task])


def test_what_a_checkpoint_does_not_hold_can_be_given(tmp_path: Path):
    file = tmp_path / "c.pth"
    torch.save(checkpoint_of(model_of("mtlora", {"rank": 3, "scale": 2.0, "mode": "matrixv2"}, ("semseg", "normals"))), file)
    model = load_released(file, backbone=DEMO_BACKBONE, image_size=64, scale=2.0, mode="matrixv2")
    assert model.backbone.swin.layers[0].blocks[1].mlp.fc1.mode == "matrixv2"
    assert model.backbone.swin.layers[0].blocks[0].mlp.fc1.scale == 2.0


def test_trained_scales_of_shared_pairs_are_read_and_those_of_tasks_stay_as_given(tmp_path: Path):
    model, file = model_of("mtlora_plus", {"rank": 3, "scale": 2.0}, ("semseg", "normals")), tmp_path / "c.pth"
    state, generator = checkpoint_of(model), torch.Generator().manual_seed(5)
    trained = {
        name.replace("lora_shared_A", "lora_shared_scale"): torch.rand(1, generator=generator) + 0.5 for name in state if "shared_A" in name
    }
    torch.save({"model": state | trained}, file)
    loaded = load_released(file, backbone=DEMO_BACKBONE, image_size=64, scale=2.0).eval()
    for name, module in model.named_modules():
        if getattr(module, "lora_B", None) is not None:  # the closed form: s B A = 2 (s / 2 B) A
            own = trained[f"{release_name(name + '.lora_A').removesuffix('.lora_shared_A')}.lora_shared_scale"]
            module.lora_B.data.mul_(own / 2.0)
    image = torch.randn(2, 3, 64, 64, generator=generator).double()  # the order of the products differs
    with torch.no_grad():
        expected, actual = model.double()(image), loaded.double()(image)
    for task in model.tasks:
        torch.testing.assert_close(actual[task], expected[task])


class CfgNode(dict):
    """What the release stores as `config` is of a class of this name and shape."""

    def __init__(self, values: dict, new_allowed: bool) -> None:
        super().__init__(values)
        self.__dict__["__new_allowed__"] = new_allowed


class Trap:
    def __reduce__(self) -> tuple:
        return shutil.copy, (__file__, os.environ["TRAP"])


def test_the_whole_file_that_the_release_writes_is_read_and_none_of_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trap, model = tmp_path / "sprung", model_of("mtlora", {"rank": 3}, ("semseg", "normals"))
    monkeypatch.setenv("TRAP", str(trap))
    state = {f"module.{name}": value for name, value in checkpoint_of(model).items()}
    config = CfgNode({"MODEL": CfgNode({"TYPE": "swin"}, False), "TAG": "default"}, True)
    everything = {"model": state, "optimizer": {}, "max_accuracy": 0.0, "config": config, "args": argparse.Namespace(cfg="x"), "epoch": 1}
    torch.save(everything | {"path": tmp_path, "trap": Trap()}, tmp_path / "ckpt.pth")
    loaded = load_released(tmp_path / "ckpt.pth", backbone=DEMO_BACKBONE, image_size=64)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert not trap.exists()


def test_a_dial_that_is_not_allowed_is_refused(tmp_path: Path):
    torch.save(checkpoint_of(model_of("mtlora", {"rank": 3}, ("semseg",))), tmp_path / "c.pth")
    with pytest.raises(ConfigError, match=r"mode: unknown value.*allowed: matrix, matrixv2"):
        load_released(tmp_path / "c.pth", backbone=DEMO_BACKBONE, image_size=64, mode="foo")


def test_a_file_that_is_no_released_model_is_refused(tmp_path: Path):
    file = tmp_path / "c.pth"
    state = checkpoint_of(model_of("mtlora", {"rank": 3}, ("semseg", "normals")))
    torch.save({name: value for name, value in state.items() if name.startswith("backbone.")}, file)
    with pytest.raises(WeightsError, match="no whole model of the MTLoRA release"):
        read_released(file)
    torch.save(state, file)
    with pytest.raises(WeightsError, match=r"of another shape.*Check --backbone and --img-size"):
        load_released(file, backbone="swin_tiny_patch4_window7_224", image_size=64)
    del state["backbone.layers.1.blocks.0.norm1.weight"]
    torch.save(state, file)
    with pytest.raises(WeightsError, match=r"1 missing \['backbone.swin.layers.1.blocks.0.norm1.weight'\]"):
        load_released(file, backbone=DEMO_BACKBONE, image_size=64)


def test_the_command_line_evaluates_it_on_the_validation_split(cli, tmp_path: Path):  # noqa: F811
    root, file = tmp_path / "PASCAL_MT", tmp_path / "c.pth"
    write_pascal_mt(root, SyntheticConfig(n_train=2, n_val=5, size=64, seed=3))
    model = model_of(*CASES["mtlora"])
    torch.save({"model": checkpoint_of(model)}, file)
    code, out, _ = cli("evaluate", "--weights", str(file), "--data-root", str(root), "--backbone", DEMO_BACKBONE, "--img-size", "64")
    result = json.loads(out)
    feed = Feed(FileStore(open_split(root, "val", model.tasks)), 5, image_size=64, mode="files")
    expected, _ = evaluate(model, feed(), torch.device("cpu"))
    assert code == 0
    assert result["n_val"] == 5
    assert result["metrics"] == expected
