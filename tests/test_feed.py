"""What the feed promises: the same batches whatever mode, workers and kernel, and the contract's shapes."""

import threading
from pathlib import Path

import pytest
import torch
from pascal_tree import SPLITS, write_tree

from bench.data import feed as feed_module
from bench.data import resample as resample_module
from bench.data.cache import Request, open_cache
from bench.data.feed import Augmentation, Feed, epoch_order
from bench.data.feed_modes import fits, open_store
from bench.data.layout import DataError
from bench.data.pascal_context import PascalContext
from bench.data.resample import place, resample_torch
from bench.data.store import FileStore

TASKS = ("semseg", "human_parts", "saliency", "normals")


class Opener:
    """Opens a split of a tree; picklable."""

    def __init__(self, root: Path, split: str = "train") -> None:
        self.root, self.split = root, split

    def __call__(self, tasks: tuple[str, ...]) -> PascalContext:
        return PascalContext(self.root, self.split, tasks)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "PASCAL_MT äöü 数")


def feed_of(tree: Path, mode: str = "files", tasks: tuple[str, ...] = TASKS, **changes: object) -> Feed:
    store = FileStore(PascalContext(tree, "train", tasks))
    if mode != "files":
        store = open_cache(Request(tree, "train", Opener(tree)), tasks, tree.parent / "cache")
        store = store.on("cpu") if mode == "device" else store
    settings = {"image_size": 24, "mode": mode, "augmentation": Augmentation(), "seed": 3} | changes
    return Feed(store, settings.pop("batch_size", 2), **settings)


def assert_equal_batches(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a["id"] == b["id"]
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a if key != "id")


def test_batches_depend_on_neither_mode_nor_workers_nor_kernel(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = list(feed_of(tree)(1))
    for mode in feed_module.MODES:
        for workers in (0, 1, 2):
            assert_equal_batches(reference, list(feed_of(tree, mode, workers=workers)(1)))
    assert_equal_batches(reference, [feed_of(tree, batch_size=2)(1).__next__()])
    monkeypatch.setattr(resample_module, "kernels", lambda: None)
    assert_equal_batches(reference, list(feed_of(tree)(1)))
    monkeypatch.setattr(resample_module, "_GROUP", 1)
    assert_equal_batches(reference, list(feed_of(tree)(1)))


def test_samples_that_are_gathered_for_a_gpu_are_those_of_the_whole_arrays(tree: Path) -> None:
    """What goes to a GPU from a cache, resampled by the code that runs there."""
    feed, chosen = feed_of(tree, "cache"), [2, 0]
    whole, apart = feed.store.samples(chosen), feed.store.gathered(chosen, pinned=False)
    assert sum(array.numel() for array in apart.flat.values()) < sum(array.numel() for array in whole.flat.values())
    batches = [
        resample_torch(each.flat, feed.kinds, place(each.first, each.stored, each.native, feed.views(chosen, 1), feed.size), feed.size)
        for each in (whole, apart)
    ]
    assert all(torch.equal(batches[0][key], batches[1][key]) for key in batches[0])


def test_a_sample_depends_on_neither_batch_size_nor_the_other_tasks(tree: Path) -> None:
    single = {batch["id"][0]: batch for batch in feed_of(tree, batch_size=1, tasks=("normals",))(1)}
    for batch in feed_of(tree, batch_size=3)(1):
        for at, name in enumerate(batch["id"]):
            assert all(torch.equal(batch[key][at], single[name][key][0]) for key in ("image", "normals"))


def test_batches_differ_between_epochs_and_seeds(tree: Path) -> None:
    def view(seed: int, epoch: int) -> tuple:
        return feed_of(tree, seed=seed).views([0], epoch)[0]

    assert len({view(3, 1), view(3, 2), view(4, 1)}) == 3
    assert view(3, 1) == view(3, 1)
    assert len(set(feed_of(tree).views([0, 1, 2], 1))) == 3
    assert feed_of(tree).views([2, 0], 1) == feed_of(tree).views([0, 1, 2], 1)[::-2]
    assert epoch_order(50, seed=3, epoch=1) != epoch_order(50, seed=3, epoch=2) != epoch_order(50, seed=4, epoch=2)
    assert sorted(epoch_order(50, seed=3, epoch=1)) == list(range(50))


def test_views_are_drawn_from_their_ranges_and_half_are_mirrored(tree: Path) -> None:
    feed = feed_of(tree, augmentation=Augmentation(rotation=7.0, scale=(0.9, 1.3)))
    views = [feed.views([0], epoch)[0] for epoch in range(400)]
    assert 160 < sum(view.mirrored for view in views) < 240
    assert -7 <= min(view.angle_deg for view in views) < -6.5 < 6.5 < max(view.angle_deg for view in views) < 7
    assert 0.9 <= min(view.zoom for view in views) < 0.92 < 1.28 < max(view.zoom for view in views) < 1.3
    still = feed_of(tree, augmentation=Augmentation(flip=False, rotation=7.0, scale=(0.9, 1.3)))
    other = [still.views([0], epoch)[0] for epoch in range(400)]
    assert not any(view.mirrored for view in other)
    assert [view[1:] for view in other] == [view[1:] for view in views]  # the draws do not depend on the settings


def test_batches_have_the_promised_shapes_and_types(tree: Path) -> None:
    (batch,) = feed_of(tree)()
    assert {k: (tuple(v.shape), str(v.dtype), v.is_contiguous()) for k, v in batch.items() if k != "id"} == {
        "image": ((2, 3, 24, 24), "torch.float32", True),
        "semseg": ((2, 24, 24), "torch.uint8", True),
        "human_parts": ((2, 24, 24), "torch.uint8", True),
        "saliency": ((2, 24, 24), "torch.uint8", True),
        "normals": ((2, 3, 24, 24), "torch.float32", True),
    }
    assert set(batch["id"]) < set(SPLITS["train"])


def test_evaluation_keeps_all_images_in_order_and_training_drops_the_rest(tree: Path) -> None:
    kept = list(feed_of(tree, augmentation=None)())
    assert [i for batch in kept for i in batch["id"]] == SPLITS["train"]
    assert [len(batch["id"]) for batch in feed_of(tree)()] == [2]
    assert_equal_batches([feed_of(tree).first()], list(feed_of(tree)(0)))


def test_a_batch_larger_than_the_training_split_is_refused(tree: Path) -> None:
    with pytest.raises(DataError, match="3 training images make no batch of 4"):
        feed_of(tree, batch_size=4)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_error_names_the_file_and_leaves_no_thread(tree: Path, workers: int) -> None:
    (tree / "sal_distill/2008_000003.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"sal_distill/2008_000003\.png"):
        list(feed_of(tree, workers=workers, augmentation=None)())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_a_feed_that_is_left_early_leaves_no_thread(tree: Path) -> None:
    batches = feed_of(tree, workers=2, batch_size=1)()
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_feeding_leaves_the_global_random_stream_alone(tree: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(feed_of(tree, workers=1)())
    assert torch.rand(1) == expected


def test_memory_is_used_again_only_when_nobody_holds_it(tree: Path) -> None:
    feed = feed_of(tree, image_size=320, batch_size=1)
    held = list(feed(0))
    copies = [batch["image"].clone() for batch in held]
    view = held[0]["image"][0, 0]
    address = held[1]["image"].data_ptr()
    del held[1:]
    again = list(feed(0))
    assert address in {batch[key].data_ptr() for batch in again for key in ("image", "normals")}
    assert torch.equal(view, copies[0][0, 0])
    assert_equal_batches([{"id": [], "image": copy} for copy in copies], [{"id": [], "image": batch["image"]} for batch in again])


def test_the_mode_follows_from_the_size(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, cpu, cuda = Request(tree, "train", Opener(tree)), torch.device("cpu"), torch.device("cuda")
    assert open_store(request, ("semseg",), cache_dir=None, device=cpu)[1] == "files"
    assert open_store(request, ("semseg",), cache_dir=tree.parent / "cache", device=cpu)[1] == "device"
    assert open_store(request, ("semseg",), cache_dir=tree.parent / "cache", device=cpu, taken=2**30)[1] == "cache"
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40 * gib, 80 * gib))
    assert fits(20 * gib, cuda)
    assert not fits(20 * gib, cuda, taken=1)
    assert not fits(11 * gib, cuda, share=0.5)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * gib, 80 * gib))
    assert not fits(6 * gib, cuda)
