"""The pretraining of the demo's backbone, in miniature, and the weights that the repository keeps."""

import dataclasses
import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from bench.data.synthetic.source import SOURCE_CLASSES, render_source_image
from bench.model.backbone import DEMO_BACKBONE, DEMO_WEIGHTS, SwinPyramid, load_weights
from bench.pretrain import check_kept, command_of, pretrain
from bench.pretrain.config import PretrainConfig, PretrainError
from bench.pretrain.source_set import SourceSet, render_source_set
from bench.pretrain.training import (
    MAX_BYTES,
    SourceClassifier,
    accuracy_as_stored,
    flip,
    normalised,
    pack_backbone,
    patch_labels,
    source_accuracy,
)
from bench.suites import load

REPOSITORY = Path(__file__).parent.parent
TINY = {"images": 40, "held_out": 40, "epochs": 1, "warmup_epochs": 0.5, "batch_size": 8, "threads": 1, "processes": 1}


def classifier() -> SourceClassifier:
    torch.manual_seed(0)
    return SourceClassifier(drop_path=0.0)


def swin_without_head() -> torch.nn.Module:
    swin = timm.create_model(DEMO_BACKBONE, num_classes=0)
    swin.norm, swin.head = torch.nn.Identity(), torch.nn.Identity()
    return swin


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A directory with the files of a tiny pretraining, and its manifest."""
    out = tmp_path_factory.mktemp("pretrain")
    return out, pretrain(out, **TINY)


@pytest.fixture(scope="module")
def manifest() -> dict:
    """The manifest that the repository keeps."""
    return json.loads(DEMO_WEIGHTS.with_suffix(".json").read_text(encoding="utf-8"))


def test_same_seed_gives_the_same_file_to_the_bit(tiny, tmp_path):
    random_state = torch.random.get_rng_state()
    again = pretrain(tmp_path, **TINY)
    assert again["sha256"] == tiny[1]["sha256"]
    assert again["source_sha256"] == tiny[1]["source_sha256"]
    assert again["source_accuracy"] == tiny[1]["source_accuracy"]
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert torch.get_num_threads() == 1


def test_another_seed_gives_other_images_and_weights(tiny, tmp_path):
    other = pretrain(tmp_path, **TINY, seed=1)
    assert other["sha256"] != tiny[1]["sha256"]
    assert other["source_sha256"] != tiny[1]["source_sha256"]


def test_pretraining_writes_weights_and_manifest_and_nothing_else(tiny):
    out, made = tiny
    assert sorted(path.name for path in out.iterdir()) == [f"{DEMO_BACKBONE}.json", f"{DEMO_BACKBONE}.safetensors"]
    assert json.loads((out / f"{DEMO_BACKBONE}.json").read_text(encoding="utf-8")) == made
    content = (out / made["file"]).read_bytes()
    assert made["sha256"] == hashlib.sha256(content).hexdigest()
    assert made["bytes"] == len(content)
    assert made["chance_accuracy"] == 1 / SOURCE_CLASSES


def test_pretrained_file_loads_into_the_backbone(tiny):
    load_weights(swin_without_head(), tiny[0] / tiny[1]["file"], SwinPyramid.translate)


@pytest.mark.slow
def test_images_do_not_depend_on_processes_or_on_how_many_are_rendered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.pretrain.source_set._RENDER_CHUNK", 25)
    alone = render_source_set(42, seed=3, split=0, processes=1)
    together = render_source_set(42, seed=3, split=0, processes=2)
    fewer = render_source_set(5, seed=3, split=0, processes=1)
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert all(np.array_equal(a[:5], b) for a, b in zip(alone, fewer, strict=True))
    assert alone.classes[:3].tolist() == [0, 1, 2]
    assert alone.classes[SOURCE_CLASSES] == 0


def test_every_image_has_the_class_and_the_object_of_its_labels():
    source = render_source_set(SOURCE_CLASSES + 2, seed=3, split=1, processes=1)
    for i in (0, 7, SOURCE_CLASSES + 1):
        image, mask = render_source_image(np.random.default_rng((3, 1, i)), int(source.classes[i]), 64)
        assert np.array_equal(source.images[i], image)
        assert source.shares[i, 2, 5] == pytest.approx(mask[16:24, 40:48].mean())
        assert source.shares[i].mean() == pytest.approx(mask.mean())


def test_held_out_images_are_not_training_images():
    train = render_source_set(8, seed=0, split=0, processes=1).images
    held_out = render_source_set(8, seed=0, split=1, processes=1).images
    assert not any(np.array_equal(a, b) for a in train for b in held_out)


def test_an_image_and_its_shares_are_mirrored_together():
    shares = torch.rand(64, 8, 8)
    pixels = shares.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].repeat(1, 3, 1, 1)
    flipped, flipped_shares = flip(pixels, shares, torch.Generator().manual_seed(0))
    assert torch.equal(flipped[:, 0, ::8, ::8], flipped_shares)
    mirrored = (flipped_shares == shares.flip(2)).all((1, 2))
    kept = (flipped_shares == shares).all((1, 2))
    assert (mirrored ^ kept).all()
    assert 16 < mirrored.sum() < 48


def test_a_patch_is_labelled_by_its_shares():
    labels = patch_labels(torch.tensor([2]), torch.tensor([[[0.25, 1.0, 0.0]]]))
    assert labels.shape == (1, SOURCE_CLASSES + 1, 1, 3)
    assert labels[0, 2, 0].tolist() == [0.25, 1.0, 0.0]
    assert labels[0, SOURCE_CLASSES, 0].tolist() == [0.75, 0.0, 1.0]
    assert labels.sum() == 3


def test_normalisation_is_that_of_imagenet():
    images = torch.tensor([[[[0, 0, 0], [255, 255, 255]]]], dtype=torch.uint8)
    expected = torch.tensor([[-0.485 / 0.229, 0.515 / 0.229], [-0.456 / 0.224, 0.544 / 0.224], [-0.406 / 0.225, 0.594 / 0.225]])
    assert torch.allclose(normalised(images)[0, :, 0], expected, atol=1e-6)


def test_source_accuracy_is_the_share_of_right_answers():
    class AlwaysThree(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            image = torch.nn.functional.one_hot(torch.full((len(x),), 3), 5).float()
            return image, image[:, :, None, None].repeat(1, 1, 1, 2)

    classes = np.array([3, 1, 3, 0, 2] * 60)
    shares = np.zeros((300, 1, 2), np.float32)
    shares[:2, 0, 0] = 0.9  # one patch of class 3 and one of class 1; the others hardly show their object
    shares[2:, 0, 0] = 0.5
    accuracy, patch_accuracy = source_accuracy(AlwaysThree(), SourceSet(np.zeros((300, 8, 8, 3), np.uint8), classes, shares))
    assert accuracy == pytest.approx(0.4)
    assert patch_accuracy == pytest.approx(0.5)


def test_packed_weights_are_the_backbone_rounded_to_half_precision():
    made = classifier()
    packed, swin = safetensors.torch.load(pack_backbone(made)), made.pyramid.swin
    assert set(packed) == set(swin.state_dict()) == set(swin_without_head().state_dict())
    assert all(value.dtype == torch.float16 and torch.equal(value, swin.state_dict()[key].half()) for key, value in packed.items())


def test_accuracy_is_that_of_the_stored_weights():
    made, source = classifier(), render_source_set(SOURCE_CLASSES, seed=0, split=1, processes=1)
    accuracy, _ = source_accuracy(made, source)
    packed = pack_backbone(made)
    stored = accuracy_as_stored(made, packed, source, trained_accuracy=accuracy)
    assert torch.equal(made.pyramid.swin.patch_embed.proj.weight, safetensors.torch.load(packed)["patch_embed.proj.weight"].float())
    assert stored == source_accuracy(made, source)
    with pytest.raises(PretrainError, match="float16 moved"):
        accuracy_as_stored(made, packed, source, trained_accuracy=stored[0] + 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"held_out": 0}, "held_out is 0"),
        ({"images": 10, "batch_size": 64}, "less than one batch"),
        ({"peak_lr": -1.0}, "above 0"),
        ({"epochs": 1, "warmup_epochs": 2}, "less than epochs"),
        ({"epoch": 3}, "unknown settings"),
        ({"images": 64, "processes": 0}, "processes is 0"),
    ],
)
def test_settings_out_of_range_are_refused_with_what_is_allowed(tmp_path, settings, message):
    with pytest.raises(PretrainError, match=message):
        pretrain(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_a_diverging_loss_leaves_no_file(tmp_path):
    with pytest.raises(PretrainError, match="lower peak_lr"):
        pretrain(tmp_path, **TINY | {"peak_lr": 1e30, "warmup_epochs": 0})
    assert not list(tmp_path.iterdir())


def test_command_names_what_differs_from_the_default():
    assert command_of(PretrainConfig()) == "python run_suite.py pretrain"
    assert command_of(PretrainConfig(seed=4, held_out=50)) == "python run_suite.py pretrain --seed 4 --held-out 50"


def test_the_doctor_looks_at_the_kept_weights(tmp_path):
    assert check_kept().status == "ok"
    assert check_kept(tmp_path).status == "fail"
    for file in (DEMO_WEIGHTS, DEMO_WEIGHTS.with_suffix(".json")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert check_kept(tmp_path).status == "ok"
    (tmp_path / DEMO_WEIGHTS.name).write_bytes(DEMO_WEIGHTS.read_bytes()[:-1])
    found = check_kept(tmp_path)
    assert (found.status, "manifest says" in found.message, "restore" in found.remedy) == ("fail", True, True)


def test_kept_weights_match_their_manifest(manifest):
    content = DEMO_WEIGHTS.read_bytes()
    assert manifest["backbone"] == DEMO_BACKBONE
    assert manifest["file"] == DEMO_WEIGHTS.name
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["bytes"] == len(content) <= MAX_BYTES
    assert manifest["source_classes"] == SOURCE_CLASSES
    assert manifest["source_accuracy"] > 2 * manifest["chance_accuracy"]


def test_kept_weights_fit_the_backbone_without_missing_or_surplus_key(manifest):
    swin = swin_without_head()
    load_weights(swin, DEMO_WEIGHTS, SwinPyramid.translate)
    assert manifest["parameters"] == sum(value.numel() for value in swin.state_dict().values())
    stored = safetensors.torch.load_file(DEMO_WEIGHTS)
    assert all(torch.isfinite(value).all() for value in stored.values())
    assert torch.equal(swin.patch_embed.proj.weight, stored["patch_embed.proj.weight"].float())


def test_command_of_the_kept_weights_exists_and_its_defaults_made_them(manifest):
    python, script, *arguments = shlex.split(manifest["command"])
    assert (python, script) == ("python", "run_suite.py")
    shown = subprocess.run([sys.executable, script, arguments[0], "-h"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert all(argument in shown for argument in arguments if argument.startswith("--"))
    assert command_of(PretrainConfig(**{key: manifest[key] for key in PretrainConfig.__dataclass_fields__})) == manifest["command"]


def test_pretraining_suite_compares_the_same_trials_from_two_starts():
    suite = load("pretraining")
    assert [(row.trials[0].method_name, row.trials[0].backbone.weights) for row in suite.rows] == [
        ("full", "demo"),
        ("full", "scratch"),
        ("frozen", "demo"),
        ("frozen", "scratch"),
    ]
    assert all([trial.seed for trial in row.trials] == [0, 1, 2] for row in suite.rows)
    demo = next(trial for trial in load("demo").trials if trial.method_name == "full" and len(trial.tasks) > 1)
    assert {trial.recipe for trial in suite.trials} == {dataclasses.replace(demo.recipe, epochs=8, peak_lr=1e-3)}
    assert {(trial.data, trial.decoder_channels) for trial in suite.trials} == {(demo.data, demo.decoder_channels)}
