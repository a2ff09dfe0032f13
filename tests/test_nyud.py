"""The reader of NYUD_MT against a tree that is written with PIL and numpy alone."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nyud_tree import NYUD_SIZES, NYUD_SPLITS, arrays_of, write_nyud_tree
from PIL import Image

from bench.data.doctor_tree import check_data_root
from bench.data.layout import DataError, fingerprint, layout_of
from bench.data.nyud import NYUD
from bench.data.roots import open_split
from bench.data.synthetic import SyntheticConfig, content_hash, write_pascal_mt
from bench.errors import SuiteError
from bench.tasks import NYUD_TASKS


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_nyud_tree(tmp_path / "NYUD_MT äöü 数")


def test_samples_hold_what_the_files_hold(tree: Path):
    for split, ids in NYUD_SPLITS.items():
        dataset = open_split(tree, split, ("semseg", "normals", "depth", "edges"))
        assert isinstance(dataset, NYUD)
        assert dataset.ids == ids
        for name, sample in zip(ids, (dataset[i] for i in range(len(dataset))), strict=True):
            arrays, size = arrays_of(name), NYUD_SIZES[name]
            assert (sample["image"].shape, sample["image"].dtype) == ((*size, 3), np.uint8)
            expected = arrays["segmentation"].astype(int) - 1
            assert (sample["semseg"] == np.where(expected < 0, 255, expected)).all()
            assert (sample["depth"] == arrays["depth"]).all()
            assert (sample["edges"] == arrays["edge"]).all()
            np.testing.assert_allclose(sample["normals"], arrays["normals"], atol=1e-6)
            assert not sample["normals"][:, :3].any()
            assert {key: value.dtype for key, value in sample.items() if key not in ("id", "image")} == {
                "semseg": np.uint8,
                "normals": np.float32,
                "depth": np.float32,
                "edges": np.uint8,
            }


def test_values_that_are_no_numbers_are_ignored(tree: Path):
    depth, normals = arrays_of("0003")["depth"].astype(float), arrays_of("0003")["normals"].astype(float)
    depth[5, 5:8] = np.nan, np.inf, -1
    normals[5, 5:7, 0] = np.nan, np.inf
    normals[6, 6] *= 7
    np.save(tree / "depth/0003.npy", depth[..., None])
    np.save(tree / "normals/0003.npy", normals)
    sample = open_split(tree, "val", ("depth", "normals"))[0]
    assert not sample["depth"][5, 5:8].any()
    assert not sample["normals"][5, 5:7].any()
    assert np.linalg.norm(sample["normals"][6, 6]) == pytest.approx(1)


def test_the_fingerprint_tells_the_layouts_apart(tree: Path, tmp_path: Path):
    (tmp_path / "other/ImageSets").mkdir(parents=True)
    (tmp_path / "other/ImageSets/Context").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"other/ImageSets/Context/{split}.txt").write_text((tree / f"gt_sets/{split}.txt").read_text())
    assert fingerprint(tree) != fingerprint(tmp_path / "other")
    assert (layout_of(tree).name, layout_of(tmp_path / "other").name) == ("nyud", "pascal_context")


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code from the data set ran')",))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))


def objects(path: Path) -> None:
    np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)


def archive(path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    path.write_bytes(buffer.getvalue())


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    np.save(path, np.full((26, 30), "a"))


def flat(path: Path) -> None:
    np.save(path, np.zeros(26 * 30))


@pytest.mark.parametrize("harm", [pickled, objects, archive, truncated, empty, text, flat])
@pytest.mark.parametrize("name", ["depth/0003.npy", "normals/0003.npy", "edge/0003.npy"])
def test_a_broken_array_is_named_and_no_code_comes_with_the_data(tree: Path, name: str, harm: Callable[[Path], None]):
    harm(tree / name)
    with pytest.raises(DataError, match=name):
        NYUD(tree, "val")[0]


@pytest.mark.parametrize("name", ["depth/0003.npy", "normals/0003.npy", "edge/0003.npy", "segmentation/0003.png"])
def test_a_label_of_another_size_than_its_image_is_named(tree: Path, name: str):
    if name.endswith("npy"):
        np.save(tree / name, np.load(tree / name)[:-1])
    else:
        Image.fromarray(arrays_of("0003")["segmentation"][:-1]).save(tree / name)
    with pytest.raises(DataError, match=f"{name} is 25 x 30 .* its image 26 x 30"):
        NYUD(tree, "val")[0]


def test_labels_that_were_made_at_another_scale_are_brought_to_their_image_s_size(tree: Path):
    tasks = ("semseg", "depth", "edges", "normals")
    np.save(tree / "normals/0003.npy", np.broadcast_to(np.float32([0.6, 0, -0.8]), (26, 30, 3)))
    before = NYUD(tree, "val", tasks)[0]
    for name in ("depth/0003.npy", "edge/0003.npy", "normals/0003.npy"):
        np.save(tree / name, np.load(tree / name).repeat(2, 0).repeat(2, 1))
    Image.fromarray(arrays_of("0003")["segmentation"].repeat(2, 0).repeat(2, 1)).save(tree / "segmentation/0003.png")
    after = NYUD(tree, "val", tasks)[0]
    for task in ("semseg", "depth", "edges"):
        assert (before[task] == after[task]).all(), task
    np.testing.assert_allclose(after["normals"], before["normals"], atol=1e-6)


@pytest.mark.parametrize("name", ["images/0003.jpg", "segmentation/0003.png"])
def test_a_truncated_picture_is_named(tree: Path, name: str):
    (tree / name).write_bytes((tree / name).read_bytes()[:-30])
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        NYUD(tree, "val")[0]


@pytest.mark.parametrize(("name", "mode"), [("images/0003.jpg", "I;16"), ("segmentation/0003.png", "RGB")])
def test_a_picture_of_the_wrong_mode_is_named(tree: Path, name: str, mode: str):
    Image.new(mode, (30, 26)).save(tree / name, format="PNG")
    with pytest.raises(DataError, match=f"{name} has mode"):
        NYUD(tree, "val")[0]


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_and_transparent_images_become_rgb(tree: Path, mode: str):
    Image.new(mode, (30, 26)).save(tree / "images/0003.jpg", format="PNG")
    assert NYUD(tree, "val")[0]["image"].shape == (26, 30, 3)


@pytest.mark.parametrize(("content", "message"), [("\n", "val.txt is empty"), ("0003\n0003\n", "more than once: 0003")])
def test_an_empty_split_and_a_repeated_id_are_named(tree: Path, content: str, message: str):
    (tree / "gt_sets/val.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        NYUD(tree, "val")


def test_a_linked_read_only_tree_with_spaces_in_its_path_is_read(tree: Path, tmp_path: Path):
    link = tmp_path / "NYU v2 äöü 数"
    link.symlink_to(tree)
    for path in (*tree.rglob("*"), tree):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert len([NYUD(link, split)[0] for split in ("train", "val")]) == 2
    finally:
        for path in (tree, *tree.rglob("*")):
            path.chmod(0o755)


def test_values_out_of_range_are_named(tree: Path):
    Image.fromarray(np.full((26, 30), 41, np.uint8)).save(tree / "segmentation/0003.png")
    with pytest.raises(DataError, match=r"segmentation/0003.png holds the values \[41\]"):
        NYUD(tree, "val", ["semseg"])[0]
    np.save(tree / "edge/0003.npy", np.full((26, 30), 255))
    with pytest.raises(DataError, match=r"edge/0003.npy holds values outside of 0..1"):
        NYUD(tree, "val", ["edges"])[0]


def test_missing_files_are_counted(tree: Path):
    (tree / "depth/0001.npy").unlink()
    with pytest.raises(DataError, match=r"depth: 1 of 2 files missing, path depth/ID\.npy, ids 0001"):
        NYUD(tree, "train")
    assert len(NYUD(tree, "train", ["normals"])) == 2


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rendered") / "NYUD_MT"
    write_pascal_mt(root, SyntheticConfig(n_train=8, n_val=3, size=64, seed=2, layout="nyud"))
    return root


def test_a_rendered_tree_holds_indoor_scenes_with_depth(rendered: Path):
    samples = [sample for split in ("train", "val") for sample in (open_split(rendered, split, NYUD_TASKS)[i] for i in range(3))]
    assert (len(open_split(rendered, "train", NYUD_TASKS)), len(open_split(rendered, "val", NYUD_TASKS))) == (8, 3)
    for sample in samples:
        valid = sample["depth"] > 0
        assert sample["image"].shape == (48, 64, 3)
        assert valid.mean() > 0.5
        assert sample["depth"].max() <= 10
        assert (sample["normals"].any(axis=2) == valid).all()
        assert 0 < sample["edges"].mean() < 0.4
    assert len(set(np.concatenate([sample["semseg"].ravel() for sample in samples]).tolist()) - {255}) >= 4
    assert not [finding for finding in check_data_root(rendered) if finding.status == "fail"]


def test_rendered_depth_and_normals_belong_together(rendered: Path):
    # Walls and floors are planes: neighbouring pixels of one normal have points in the plane across it.
    sample = open_split(rendered, "train", NYUD_TASKS)[0]
    same = (np.abs(np.diff(sample["normals"], axis=1)).sum(axis=2) < 1e-4) & (sample["depth"][:, 1:] > 0) & (sample["depth"][:, :-1] > 0)
    assert same.sum() > 200
    flat = np.abs(np.diff(sample["depth"], axis=1)) / sample["depth"][:, 1:]
    assert np.median(flat[same]) < 0.1


def test_the_same_seed_renders_the_same_nyud_tree_with_any_number_of_processes(rendered: Path, tmp_path: Path):
    digest = write_pascal_mt(tmp_path / "again", SyntheticConfig(n_train=8, n_val=3, size=64, seed=2, layout="nyud"), processes=2)
    assert digest == content_hash(rendered)
    with pytest.raises(SuiteError, match="allowed are pascal_context, nyud"):
        SyntheticConfig(layout="kitti")
