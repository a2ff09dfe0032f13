"""The doctor must find what is wrong with a machine, a data root or a weights file, and never raise."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch
from nyud_tree import write_nyud_tree
from pascal_tree import SIZES, SPLITS, write_parts, write_tree
from PIL import Image
from safetensors.torch import save_file

from bench.data import doctor, pascal_files
from bench.data.contents import stamp_of
from bench.data.doctor import Finding, check_data_root, check_weights, diagnose
from bench.data.doctor_tree import SHOWN
from bench.data.layout import PASCAL_MT, DataError, find_files
from bench.data.pascal_context import PascalContext
from bench.data.pascal_files import VALID_CONTEXT_IDS
from bench.data.scan import disagreeing, scan
from bench.data.synthetic import SyntheticConfig, write_pascal_mt
from bench.launch import data_config


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "PASCAL_MT")


def by_subject(findings: list[Finding], status: str | None = None) -> dict[str, Finding]:
    return {f.subject: f for f in findings if status in (None, f.status)}


def test_environment_is_reported_without_data_or_weights() -> None:
    findings = by_subject(diagnose(None, None))
    assert {"python", "torch", "timm", "ray", "CUDA", "cores", "memory", "disk", "HOME"} <= set(findings)
    assert findings["torch"].message == torch.__version__.split("+")[0] or findings["torch"].message == torch.__version__
    assert findings["python"].status == findings["cores"].status == "ok"


def test_every_problem_comes_with_a_remedy(tree: Path, tmp_path: Path) -> None:
    shutil.rmtree(tree / "sal_distill")
    findings = diagnose(tree, tmp_path / "none.pth")
    assert {f.status for f in findings} >= {"ok", "fail"}
    assert all(f.remedy for f in findings if f.status != "ok")
    assert all(f.remedy is None for f in findings if f.status == "ok")


def test_a_missing_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("no-such-package-here",))
    assert by_subject(doctor.check_packages(), "fail")["no-such-package-here"].remedy


def test_a_home_that_cannot_be_written_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "gone"))
    assert by_subject(doctor.check_machine(), "warn")["HOME"]


def test_a_complete_tree_is_read_and_nothing_fails(tree: Path) -> None:
    findings = check_data_root(tree)
    assert not by_subject(findings, "fail")
    assert by_subject(findings)["train normals"].message.startswith("3 of 3 files")
    assert "3 images read in full" in by_subject(findings)["train content"].message
    assert "5105" in by_subject(findings, "warn")["split val"].message


def test_a_rendered_tree_passes_and_its_counts_are_no_warning(tmp_path: Path) -> None:
    write_pascal_mt(tmp_path / "rendered", SyntheticConfig(n_train=6, n_val=3, size=64, seed=1))
    findings = by_subject(check_data_root(tmp_path / "rendered"))
    assert not [f for f in findings.values() if f.status == "fail"]
    assert findings["split train"] == Finding("split train", "ok", "6 images (rendered data set)")


def test_a_task_without_any_label_is_a_warning(tree: Path) -> None:
    warned = [f.message for f in check_data_root(tree) if f.status == "warn"]
    assert "none of the 2 images has a labelled pixel for human_parts" in warned


def test_a_broken_mirror_without_normals_and_saliency_is_recognised(tree: Path) -> None:
    shutil.rmtree(tree / "sal_distill")
    shutil.rmtree(tree / "normals_distill")
    findings = check_data_root(tree)
    failed = by_subject(findings, "fail")
    assert set(failed) == {"train saliency", "val saliency", "train normals", "val normals"}
    assert all("mirrors" in f.remedy for f in failed.values())
    assert by_subject(findings, "ok")["train content"].message.endswith("semseg, human_parts, edges")


def test_missing_files_are_counted_and_named(tree: Path) -> None:
    (tree / "human_parts/2008_000003.mat").unlink()
    finding = by_subject(check_data_root(tree), "fail")["train human_parts"]
    assert finding.message.startswith("2 of 3 files")
    assert "2008_000003" in finding.message


def test_unreadable_missized_and_out_of_range_files_are_found(tree: Path) -> None:
    (tree / "JPEGImages/2008_000001.jpg").write_bytes(b"no image")
    Image.fromarray(np.full((33, 20), 99, np.uint8)).save(tree / "semseg/pascal-context/2008_000003.png")
    write_parts(tree / "human_parts/2008_000005.mat", [("person", 15, np.ones((2, 2)), [("head", np.ones((2, 2)))])])
    messages = [f.message for f in check_data_root(tree) if f.status == "fail"]
    assert len(messages) == 3
    for name in ("2008_000001.jpg", "2008_000003.png", "2008_000005.mat"):
        assert any(name in message for message in messages)


def test_an_image_in_both_splits_fails_and_no_run_takes_it(tree: Path) -> None:
    (tree / "ImageSets/Context/val.txt").write_text("\n".join([*SPLITS["val"], "2008_000003"]))
    assert "2008_000003" in by_subject(check_data_root(tree), "fail")["splits"].message
    with pytest.raises(DataError, match="1 images are in train and val: 2008_000003; take them out"):
        data_config(tree)


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_rendered_tree_s_broken_manifest_fails_as_it_does_in_a_run(tree: Path, content: str) -> None:
    (tree / "synthetic.json").write_text(content)
    failed = by_subject(check_data_root(tree), "fail")
    assert failed.keys() == {"synthetic.json"}
    with pytest.raises(DataError, match="holds no content_hash") as refused:
        data_config(tree)
    assert failed["synthetic.json"].message == str(refused.value)


def test_a_missing_or_empty_split_fails_and_the_other_is_still_checked(tree: Path) -> None:
    (tree / "ImageSets/Context/train.txt").write_text("")
    findings = check_data_root(tree)
    assert set(by_subject(findings, "fail")) == {"split train"}
    assert "val content" in by_subject(findings)


def test_the_folder_above_the_data_root_is_recognised(tree: Path) -> None:
    assert str(tree) in check_data_root(tree.parent)[0].remedy
    assert check_data_root(tree / "nothing")[0].status == "fail"


@pytest.mark.parametrize("name", ["good.safetensors", "good.pth", "nested.pth"])
def test_good_weights_are_counted(tmp_path: Path, name: str) -> None:
    state, path = {"a": torch.zeros(3, 4), "b": torch.ones(5)}, tmp_path / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": state} if name == "nested.pth" else state, path)
    assert check_weights(path).status == "ok"
    assert check_weights(path).message.startswith("2 tensors")


class Payload:
    """An object that would run code when unpickled."""

    def __reduce__(self) -> tuple:
        return (print, ("executed",))


@pytest.mark.parametrize(
    "name", ["none.pth", "junk.pth", "junk.safetensors", "code.pth", "empty.pth", "nan.pth", "cut.safetensors", "cut.pth", "zero.pth"]
)
def test_bad_weights_fail_with_a_remedy_and_run_nothing(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    state = {"a": torch.full((30, 40), float("nan") if name == "nan.pth" else 1.0)}
    if name.startswith("junk"):
        path.write_bytes(b"this is no weights file" * 9)
    elif name.startswith("zero"):
        path.write_bytes(b"")
    elif path.suffix == ".safetensors":
        save_file(state, path)
    elif name != "none.pth":
        torch.save({"code.pth": {"a": Payload()}, "empty.pth": {"epoch": 3}}.get(name, state), path)
    if name.startswith("cut"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    finding = check_weights(path)
    assert finding.status == "fail"
    assert finding.remedy
    assert "executed" not in capsys.readouterr().out


def test_every_file_of_a_large_tree_is_read_and_the_list_is_complete(tree: Path, tmp_path: Path) -> None:
    names = [f"copy_{i:03}" for i in range(40)]
    for path in list(tree.rglob("2008_000003.*")):
        for name in names:
            shutil.copy(path, path.with_name(name + path.suffix))
    (tree / "ImageSets/Context/train.txt").write_text("\n".join(names))
    for name in names[::2]:
        file = tree / f"JPEGImages/{name}.jpg"
        file.write_bytes(file.read_bytes()[:-30])  # truncated at its very end
    seen = []
    findings = check_data_root(
        tree, start=lambda total: seen.append(total) or (lambda done: seen.append(done)), problems=tmp_path / "all.txt"
    )
    failed = [f.message for f in findings if f.subject == "train content" and f.status == "fail"]
    assert seen == [42] + [1] * 42
    assert len(failed) == SHOWN + 1
    assert failed[-1] == "and 10 broken files more, 20 in all"
    listed = [line.split("\t") for line in (tmp_path / "all.txt").read_text().splitlines()]
    assert [line[1] for line in listed if line[0] == "train" and line[1] == "image"] == ["image"] * 20
    assert [line for line in listed if line[0] == "val"] == [["val", "human_parts", "no labelled pixel", name] for name in SPLITS["val"]]
    assert not [path for path in tree.rglob("*") if path.name == "all.txt"]


def test_a_label_map_out_of_range_is_found_and_void_is_told(tree: Path) -> None:
    scipy.io.savemat(tree / "pascal-context/trainval/2008_000002.mat", {"LabelMap": np.full((25, 25), 460, np.uint16)})
    findings = by_subject(check_data_root(tree))
    assert "2008_000002.mat holds the value 460" in findings["val content"].message
    assert re.match(r"\d+\.\d % of the pixels", findings["train semseg void"].message)


def test_processes_find_what_one_finds(tree: Path) -> None:
    ids = ["2008_000001", "2008_000003"]
    (tree / "sal_distill/2008_000003.png").write_bytes(b"")
    files = {m: find_files(tree, kind, ids) for m, kind in PASCAL_MT.modalities.items()}
    images = [{m: paths[name] for m, paths in files.items()} for name in ids]
    assert scan(PASCAL_MT, images, lambda done: None, 2) == scan(PASCAL_MT, images, lambda done: None, 1)


def test_a_nyud_tree_is_recognised_and_its_defects_are_found(tmp_path: Path) -> None:
    root = write_nyud_tree(tmp_path / "NYUD_MT")
    findings = by_subject(check_data_root(root))
    assert findings["data root"].message.startswith("NYUD_MT layout (NYUD-v2)")
    assert "795" in findings["split train"].message
    assert findings["train content"].message == "2 images read in full: semseg, normals, depth, edges"
    np.save(root / "depth/0003.npy", np.zeros((26, 30)))
    (root / "edge/0001.npy").write_bytes(b"\x93NUMPY")
    shutil.rmtree(root / "normals")
    findings = check_data_root(root)
    assert "edge/0001.npy" in by_subject(findings, "fail")["train content"].message
    assert "NYUD_MT.tgz" in by_subject(findings, "fail")["val normals"].remedy
    assert "depth" in by_subject(findings, "warn")["val depth"].message


def test_images_without_a_label_are_named_and_all_of_them_listed(tree: Path, tmp_path: Path) -> None:
    findings = by_subject(check_data_root(tree, problems=tmp_path / "all.txt"))
    named = findings["train human_parts labels"]
    assert (named.status, named.message.split(": ")[-1]) == ("ok", "2008_000003, 2008_000005")
    assert "train\thuman_parts\tno labelled pixel\t2008_000003\n" in (tmp_path / "all.txt").read_text()


def test_void_is_told_of_every_task_that_has_any(tree: Path, tmp_path: Path) -> None:
    findings = by_subject(check_data_root(tree))
    void = {s.split()[1]: f.message.partition(" %")[0] for s, f in findings.items() if s.startswith("val") and s.endswith("void")}
    assert void["semseg"] == f"{100 * np.mean([2 / SIZES[name][0] for name in SPLITS['val']]):.1f}"
    assert void["human_parts"] == "100.0"  # nobody in val
    contexts = [scipy.io.loadmat(tree / f"pascal-context/trainval/{name}.mat")["LabelMap"] for name in SPLITS["val"]]
    assert void["normals"] == f"{100 * np.mean([1 - np.isin(context, VALID_CONTEXT_IDS).mean() for context in contexts]):.1f}"
    assert set(void) == {"semseg", "human_parts", "normals"}
    found = by_subject(check_data_root(write_nyud_tree(tmp_path / "NYUD_MT")))
    assert found["val depth void"].message.startswith(f"{100 * 2 / 26:.1f} %")
    assert found["val normals void"].message.startswith(f"{100 * 3 / 30:.1f} %")


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (lambda depth: depth * 1000, "fail", "millimetres"),
        (lambda depth: (depth * 25).astype(np.uint8), "fail", "0..255 of a picture"),
        (lambda depth: depth / 10, "warn", "0..1"),
        (lambda depth: depth - 1, "warn", "1 of 1 files hold negative values"),
        (lambda depth: np.where(depth > 5, np.nan, depth), "warn", "1 of 1 files hold not finite values"),
        (lambda depth: depth * 0, "warn", "none of the 1 images has a labelled pixel for depth"),
    ],
)
def test_depth_that_is_not_plausible_is_found(tmp_path: Path, change, status: str, said: str) -> None:
    root = write_nyud_tree(tmp_path / "NYUD_MT")
    np.save(root / "depth/0003.npy", change(np.load(root / "depth/0003.npy")))
    found = [f for f in check_data_root(root, problems=tmp_path / "all.txt") if f.subject.startswith("val depth") and f.status == status]
    assert any(said in f.message for f in found)
    assert all(f.remedy for f in found)
    listed = [line.split("\t") for line in (tmp_path / "all.txt").read_text().splitlines()]
    assert [line[3] for line in listed if line[1] == "depth"] == ([] if said == "0..1" else ["0003"])


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (lambda normals: np.rint((normals + 1) * 127.5).astype(np.uint8), "fail", "0..255 of a picture"),
        (lambda normals: np.where(np.arange(normals.shape[0])[:, None, None] < 4, np.nan, normals), "warn", "hold not finite values"),
    ],
)
def test_normals_that_are_no_vectors_are_found(tmp_path: Path, change, status: str, said: str) -> None:
    root = write_nyud_tree(tmp_path / "NYUD_MT")
    np.save(root / "normals/0003.npy", change(np.load(root / "normals/0003.npy")))
    found = [f for f in check_data_root(root, problems=tmp_path / "all.txt") if "normals values" in f.subject]
    assert [(f.subject, f.status) for f in found] == [("val normals values", status)]
    assert said in found[0].message
    listed = [line.split("\t") for line in (tmp_path / "all.txt").read_text().splitlines()]
    assert [line[3] for line in listed if line[1] == "normals"] == ["0003"]


def test_normals_of_any_length_are_vectors(tmp_path: Path) -> None:
    root = write_nyud_tree(tmp_path / "NYUD_MT")
    np.save(root / "normals/0003.npy", 127 * np.load(root / "normals/0003.npy"))
    assert not [f for f in check_data_root(root) if "normals values" in f.subject]


def test_plausible_depth_is_told_in_metres(tmp_path: Path) -> None:
    assert by_subject(check_data_root(write_nyud_tree(tmp_path / "N")), "ok")["train depth values"].message.startswith("metres: median 4.")


def test_labels_of_a_truncated_image_are_checked_on_their_own_against_its_header(tree: Path) -> None:
    image = tree / "JPEGImages/2008_000001.jpg"
    image.write_bytes(image.read_bytes()[:-30])
    write_parts(tree / "human_parts/2008_000001.mat", [("person", 15, np.ones((2, 2)), [("head", np.ones((2, 2)))])])
    Image.fromarray(np.zeros((31, 39), np.uint8)).save(tree / "sal_distill/2008_000001.png")
    failed = [f.message for f in check_data_root(tree) if f.status == "fail"]
    assert len(failed) == 3
    assert any("human_parts/2008_000001.mat is 2 x 2 (rows x columns), its image 30 x 41" in message for message in failed)
    assert any("sal_distill/2008_000001.png is 31 x 39" in message for message in failed)


def test_labels_of_an_image_of_unknown_size_are_checked_against_one_another(tree: Path) -> None:
    (tree / "JPEGImages/2008_000001.jpg").write_bytes(b"")
    (tree / "JPEGImages/2008_000003.jpg").unlink()
    write_parts(tree / "human_parts/2008_000001.mat", [("person", 15, np.ones((30, 45)), [("head", np.ones((30, 45)))])])
    (tree / "human_parts/2008_000003.mat").write_bytes(b"no matlab")
    failed = by_subject([f for f in check_data_root(tree) if f.status == "fail" and "human_parts" in f.message])
    assert failed.keys() == {"train content"}
    broken = [f.message for f in check_data_root(tree) if f.subject == "train content" and f.status == "fail"]
    assert len(broken) == 3
    assert any("2008_000001.mat: the labels of the image" in text and "human_parts 30 x 45" in text for text in broken)
    assert any("2008_000003.mat" in text for text in broken)


def test_masks_of_one_file_that_disagree_are_found_without_the_image(tree: Path) -> None:
    (tree / "JPEGImages/2008_000001.jpg").write_bytes(b"")
    write_parts(tree / "human_parts/2008_000001.mat", [("person", 15, np.ones((30, 41)), [("head", np.ones((30, 40)))])])
    assert any("has masks of different sizes: part 'head' 30 x 40, an object 30 x 41" in f.message for f in check_data_root(tree))


def test_where_no_size_is_that_of_most_every_label_is_named() -> None:
    found = disagreeing({"semseg": "a.png", "normals": "b.png"}, {"semseg": (3, 4), "normals": (4, 4)})
    assert [modality for modality, _ in found] == ["semseg", "normals"]
    assert not disagreeing({"semseg": "a.png"}, {"semseg": (3, 4)})


def test_labels_at_another_scale_are_named_and_no_failure(tree: Path) -> None:
    for name in ("2008_000001", "2008_000003"):
        path = tree / f"sal_distill/{name}.png"
        Image.fromarray(np.array(Image.open(path)).repeat(2, 0).repeat(2, 1)).save(path)
    findings = check_data_root(tree)
    assert not [f for f in findings if f.status == "fail"]
    warned = by_subject(findings, "warn")["train saliency sizes"]
    said = "2 of 3 files have another size than their image, the first 60 x 82 for 30 x 41 (rows x columns): 2008_000001, 2008_000003"
    assert warned.message == said


def test_what_is_no_regular_file_is_named_and_nothing_waits_for_it(tree: Path) -> None:
    for name in ("JPEGImages/2008_000001.jpg", "human_parts/2008_000003.mat", "sal_distill/2008_000005.png"):
        (tree / name).unlink()
        os.mkfifo(tree / name)
    (tree / "normals_distill/2008_000001.png").unlink()
    (tree / "normals_distill/2008_000001.png").mkdir()
    failed = [f.message for f in check_data_root(tree) if f.status == "fail"]
    assert len(failed) == 4
    assert all("no regular file" in message for message in failed)
    with pytest.raises(DataError, match="no regular file"):
        stamp_of(PascalContext(tree, "train"))


def test_a_picture_of_absurd_size_and_a_cut_header_of_an_array_are_named(tree: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # the images have more than twice as many
    assert len([f for f in check_data_root(tree) if "exceeds limit" in f.message]) > 4
    root = write_nyud_tree(tmp_path / "NYUD_MT")
    file = root / "depth/0003.npy"
    file.write_bytes(file.read_bytes().replace(b"}", b" ", 1))
    failed = [f.message for f in check_data_root(root) if f.status == "fail" and "0003.npy" in f.message]
    assert len(failed) == 1


@pytest.mark.parametrize("compressed", [True, False])
def test_a_sparse_label_map_is_a_broken_file(tree: Path, compressed: bool) -> None:
    content = {"LabelMap": scipy.sparse.csc_matrix(np.ones((25, 25)))}
    scipy.io.savemat(tree / "pascal-context/trainval/2008_000002.mat", content, do_compression=compressed)
    failed = [f for f in check_data_root(tree) if f.status == "fail"]
    assert [f.subject for f in failed] == ["val content"]
    assert "2008_000002.mat" in failed[0].message


def test_an_error_that_no_reader_foresaw_is_a_problem_of_its_file_and_ends_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pascal_files, "open_image", lambda path: Image.open(path) if "000004" in path else 1 / 0)
    failed = [f.message for f in check_data_root(tree) if f.subject == "val content" and f.status == "fail"]
    assert len(failed) == 4  # image, semseg, saliency and normals of one of the two
    assert f"{tree / 'JPEGImages/2008_000002.jpg'} cannot be read (ZeroDivisionError: division by zero); replace it" in failed
