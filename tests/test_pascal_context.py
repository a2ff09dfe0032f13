"""The reader against trees that this file writes itself, with PIL and scipy, in the layout of PASCAL_MT."""

import ast
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from pascal_tree import SIZES, SPLITS, box, people, semseg_of, struct_array, write_parts, write_tree
from PIL import Image

from bench.data import layout
from bench.data.pascal_context import DataError, PascalContext, find_files, fingerprint
from bench.data.pascal_files import PART_GROUP, VALID_CONTEXT_IDS
from bench.data.synthetic import SyntheticConfig, write_pascal_mt
from bench.tasks import TASK_NAMES


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "PASCAL_MT äöü 数")


def test_samples_have_the_promised_shapes_types_and_values(tree: Path) -> None:
    for split, ids in SPLITS.items():
        dataset = PascalContext(tree, split, TASK_NAMES)
        assert len(dataset) == len(ids)
        for index, name in enumerate(ids):
            sample, size = dataset[index], SIZES[name]
            assert set(sample) == {"id", "image", *TASK_NAMES}
            assert sample["id"] == name
            assert (sample["image"].shape, sample["image"].dtype) == ((*size, 3), np.uint8)
            assert (sample["normals"].shape, sample["normals"].dtype) == ((*size, 3), np.float32)
            for task in ("semseg", "human_parts", "saliency"):
                assert (sample[task].shape, sample[task].dtype) == (size, np.uint8)


def test_semseg_is_read_from_either_folder_as_class_ids(tree: Path) -> None:
    for split, ids in SPLITS.items():
        for name, sample in zip(ids, PascalContext(tree, split, ["semseg"]), strict=True):
            assert (sample["semseg"] == semseg_of(SIZES[name], list(SIZES).index(name))).all()


def test_voc_labels_win_over_pascal_context_labels(tree: Path) -> None:
    name = SPLITS["train"][0]
    Image.fromarray(np.full(SIZES[name], 7, np.uint8)).save(tree / f"semseg/VOC12/{name}.png")
    assert (PascalContext(tree, "train", ["semseg"])[0]["semseg"] == 7).all()


def test_only_persons_with_parts_count_and_later_parts_overwrite(tree: Path) -> None:
    size = SIZES["2008_000001"]
    expected = np.zeros(size, np.uint8)
    expected[2:8, 2:8], expected[20:25, 4:9], expected[6:12, 4:9] = 1, 6, 2
    assert (PascalContext(tree, "train", ["human_parts"])[0]["human_parts"] == expected).all()


def test_test_tree_has_scipys_nesting_of_pascal_part(tree: Path) -> None:
    anno = scipy.io.loadmat(tree / "human_parts/2008_000001.mat")["anno"]
    horse, bare, person = anno[0][0][1][0]
    assert (horse[1][0][0], bare[1][0][0], person[1][0][0]) == (13, 15, 15)
    assert len(bare[3]) == 0
    assert [person[3][0][j][0][0] for j in range(3)] == ["head", "rlleg", "neck"]
    assert person[3][0][2][1].sum() == 30


@pytest.mark.parametrize("objects", [[], [("person", 15, [])], [("horse", 13, ["head"])]], ids=["nothing", "person without parts", "horse"])
def test_human_parts_are_ignored_without_a_person_that_has_parts(tree: Path, objects: list) -> None:
    size = SIZES["2008_000001"]
    mask = box(size, slice(3, 9), slice(3, 9))
    write_parts(tree / "human_parts/2008_000001.mat", [(c, i, mask, [(p, mask) for p in parts]) for c, i, parts in objects])
    assert (PascalContext(tree, "train", ["human_parts"])[0]["human_parts"] == 255).all()


def test_human_parts_are_read_from_cell_arrays_of_structs_too(tree: Path) -> None:
    size = SIZES["2008_000001"]
    parts = [{"part_name": "lhand", "mask": box(size, slice(0, 4), slice(0, 4)).astype(np.uint8)}]
    person = {"class": "person", "class_ind": 15, "mask": np.ones(size, np.uint8), "parts": parts}
    scipy.io.savemat(tree / "human_parts/2008_000001.mat", {"anno": {"imname": "x", "objects": [person]}})
    label = PascalContext(tree, "train", ["human_parts"])[0]["human_parts"]
    assert (label == 4 * box(size, slice(0, 4), slice(0, 4))).all()


def test_part_names_fall_into_the_six_groups() -> None:
    groups = {g: {n for n, k in PART_GROUP.items() if k == g} for g in range(1, 7)}
    assert groups[1] == {"hair", "head", "lear", "rear", "lebrow", "rebrow", "leye", "reye", "mouth", "nose"}
    assert groups[2] == {"torso", "neck"}
    assert groups[3] == {"luarm", "ruarm"}
    assert groups[4] == {"llarm", "rlarm", "lhand", "rhand"}
    assert groups[5] == {"luleg", "ruleg"}
    assert groups[6] == {"llleg", "rlleg", "lfoot", "rfoot"}


def test_saliency_is_foreground_above_one_half(tree: Path) -> None:
    for name, sample in zip(SPLITS["val"], PascalContext(tree, "val", ["saliency"]), strict=True):
        graded = np.asarray(Image.open(tree / f"sal_distill/{name}.png")).astype(float)
        assert (sample["saliency"] == (graded / 255 > 0.5)).all()


def test_normals_are_decoded_normalised_and_kept_in_valid_context_classes_only(tree: Path) -> None:
    assert len(VALID_CONTEXT_IDS) == 170
    for name, sample in zip(SPLITS["train"], PascalContext(tree, "train", ["normals"]), strict=True):
        decoded = 2 * np.asarray(Image.open(tree / f"normals_distill/{name}.png")).astype(float) / 255 - 1
        context = scipy.io.loadmat(tree / f"pascal-context/trainval/{name}.mat")["LabelMap"]
        expected = decoded / np.linalg.norm(decoded, axis=2, keepdims=True) * np.isin(context, VALID_CONTEXT_IDS)[..., None]
        assert 0.1 < np.isin(context, VALID_CONTEXT_IDS).mean() < 0.9
        np.testing.assert_allclose(sample["normals"], expected, atol=1e-5)
        assert (sample["normals"][~np.isin(context, VALID_CONTEXT_IDS)] == 0).all()


def test_label_maps_of_any_number_type_are_read(tree: Path) -> None:
    path = tree / "pascal-context/trainval/2008_000001.mat"
    before = PascalContext(tree, "train", ["normals"])[0]["normals"]
    scipy.io.savemat(path, {"LabelMap": scipy.io.loadmat(path)["LabelMap"].astype(float)})
    assert (PascalContext(tree, "train", ["normals"])[0]["normals"] == before).all()


def test_samples_belong_to_the_caller(tree: Path) -> None:
    dataset = PascalContext(tree, "train", (*TASK_NAMES, "edges"))
    for index in range(len(dataset)):
        sample, expected = dataset[index], dataset[index]
        for key in set(sample) - {"id"}:
            sample[key][:] = 3
            assert not any(np.shares_memory(sample[key], sample[other]) for other in set(sample) - {"id", key})
        for key, value in dataset[index].items():
            np.testing.assert_array_equal(value, expected[key])


def test_each_task_demands_its_own_modalities_only(tree: Path) -> None:
    for folder in ("sal_distill", "normals_distill", "pascal-context", "human_parts"):
        shutil.rmtree(tree / folder)
    assert len(PascalContext(tree, "train", ["semseg"])) == 3
    with pytest.raises(DataError, match=r"normals: 3 of 3 files missing, path normals_distill/ID\.png") as caught:
        PascalContext(tree, "train", ["semseg", "normals"])
    assert "context: 3 of 3" in str(caught.value)
    assert "sal_distill" not in str(caught.value)


def test_missing_files_are_counted_and_the_first_named(tree: Path) -> None:
    (tree / "sal_distill/2008_000003.png").unlink()
    (tree / "semseg/pascal-context/2008_000001.png").unlink()
    with pytest.raises(DataError, match=r"saliency: 1 of 3 files missing.*ids 2008_000003") as caught:
        PascalContext(tree, "train", TASK_NAMES)
    assert "semseg/VOC12/ID.png, else semseg/pascal-context/ID.png, ids 2008_000001" in str(caught.value)
    assert str(tree) in str(caught.value)


def test_construction_stats_no_file_of_a_large_split(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    monkeypatch.setattr(layout.os, "listdir", lambda path, real=os.listdir: listed.append(path) or real(path))
    PascalContext(tree, "train", TASK_NAMES)
    assert len(listed) == 7  # one a folder
    many = [f"2008_{i:06}" for i in range(10_000)]
    assert sum(path is not None for path in find_files(tree, layout.PASCAL_MT.modalities["image"], many).values()) == 5


def break_root(tree: Path) -> None:
    shutil.rmtree(tree)


def break_split(tree: Path) -> None:
    (tree / "ImageSets/Context/train.txt").unlink()


def empty_split(tree: Path) -> None:
    (tree / "ImageSets/Context/train.txt").write_text("\n \n")


def repeat_id(tree: Path) -> None:
    (tree / "ImageSets/Context/train.txt").write_text("2008_000001\n2008_000003\n2008_000001\n")


def binary_split(tree: Path) -> None:
    (tree / "ImageSets/Context/train.txt").write_bytes(b"\xff\xfe\x00\x80")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (break_root, "is not a directory: point it at PASCAL_MT"),
        (break_split, "train.txt is missing .splits there: val"),
        (empty_split, "train.txt is empty"),
        (repeat_id, "lists 1 ids more than once: 2008_000001"),
        (binary_split, "cannot be read"),
    ],
)
def test_a_broken_root_or_split_is_named(tree: Path, harm: Callable[[Path], None], message: str) -> None:
    harm(tree)
    with pytest.raises(DataError, match=message):
        PascalContext(tree, "train", ["semseg"])


@pytest.mark.parametrize("tasks", [[], ["edge"], ["semseg", "semseg"]])
def test_tasks_must_be_different_known_names(tree: Path, tasks: list[str]) -> None:
    with pytest.raises(ValueError, match="semseg, human_parts, saliency, normals"):
        PascalContext(tree, "train", tasks)


def test_split_files_may_have_windows_line_ends_and_blank_lines(tree: Path) -> None:
    (tree / "ImageSets/Context/val.txt").write_bytes(b"\xef\xbb\xbf2008_000002\r\n\r\n 2008_000004 \r\n")
    assert PascalContext(tree, "val", ["semseg"]).ids == SPLITS["val"]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "LA", "1"])
def test_images_of_any_eight_bit_mode_become_rgb(tree: Path, mode: str) -> None:
    path = tree / "JPEGImages/2008_000001.jpg"
    Image.open(path).convert(mode).save(path, format="TIFF" if mode == "CMYK" else "PNG")
    image = PascalContext(tree, "train", ["semseg"])[0]["image"]
    assert image.shape == (*SIZES["2008_000001"], 3)
    assert image.std() > 10


def test_a_grey_jpeg_becomes_three_equal_channels(tree: Path) -> None:
    path = tree / "JPEGImages/2008_000001.jpg"
    Image.open(path).convert("L").save(path)
    image = PascalContext(tree, "train", ["semseg"])[0]["image"]
    assert (image == image[..., :1]).all()


WRITERS = {
    "JPEGImages/2008_000001.jpg": lambda p: Image.fromarray(np.zeros((30, 41), np.uint16)).save(p, format="PNG"),
    "semseg/pascal-context/2008_000001.png": lambda p: Image.new("RGB", (41, 30)).save(p),
    "sal_distill/2008_000001.png": lambda p: Image.fromarray(np.zeros((30, 41), np.uint16)).save(p),
    "normals_distill/2008_000001.png": lambda p: Image.new("L", (41, 30)).save(p),
    "pascal-context/trainval/2008_000001.mat": lambda p: scipy.io.savemat(p, {"other": np.zeros(3)}),
    "human_parts/2008_000001.mat": lambda p: scipy.io.savemat(p, {"anno": np.zeros((3, 3))}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_the_wrong_kind_is_named(tree: Path, name: str) -> None:
    WRITERS[name](tree / name)
    with pytest.raises(DataError, match=name):
        PascalContext(tree, "train", TASK_NAMES)[0]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("keep", [0, 0.1, 0.5, 0.95])
def test_a_truncated_file_is_named(tree: Path, name: str, keep: float) -> None:
    content = (tree / name).read_bytes()
    (tree / name).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=name):
        PascalContext(tree, "train", TASK_NAMES)[0]


def magnify_labels(tree: Path, name: str, rows: int, columns: int) -> None:
    """Write every label of an image again with each pixel repeated."""
    for folder in ("semseg/pascal-context", "sal_distill", "normals_distill"):
        path = tree / folder / f"{name}.png"
        Image.fromarray(np.array(Image.open(path)).repeat(rows, 0).repeat(columns, 1)).save(path)
    path = tree / f"pascal-context/trainval/{name}.mat"
    scipy.io.savemat(path, {"LabelMap": scipy.io.loadmat(path)["LabelMap"].repeat(rows, 0).repeat(columns, 1)})
    objects = [
        (c, i, mask.repeat(rows, 0).repeat(columns, 1), [(part, m.repeat(rows, 0).repeat(columns, 1)) for part, m in parts])
        for c, i, mask, parts in people(SIZES[name])
    ]
    write_parts(tree / f"human_parts/{name}.mat", objects)


def cubic_at_half(pixels: np.ndarray, axis: int) -> np.ndarray:
    """What the cubic kernel with a = -0.75 gives midway between two equal pixels, whose neighbours are the pixels before and after."""
    padded = np.pad(pixels, [(1, 1) if k == axis else (0, 0) for k in range(pixels.ndim)], mode="edge")
    before, after = np.delete(padded, [-1, -2], axis), np.delete(padded, [0, 1], axis)
    return 1.1875 * pixels - 0.09375 * (before + after)


def test_labels_that_were_made_at_another_scale_are_brought_to_their_image_s_size(tree: Path) -> None:
    name, tasks = SPLITS["train"][0], ("semseg", "human_parts", "saliency", "normals", "edges")
    coded = np.array(Image.open(tree / f"normals_distill/{name}.png"), dtype=float)
    before = PascalContext(tree, "train", tasks)[0]
    magnify_labels(tree, name, 2, 2)
    after = PascalContext(tree, "train", tasks)[0]
    for task in set(tasks) - {"normals"}:
        assert (before[task] == after[task]).all(), task
        assert after[task].dtype == before[task].dtype
    assert ((before["normals"] != 0).any(-1) == (after["normals"] != 0).any(-1)).all()
    counts = after["normals"].any(-1)
    vectors = 2 * cubic_at_half(cubic_at_half(coded, 0), 1).clip(0, 255).round() / 255 - 1
    expected = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    one_step = (2 / 255) / np.linalg.norm(vectors, axis=-1, keepdims=True)  # rounding may fall to the other side
    assert (np.abs(after["normals"] - expected)[counts] <= 2 * one_step[counts]).all()


def test_labels_of_other_proportions_are_refused_by_every_reader(tree: Path) -> None:
    magnify_labels(tree, SPLITS["train"][0], 2, 1)
    for task in ("semseg", "human_parts", "saliency", "normals", "edges"):
        with pytest.raises(DataError, match=r"2008_000001\.(png|mat) is 60 x 41 .* its image 30 x 41.*must have its image's proportions"):
            PascalContext(tree, "train", [task])[0]


def test_semantic_labels_out_of_range_are_named(tree: Path) -> None:
    Image.fromarray(np.full((30, 41), 21, np.uint8)).save(tree / "semseg/VOC12/2008_000001.png")
    with pytest.raises(DataError, match=r"VOC12/2008_000001.png holds the values \[21\]"):
        PascalContext(tree, "train", ["semseg"])[0]


def test_an_unknown_part_of_a_person_is_named(tree: Path) -> None:
    mask = np.ones((30, 41), bool)
    write_parts(tree / "human_parts/2008_000001.mat", [("person", 15, mask, [("tail", mask)])])
    with pytest.raises(DataError, match="unknown part 'tail'"):
        PascalContext(tree, "train", ["human_parts"])[0]


@pytest.mark.parametrize("name", ["pascal-context/trainval/2008_000001.mat", "human_parts/2008_000001.mat"])
def test_matlab_files_of_version_7_3_are_refused_with_the_remedy(tree: Path, name: str) -> None:
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    (tree / name).write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n".ljust(512, b"\0"))
    with pytest.raises(DataError, match=r"version 7\.3.*save -v7"):
        PascalContext(tree, "train", TASK_NAMES)[0]


def test_nothing_is_written_into_the_data_root(tree: Path) -> None:
    (tree / "ImageSets/Parts").mkdir()
    (tree / "ImageSets/Parts/train.txt").write_text(json.dumps({"wrong": [1]}))
    before = {p: p.stat().st_mtime_ns for p in tree.rglob("*")}
    for split in SPLITS:
        list(PascalContext(tree, split, TASK_NAMES))
    fingerprint(tree)
    assert {p: p.stat().st_mtime_ns for p in tree.rglob("*")} == before


def test_symbolic_links_are_followed(tree: Path, tmp_path: Path) -> None:
    os.symlink(tree, tmp_path / "link")
    image = tree / "JPEGImages/2008_000001.jpg"
    image.rename(tmp_path / "elsewhere.jpg")
    os.symlink(tmp_path / "elsewhere.jpg", image)
    assert PascalContext(tmp_path / "link", "train", TASK_NAMES)[0]["image"].shape == (30, 41, 3)
    (tmp_path / "elsewhere.jpg").unlink()
    with pytest.raises(DataError, match=r"2008_000001\.jpg cannot be read"):
        PascalContext(tmp_path / "link", "train", TASK_NAMES)[0]


def test_fingerprint_follows_ids_and_content_hash_but_not_the_place(tree: Path, tmp_path: Path) -> None:
    first = fingerprint(tree)
    assert len(first) == 64
    assert fingerprint(shutil.move(tree, tmp_path / "moved")) == first
    root = tmp_path / "moved"
    (root / "synthetic.json").write_text(json.dumps({"content_hash": "abc"}))
    second = fingerprint(root)
    (root / "synthetic.json").write_text(json.dumps({"content_hash": "abd"}))
    (root / "ImageSets/Context/val.txt").write_text("2008_000002\n")
    assert len({first, second, fingerprint(root)}) == 3
    (root / "synthetic.json").write_text("{}")
    with pytest.raises(DataError, match="content_hash"):
        fingerprint(root)


def test_a_rendered_tree_is_read_in_full(tmp_path: Path) -> None:
    root = tmp_path / "rendered"
    content_hash = write_pascal_mt(root, SyntheticConfig(n_train=12, n_val=3, size=64, seed=2))
    samples = [sample for split in SPLITS for sample in PascalContext(root, split, TASK_NAMES)]
    assert len(samples) == 15
    for sample in samples:
        length = np.linalg.norm(sample["normals"], axis=2)
        assert ((np.abs(length - 1) < 1e-5) | (length == 0)).all()
        assert sample["semseg"].max() == 255 or sample["semseg"].max() <= 20
    for task in ("semseg", "human_parts", "saliency"):
        assert len(set(np.concatenate([sample[task].ravel() for sample in samples])) - {255}) > 1
    assert 0.1 < np.mean([sample["normals"].any(-1).mean() for sample in samples]) < 1
    assert json.loads((root / "synthetic.json").read_text())["content_hash"] == content_hash
    assert len(fingerprint(root)) == 64


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_a_root_that_cannot_be_written_with_spaces_in_its_path_is_read(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "my data, 2024" / "PASCAL_MT")
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for task in (*TASK_NAMES, "edges"):
            assert len(PascalContext(root, "train", [task])) == 3
        assert sorted(PascalContext(root, "val", ["edges"])[0]) == ["edges", "id", "image"]
    finally:
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755)


def test_no_code_is_loaded_with_data_or_weights() -> None:
    repository = Path(__file__).parent.parent
    for file in [*repository.glob("bench/**/*.py"), *repository.glob("methods/*.py"), *repository.glob("benchmarks/*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                call, keywords = f"{node.func.value.id}.{node.func.attr}", {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert call != "torch.load" or keywords.get("weights_only") == "True", f"{file}:{node.lineno}"
                assert call != "np.load" or keywords.get("allow_pickle", "False") == "False", f"{file}:{node.lineno}"


@pytest.mark.parametrize("value", [460, 65543, -3, 7.25, np.nan, np.inf])
def test_a_labelmap_outside_of_its_classes_is_an_error_and_not_cast(tree: Path, value: float) -> None:
    name = SPLITS["train"][0]
    context = np.full(SIZES[name], 7.0)
    context[3, 4] = value
    path = tree / f"pascal-context/trainval/{name}.mat"
    scipy.io.savemat(path, {"LabelMap": context})
    with pytest.raises(DataError, match=r"LabelMap's classes are 1\.\.459") as found:
        PascalContext(tree, "train", ("edges",))[0]
    assert str(path) in str(found.value)


def test_a_damaged_file_of_parts_is_said_to_be_damaged(tree: Path) -> None:
    path = tree / f"human_parts/{SPLITS['train'][0]}.mat"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read") as found:
        PascalContext(tree, "train", ("human_parts",))[0]
    assert "is not PASCAL-Part's structure" not in str(found.value)


def test_a_part_mask_that_holds_no_number_is_refused(tree: Path) -> None:
    path = tree / "human_parts/2008_000001.mat"
    mask = np.full((30, 41), np.nan)
    part = struct_array([("head", mask)], "part_name mask")
    person = struct_array([("person", 15, np.ones((30, 41)), part)], "class class_ind mask parts")
    scipy.io.savemat(path, {"anno": struct_array([("x", person)], "imname objects")})
    with pytest.raises(DataError, match=r"2008_000001.mat: the mask of part 'head' must be a matrix of finite numbers"):
        PascalContext(tree, "train", ["human_parts"])[0]


@pytest.mark.parametrize("objects", [np.ones((2, 3)), 7, "person"])
def test_objects_that_are_no_structs_are_refused(tree: Path, objects: object) -> None:
    scipy.io.savemat(tree / "human_parts/2008_000001.mat", {"anno": struct_array([("x", objects)], "imname objects")})
    with pytest.raises(DataError, match=r"2008_000001.mat: `anno` is not PASCAL-Part's structure.* where structs belong"):
        PascalContext(tree, "train", ["human_parts"])[0]


def test_a_sparse_label_map_is_refused(tree: Path) -> None:
    path = tree / "pascal-context/trainval/2008_000001.mat"
    scipy.io.savemat(path, {"LabelMap": scipy.sparse.csc_matrix(np.ones((30, 41)))}, do_compression=True)
    with pytest.raises(DataError, match=r"2008_000001.mat: LabelMap is a csc_\w+, not a plain array: .*full\(LabelMap\)"):
        PascalContext(tree, "train", ["edges"])[0]
