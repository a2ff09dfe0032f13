"""A node's own copy of a prepared cache: made once, made anew when the shared one changed, and done without where there is no room."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cache import TASKS, assert_holds_the_tree, directory_of, opened, request_of, said, tree  # noqa: F401

from bench.data import node_copy
from bench.data.cache import open_cache
from bench.data.store import CachedStore


def on_node(tree: Path, said: list[str]) -> CachedStore:  # noqa: F811
    """Open the cache as a trial of a node does."""
    directory = node_copy.nearest(request_of(tree), tree.parent / "cache", tree.parent / "node", said.append)
    return open_cache(request_of(tree), TASKS, directory, say=said.append)


def copies(said: list[str]) -> int:  # noqa: F811
    return sum(line.startswith("copying ") for line in said)


def test_a_node_copies_the_shared_cache_once_and_builds_nothing(tree: Path, said: list[str]):  # noqa: F811
    shared = opened(tree)
    for _ in range(2):
        store = on_node(tree, said)
        assert (store.directory.parent, store.built) == (tree.parent / "node", False)
        assert all((store.flat[name] == shared.flat[name]).all() for name in shared.flat)
    assert copies(said) == 1


def test_a_shared_cache_of_other_bytes_is_copied_anew_and_the_former_copy_goes(tree: Path, said: list[str]):  # noqa: F811
    opened(tree)
    former = on_node(tree, said).directory
    image = tree / "JPEGImages" / "2008_000001.jpg"
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    opened(tree)
    store = on_node(tree, said)
    assert (store.built, copies(said), former.exists()) == (False, 2, False)
    assert_holds_the_tree(store, tree)


def test_a_copy_that_was_cut_short_is_made_again(tree: Path, said: list[str]):  # noqa: F811
    opened(tree)
    (on_node(tree, said).directory / "manifest.json").write_text("{")
    assert on_node(tree, said).built is False
    assert copies(said) == 2


def test_a_node_without_room_reads_the_shared_cache_and_says_so(tree: Path, said: list[str], monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    opened(tree)
    monkeypatch.setattr(node_copy, "SPARE_BYTES", 2**60)
    store = on_node(tree, said)
    assert (store.directory, store.built) == (directory_of(tree), False)
    assert any("is read where it is" in line and "TMPDIR" in line for line in said)
    assert not list((tree.parent / "node").glob("*-*/"))


def test_without_a_shared_cache_the_node_builds_its_own(tree: Path, said: list[str]):  # noqa: F811
    store = on_node(tree, said)
    assert (store.directory.parent, store.built) == (tree.parent / "node", True)
