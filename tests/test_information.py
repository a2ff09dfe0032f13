"""The doctor warns of labels that are read without an error and teach nothing, and of no others."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from nyud_tree import write_nyud_tree
from pascal_tree import SIZES, SPLITS, write_tree
from PIL import Image

from bench.data.doctor_tree import check_data_root
from bench.data.synthetic import SyntheticConfig, write_pascal_mt


def warned(root: Path) -> dict[str, str]:
    found = [f for f in check_data_root(root) if f.subject.endswith("information")]
    assert {f.status for f in found} <= {"warn"}
    assert all(f.remedy for f in found)
    return {f.subject.removesuffix(" information"): f.message for f in found}


def test_labels_that_tell_something_are_no_warning(tmp_path: Path):
    assert not warned(write_tree(tmp_path / "PASCAL_MT"))
    assert not warned(write_nyud_tree(tmp_path / "NYUD_MT"))
    write_pascal_mt(tmp_path / "rendered", SyntheticConfig(n_train=6, n_val=3, size=64, seed=1))
    assert not warned(tmp_path / "rendered")


@pytest.mark.parametrize(
    ("folder", "values", "said"),
    [
        ("sal_distill", [0, 1], {"saliency": "0 % of the pixels of 2 images are foreground of saliency"}),
        ("sal_distill", [255], {"saliency": "100 % of the pixels of 2 images are foreground of saliency"}),
        ("semseg/VOC12", [7, 255], {"semseg": "the labels of 2 images show one class of semseg only: 7"}),
        (
            "normals_distill",
            [[200, 130, 255], [128] * 3],
            {"normals": "the normals of 2 images all point into one octant: no component is negative"},
        ),
        (
            "normals_distill",
            [[128, 128, 0]],
            {"normals": "the normals of 2 images all point into one octant: no component changes its sign"},
        ),
        ("pascal-context/trainval", [220], {"edges": "0 % of the pixels of 2 images are foreground of edges"}),
    ],
)
def test_a_split_of_pascal_that_tells_nothing_is_a_warning(tmp_path: Path, folder: str, values: list, said: dict[str, str]):
    root = write_tree(tmp_path / "PASCAL_MT")
    for name in SPLITS["val"]:
        pixels = np.array(values)[np.indices(SIZES[name]).sum(axis=0) % len(values)]
        if folder.endswith("trainval"):
            scipy.io.savemat(root / folder / f"{name}.mat", {"LabelMap": pixels.astype(np.uint16)})
        else:
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{name}.png")
    assert warned(root) == {f"val {task}": text for task, text in said.items()}


@pytest.mark.parametrize(
    ("folder", "change", "said"),
    [
        ("normals", lambda normals: (normals + 1) / 2, "the normals of 1 images all point into one octant: no component is negative"),
        ("edge", lambda edges: 0 * edges, "0 % of the pixels of 1 images are foreground of edges"),
        ("depth", lambda depth: 0 * depth + 2, "every depth of 1 images is 2"),
    ],
)
def test_a_split_of_nyud_that_tells_nothing_is_a_warning(tmp_path: Path, folder: str, change, said: str):
    root = write_nyud_tree(tmp_path / "NYUD_MT")
    np.save(root / folder / "0003.npy", change(np.load(root / folder / "0003.npy")))
    assert list(warned(root).values()) == [said]


def test_one_image_that_differs_is_enough(tmp_path: Path):
    root = write_tree(tmp_path / "PASCAL_MT")
    Image.fromarray(np.zeros(SIZES["2008_000001"], np.uint8)).save(root / "sal_distill/2008_000001.png")
    assert not warned(root)
