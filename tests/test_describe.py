"""What `data describe` and `data held-out` say about trees whose content is known."""

import io
import itertools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nyud_tree import NYUD_SIZES, arrays_of, write_nyud_tree
from pascal_tree import SIZES, SPLITS, semseg_of, write_parts, write_tree
from PIL import Image
from typer.testing import CliRunner

from bench.cli import app
from bench.data.contact_sheet import coloured, contact_sheet, emptiness, spaced, telling
from bench.data.describe import describe
from bench.data.layout import DataError
from bench.data.pascal_context import PascalContext
from bench.tasks import IGNORE


def test_frequencies_of_a_pascal_tree_are_counted(tmp_path: Path):
    root = write_tree(tmp_path / "PASCAL_MT äöü")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    files = {file.name for file in describe(root, tmp_path / "out")}
    assert files == {"README.md", "classes.csv", "images.csv", "charts.png", "contact_sheet.png"}
    classes = pd.read_csv(tmp_path / "out/classes.csv").set_index(["task", "class"])
    assert classes.loc[("semseg", 20), "pixels"] == 3 * sum(width for _, width in SIZES.values())  # three rows an image
    assert classes.loc[("semseg", 20), "name"] == "tvmonitor"
    assert classes.loc[("human_parts", 6), "pixels"] == 25
    assert classes.groupby("task")["percent"].sum().tolist() == pytest.approx([100, 100])
    images = pd.read_csv(tmp_path / "out/images.csv").set_index("id")
    assert {name: (row["height"], row["width"]) for name, row in images.iterrows()} == SIZES
    assert (images["human_parts_labelled"] > 0).sum() == 1
    assert images["semseg_labelled"].to_dict() == pytest.approx({name: 1 - 2 / size[0] for name, size in SIZES.items()})
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_classes_without_a_pixel_are_told_and_splits_are_told_apart(tmp_path: Path):
    root = write_tree(tmp_path / "PASCAL_MT")
    describe(root, tmp_path / "out")
    classes = pd.read_csv(tmp_path / "out/classes.csv").set_index(["task", "class"])
    assert classes.groupby("task").size().to_dict() == {"semseg": 21, "human_parts": 7}
    assert classes.loc[("semseg", 19), ["images", "pixels", "percent", "train_pixels", "val_images"]].tolist() == [0] * 5
    labels = {split: [semseg_of(SIZES[name], sorted(SIZES).index(name)) for name in names] for split, names in SPLITS.items()}
    for split, some in labels.items():
        for k in range(21):
            pixels, labelled = sum(int((x == k).sum()) for x in some), sum(int((x != IGNORE).sum()) for x in some)
            line = classes.loc[("semseg", k)]
            assert line[f"{split}_pixels"] == pixels
            assert line[f"{split}_percent"] == pytest.approx(100 * pixels / labelled)
            assert line[f"{split}_images"] == sum((x == k).any() for x in some)
    for quantity in ("images", "pixels"):
        parts = classes[f"train_{quantity}"] + classes[f"val_{quantity}"]
        assert (classes[quantity] == parts).all()
    assert classes.loc["human_parts", "val_percent"].isna().all()  # nobody in val
    page = (tmp_path / "out/README.md").read_text()
    assert "| train   | height" in page
    assert "| val     | height" in page
    assert "train_percent" in page


def test_a_task_that_one_split_lacks_has_no_numbers_there(tmp_path: Path):
    root = write_tree(tmp_path / "PASCAL_MT")
    for name in SPLITS["val"]:
        (root / f"human_parts/{name}.mat").unlink()
    describe(root, tmp_path / "out")
    classes = pd.read_csv(tmp_path / "out/classes.csv").set_index("task")
    assert classes.loc["human_parts", ["val_images", "val_pixels", "val_percent"]].isna().all(axis=None)
    assert classes.loc["human_parts", "pixels"].sum() > 0
    assert classes.loc["semseg", "val_pixels"].notna().all()


def test_depth_and_forty_classes_of_a_nyud_tree_are_told(tmp_path: Path):
    describe(write_nyud_tree(tmp_path / "NYUD_MT"), tmp_path / "out")
    images = pd.read_csv(tmp_path / "out/images.csv", dtype={"id": str}).set_index("id")
    for name in NYUD_SIZES:
        depth = arrays_of(name)["depth"]
        assert images.loc[name, "depth_median_m"] == pytest.approx(np.median(depth[depth > 0]), rel=1e-5)
    assert set(pd.read_csv(tmp_path / "out/classes.csv")["name"]) >= {"wall", "other-prop"}


def test_a_tree_without_saliency_is_described_without_it(tmp_path: Path):
    root = write_tree(tmp_path / "PASCAL_MT")
    for file in (root / "sal_distill").iterdir():
        file.unlink()
    describe(root, tmp_path / "out", most=1)
    images = pd.read_csv(tmp_path / "out/images.csv")
    assert "saliency_share" not in images
    assert len(images) == 2
    for file in (root / "JPEGImages").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="doctor"):
        describe(root, tmp_path / "other")


def test_the_contact_sheet_is_a_picture_with_a_row_an_image(tmp_path: Path):
    data = PascalContext(write_tree(tmp_path / "PASCAL_MT"), "train")
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(data))).convert("RGB"))
    assert sheet.shape[0] > 3 * 200
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100


def test_labels_are_coloured_by_class_and_ignored_ones_are_grey():
    colours = coloured("classes", np.array([[0, 1, 15, IGNORE]], np.uint8))
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 4
    assert set(colours[0, 3]) == set(coloured("binary", np.array([[IGNORE]], np.uint8))[0, 0]) == {222}
    assert coloured("normals", np.array([[[0, 0, 1.0]]]))[0, 0].tolist() == [128, 128, 255]
    assert coloured("depth", np.array([[0, 1.0]]))[0, 0].tolist() == [222] * 3


def test_images_are_spaced_evenly():
    assert spaced(5, 8) == [0, 1, 2, 3, 4]
    assert spaced(9, 3) == [0, 4, 8]


def test_the_command_line_describes_and_draws(tmp_path: Path):
    root = write_tree(tmp_path / "PASCAL_MT")
    run = CliRunner().invoke(app, ["data", "describe", str(root), "--out", str(tmp_path / "out"), "--images", "1", "--quiet"])
    assert run.exit_code == 0, run.output
    assert str(tmp_path / "out/contact_sheet.png") in run.output
    run = CliRunner().invoke(app, ["data", "held-out", str(root), "--fraction", "0.34", "--results", str(tmp_path / "results")])
    assert run.exit_code == 0, run.output
    assert set(run.output.split()) < set(SPLITS["train"])
    assert len(list((tmp_path / "results/data").glob("held-out-*.json"))) == 1


@pytest.mark.parametrize("seed", range(20))
def test_the_sheet_covers_every_task_with_the_most_panels_that_eight_images_can_fill(seed: int):
    rng = np.random.default_rng(seed)
    shows = rng.random((int(rng.integers(2, 11)), 3)) < rng.random(3)
    wanted = min(3, len(shows))
    best = max(  # by trying every choice
        (tuple(shows[list(some)].any(axis=0)).count(True), int(shows[list(some)].sum()))
        for some in itertools.combinations(range(len(shows)), wanted)
    )
    chosen = telling(shows, 3)
    assert chosen == sorted(set(chosen)) == telling(shows, 3)
    assert len(chosen) == wanted
    assert (int(shows[chosen].any(axis=0).sum()), int(shows[chosen].sum())) == best


@pytest.mark.parametrize("most", [1, None])
def test_a_task_that_one_image_of_many_has_labels_of_is_on_the_sheet(tmp_path: Path, most: int | None, monkeypatch: pytest.MonkeyPatch):
    root = write_tree(tmp_path / "PASCAL_MT")
    names = [f"copy_{i:03}" for i in range(24)]
    for path in list(root.rglob("2008_000003.*")):
        for name in names:
            shutil.copy(path, path.with_name(name + path.suffix))
    size = SIZES["2008_000003"]
    head = np.ones(size, np.uint8)
    write_parts(root / "human_parts/copy_017.mat", [("person", 15, head, [("head", head)])])
    Image.fromarray(np.zeros(size, np.uint8)).save(root / "sal_distill/copy_004.png")
    (root / "ImageSets/Context/train.txt").write_text("\n".join(names))
    drawn = []
    monkeypatch.setattr("bench.data.describe.contact_sheet", lambda data, indices: drawn.extend(data.ids[i] for i in indices) or b"")
    describe(root, tmp_path / "out", most=most)
    assert len(drawn) == 8
    assert "copy_017" in drawn
    assert "copy_004" not in drawn


def test_a_panel_without_label_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from matplotlib.axes import Axes

    written = []
    text = Axes.text
    monkeypatch.setattr(Axes, "text", lambda ax, x, y, said, **how: written.append(said) or text(ax, x, y, said, **how))
    contact_sheet(PascalContext(write_tree(tmp_path / "PASCAL_MT"), "train"))
    assert written.count("no label") == 2  # human parts of the second and the third image
    assert emptiness("binary", np.zeros((2, 2), np.uint8)) == "no foreground"
    assert emptiness("binary", np.full((2, 2), IGNORE, np.uint8)) == emptiness("normals", np.zeros((2, 2, 3))) == "no label"
    assert emptiness("depth", np.ones((2, 2))) is None
