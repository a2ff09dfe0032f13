"""The held-out split: from train only, stratified by class, the same on every machine, written down beside the results."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nyud_tree import write_nyud_tree

from bench.config import HeldOutConfig
from bench.data.heldout import held_out_file, held_out_ids, stratified
from bench.data.layout import DataError, fingerprint, read_split
from bench.data.pascal_context import PascalContext
from bench.data.roots import open_split
from bench.data.synthetic import SyntheticConfig, write_pascal_mt

HELD = HeldOutConfig(fraction=0.25, seed=1)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("held") / "PASCAL_MT"
    write_pascal_mt(root, SyntheticConfig(n_train=24, n_val=4, size=48, seed=5))
    return root


def test_train_and_held_out_part_the_training_split_in_its_order(tree: Path, tmp_path: Path):
    train, held = (open_split(tree, split, ("semseg",), held_out=HELD, store=tmp_path) for split in ("train", "held_out"))
    whole = read_split(tree, "train")
    assert len(held) == 6
    assert set(train.ids).isdisjoint(held.ids)
    assert sorted(train.ids + held.ids, key=whole.index) == whole
    assert sorted(held.ids, key=whole.index) == held.ids
    assert open_split(tree, "val", ("semseg",), held_out=HELD, store=tmp_path).ids == read_split(tree, "val")
    assert open_split(tree, "train", ("semseg",)).ids == whole


def test_ids_are_stored_beside_the_results_and_used_again(tree: Path, tmp_path: Path):
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    first = open_split(tree, "held_out", ("semseg",), held_out=HELD, store=tmp_path).ids
    file = held_out_file(tmp_path, fingerprint(tree), HELD.fraction, HELD.seed)
    stored = json.loads(file.read_text())
    assert stored["ids"] == first
    assert stored["fingerprint"] == fingerprint(tree)
    file.write_text(json.dumps(stored | {"ids": first[:2]}))
    assert open_split(tree, "held_out", ("semseg",), held_out=HELD, store=tmp_path).ids == first[:2]
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before


@pytest.mark.parametrize("content", ["", "{}", '{"ids": []}', '{"ids": ["elsewhere"]}', '{"ids": 3}'])
def test_a_damaged_draw_is_named_and_not_used(tree: Path, tmp_path: Path, content: str):
    held_out_file(tmp_path, fingerprint(tree), 0.25, 1).write_text(content)
    with pytest.raises(DataError, match=r"held-out-.*delete it"):
        open_split(tree, "train", ("semseg",), held_out=HELD, store=tmp_path)


def test_the_draw_depends_on_seed_and_fraction(tree: Path):
    train = PascalContext(tree, "train", ["semseg"])
    draws = [held_out_ids(train, fraction, seed) for fraction, seed in ((0.25, 1), (0.25, 1), (0.25, 2), (0.5, 1))]
    assert draws[0] == draws[1] != draws[2]
    assert [len(draw) for draw in draws] == [6, 6, 6, 12]


def test_at_least_one_image_stays_on_either_side(tmp_path: Path):
    root = write_nyud_tree(tmp_path / "NYUD_MT")
    held = HeldOutConfig(fraction=0.01)
    assert [len(open_split(root, split, ("depth",), held_out=held)) for split in ("train", "held_out")] == [1, 1]
    (root / "gt_sets/train.txt").write_text("0001\n")
    with pytest.raises(DataError, match="nothing to hold out"):
        open_split(root, "train", ("depth",), held_out=held)


def test_a_held_out_split_needs_a_draw(tree: Path):
    with pytest.raises(DataError, match=r"without data\.held_out"):
        open_split(tree, "held_out", ("semseg",))


@settings(deadline=None, max_examples=20)
@given(images=st.integers(2, 60), seed=st.integers(0, 99), data=st.data())
def test_the_number_chosen_is_exact(images: int, seed: int, data: st.DataObject):
    present = np.random.default_rng(seed).random((images, 5)) < 0.3
    count = data.draw(st.integers(1, images - 1))
    assert stratified(present, count, seed).sum() == count


def test_every_class_keeps_its_share_closer_than_a_plain_draw_would():
    rng = np.random.default_rng(0)
    present = rng.random((600, 20)) < np.geomspace(0.01, 0.5, 20)
    wanted = 0.1 * present.sum(axis=0)
    drawn, plain = [], []
    for seed in range(10):
        drawn.append(np.abs(present[stratified(present, 60, seed)].sum(axis=0) - wanted))
        plain.append(np.abs(present[rng.permutation(600)[:60]].sum(axis=0) - wanted))
    assert np.mean(drawn) < 0.4 * np.mean(plain)
    assert np.max(np.array(drawn)[:, :10]) <= 2  # rare classes are dealt first
