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
from bench.model.backbone import DEMO_BACKBONE, DEMO_WEIGHTS, load_weights
from bench.pretrain import (
    MAX_BYTES,
    PretrainConfig,
    PretrainError,
    accuracy_as_stored,
    augment,
    command_of,
    normalised,
    pack_backbone,
    pretrain,
    render_source_set,
    source_accuracy,
)
from bench.suites import load

REPOSITORY = Path(__file__).parent.parent
TINY = {"images": 40, "held_out": 40, "epochs": 1, "warmup_epochs": 0.5, "batch_size": 8, "threads": 1, "processes": 1}


def classifier() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(DEMO_BACKBONE, num_classes=SOURCE_CLASSES)


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
    load_weights(swin_without_head(), tiny[0] / tiny[1]["file"])


@pytest.mark.slow
def test_images_do_not_depend_on_processes_or_on_how_many_are_rendered():
    alone, labels = render_source_set(260, seed=3, split=0, processes=1)
    together, _ = render_source_set(260, seed=3, split=0, processes=2)
    fewer, _ = render_source_set(5, seed=3, split=0, processes=1)
    assert np.array_equal(alone, together)
    assert np.array_equal(alone[:5], fewer)
    assert labels[:3].tolist() == [0, 1, 2]
    assert labels[SOURCE_CLASSES] == 0


def test_every_image_has_the_class_of_its_label():
    images, labels = render_source_set(SOURCE_CLASSES + 2, seed=3, split=1, processes=1)
    for i in (0, 7, SOURCE_CLASSES + 1):
        assert np.array_equal(images[i], render_source_image(np.random.default_rng((3, 1, i)), int(labels[i]), 64))


def test_held_out_images_are_not_training_images():
    train, _ = render_source_set(8, seed=0, split=0, processes=1)
    held_out, _ = render_source_set(8, seed=0, split=1, processes=1)
    assert not any(np.array_equal(a, b) for a in train for b in held_out)


def test_augmentation_keeps_the_shape_and_stays_in_the_range_of_real_pixels():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8))
    augmented = augment(images, torch.Generator().manual_seed(0))
    low, high = normalised(torch.zeros(1, 3, 1, 1)), normalised(torch.ones(1, 3, 1, 1))
    assert augmented.shape == (6, 3, 64, 64)
    assert augmented.dtype == torch.float32
    assert (augmented >= low - 1e-5).all()
    assert (augmented <= high + 1e-5).all()
    assert torch.equal(augmented, augment(images, torch.Generator().manual_seed(0)))
    assert not torch.equal(augmented, augment(images, torch.Generator().manual_seed(1)))


def test_normalisation_is_that_of_imagenet():
    x = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    assert torch.allclose(normalised(x), torch.zeros(1, 3, 1, 1), atol=1e-6)
    assert torch.allclose(normalised(x + torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)), torch.ones(1, 3, 1, 1), atol=1e-5)


def test_source_accuracy_is_the_share_of_right_answers():
    class AlwaysThree(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.full((len(x),), 3), 5).float()

    labels = np.array([3, 1, 3, 0, 2] * 60)
    assert source_accuracy(AlwaysThree(), np.zeros((300, 8, 8, 3), np.uint8), labels) == pytest.approx(0.4)


def test_packed_weights_are_the_backbone_rounded_to_half_precision():
    swin = classifier()
    packed = safetensors.torch.load(pack_backbone(swin))
    assert set(packed) == {key for key in swin.state_dict() if not key.startswith(("norm.", "head."))}
    assert all(value.dtype == torch.float16 and torch.equal(value, swin.state_dict()[key].half()) for key, value in packed.items())


def test_accuracy_is_that_of_the_stored_weights():
    swin = classifier()
    images, labels = render_source_set(SOURCE_CLASSES, seed=0, split=1, processes=1)
    accuracy = source_accuracy(swin, images, labels)
    packed = pack_backbone(swin)
    stored = accuracy_as_stored(swin, packed, images, labels, trained_accuracy=accuracy)
    assert torch.equal(swin.patch_embed.proj.weight, safetensors.torch.load(packed)["patch_embed.proj.weight"].float())
    assert stored == source_accuracy(swin, images, labels)
    with pytest.raises(PretrainError, match="float16 moved"):
        accuracy_as_stored(swin, packed, images, labels, trained_accuracy=stored + 0.5)


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
    load_weights(swin, DEMO_WEIGHTS)
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
    assert {trial.recipe for trial in suite.trials} == {dataclasses.replace(demo.recipe, epochs=32, warmup_epochs=1)}
    assert {(trial.data, trial.decoder_channels) for trial in suite.trials} == {(demo.data, demo.decoder_channels)}
