"""Panels: the same few images for every trial, encoded as documented, written once."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from bench.data.pascal_context import PascalContext
from bench.data.shown import is_labelled, shown_ids
from bench.data.synthetic import SyntheticConfig, write_pascal_mt
from bench.measure.panels import MAX_SIDE, Panels, kind_of

IDS = [f"image{i}" for i in range(10)]
CHOSEN = IDS[1::3] + IDS[9:]


def made_batch(size: int = 8) -> tuple[dict, dict]:
    """A batch of ten images with labels and logits of four kinds of tasks."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(10, 3, size, size, generator=generator), dim=1)
    batch = {"id": IDS, "image": torch.zeros(10, 3, size, size)}
    batch["semseg"] = torch.randint(0, 21, (10, size, size), generator=generator, dtype=torch.uint8)
    batch["saliency"] = torch.randint(0, 2, (10, size, size), generator=generator, dtype=torch.uint8)
    batch["normals"] = normals.clone()
    batch["semseg"][:, 0, 0] = batch["saliency"][:, 0, 0] = 255
    batch["normals"][:, :, 0, 0] = 255
    batch["depth"] = 5 * torch.rand(10, 1, size, size, generator=generator)
    batch["depth"][:, :, 0, 0] = 0
    outputs = {"semseg": torch.randn(10, 21, size, size, generator=generator), "normals": 3 * normals}
    outputs |= {"saliency": torch.full((10, 1, size, size), 0.0), "depth": torch.full((10, 1, size, size), 4.0)}
    return batch, outputs


def stored(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered data set, in which few images show people."""
    root = tmp_path_factory.mktemp("data") / "PASCAL_MT"
    write_pascal_mt(root, SyntheticConfig(n_train=2, n_val=48, size=32, seed=5))
    return root


def test_the_images_have_labels_of_every_task_where_their_part_of_the_split_holds_one(tree: Path):
    split = PascalContext(tree, "val")
    complete = [name for i, name in enumerate(split.ids) if all(is_labelled(split[i], task) for task in split.tasks)]
    parts = [split.ids[12 * i : 12 * (i + 1)] for i in range(4)]
    chosen = shown_ids(tree, split.ids)
    assert all(name in part for name, part in zip(chosen, parts, strict=True))
    for name, part in zip(chosen, parts, strict=True):
        assert name in complete or not set(part) & set(complete)
    assert len(set(chosen) & set(complete)) >= 3
    assert shown_ids(tree, split.ids[:1]) == tuple(split.ids[:1])


def test_the_choice_needs_no_files_of_a_task_that_the_data_set_lacks(tree: Path, tmp_path: Path):
    poorer = tmp_path / "poorer"
    shutil.copytree(tree, poorer)
    shutil.rmtree(poorer / "human_parts")
    split = PascalContext(poorer, "val", ("normals",))
    chosen = shown_ids(poorer, split.ids)
    assert all(is_labelled(split[split.ids.index(name)], "normals") for name in chosen)


def test_predictions_and_labels_are_encoded_as_documented(tmp_path: Path):
    batch, outputs = made_batch()
    panels = Panels(CHOSEN)
    panels.update(batch, outputs)
    assert panels.write(tmp_path, "run", "da7a") == "run.panels.npz"
    own = stored(tmp_path / "run.panels.npz")
    chosen = [IDS.index(name) for name in own["id"]]
    assert len(chosen) == 4
    assert {task: str(own[f"{task}/kind"]) for task in outputs} == {
        "semseg": "classes", "saliency": "binary", "normals": "normals", "depth": "depth",
    }  # fmt: skip
    np.testing.assert_array_equal(own["semseg/prediction"], outputs["semseg"][chosen].argmax(dim=1).numpy())
    assert (own["saliency/prediction"] == 128).all()
    assert (own["depth/prediction"] == 100).all()
    vectors = own["normals/prediction"] / 127.5 - 1
    np.testing.assert_allclose(vectors, (outputs["normals"][chosen] / 3).permute(0, 2, 3, 1), atol=1 / 255)
    labels = {what: stored(tmp_path / f"{own['scenes']}-{what}.npz") for what in ("image", *outputs)}
    assert all(list(scene["id"]) == list(own["id"]) for scene in labels.values())
    np.testing.assert_array_equal(labels["semseg"]["map"], batch["semseg"][chosen].numpy())
    assert (labels["normals"]["map"][:, 0, 0] == 0).all()
    assert (labels["depth"]["map"][:, 0, 0] == 0).all()
    grey = np.round(255 * np.array(IMAGENET_DEFAULT_MEAN))
    np.testing.assert_array_equal(labels["image"]["map"], np.broadcast_to(grey, (4, 8, 8, 3)))
    assert all(array.dtype == np.uint8 for key, array in own.items() if key.endswith("prediction"))


def test_a_bright_pixel_is_bright_whatever_the_batch_that_brought_it(tmp_path: Path):
    batch, outputs = made_batch()
    batch["image"] += (1 - torch.tensor(IMAGENET_DEFAULT_MEAN)[:, None, None]) / torch.tensor(IMAGENET_DEFAULT_STD)[:, None, None]
    panels = Panels(CHOSEN)
    for part in (slice(0, 3), slice(3, 10)):
        panels.update({key: value[part] for key, value in batch.items()}, {key: value[part] for key, value in outputs.items()})
    panels.write(tmp_path, "run", "da7a")
    own = stored(tmp_path / "run.panels.npz")
    assert list(own["id"]) == list(panels.ids)
    assert (stored(tmp_path / f"{own['scenes']}-image.npz")["map"] == 255).all()


def test_two_trials_share_the_scenes_and_other_data_has_its_own(tmp_path: Path):
    batch, outputs = made_batch()
    for run_id, fingerprint in (("one", "da7a"), ("two", "da7a"), ("three", "07e2")):
        panels = Panels(CHOSEN)
        panels.update(batch, outputs)
        panels.write(tmp_path, run_id, fingerprint)
    assert len(list(tmp_path.glob("*.panels.npz"))) == 3
    assert len(list(tmp_path.glob("scenes-*-image.npz"))) == 2


@pytest.mark.parametrize(("size", "kept"), [(64, 64), (224, 224), (448, 224), (512, 171)])
def test_no_side_is_longer_than_the_limit(tmp_path: Path, size: int, kept: int):
    batch = {"id": ["a"], "image": torch.zeros(1, 3, size, size), "saliency": torch.zeros(1, size, size, dtype=torch.uint8)}
    panels = Panels(["a"])
    panels.update(batch, {"saliency": torch.zeros(1, 1, size, size)})
    panels.write(tmp_path, "run", "f")
    own = stored(tmp_path / "run.panels.npz")
    assert own["saliency/prediction"].shape == (1, kept, kept)
    assert stored(tmp_path / f"{own['scenes']}-image.npz")["map"].shape == (1, kept, kept, 3)
    assert kept <= MAX_SIDE


def test_the_kind_is_told_from_the_shapes():
    logits = torch.zeros(1, 1, 2, 2)
    assert kind_of(logits, torch.zeros(1, 2, 2)) == "binary"
    assert kind_of(torch.zeros(1, 5, 2, 2), torch.zeros(1, 2, 2)) == "classes"
    assert kind_of(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)) == "normals"
    assert kind_of(logits, torch.zeros(1, 1, 2, 2)) == "depth"
