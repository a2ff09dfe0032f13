"""What the loader promises: the same batches whatever the workers, and the contract's shapes."""

from pathlib import Path

import pytest
import torch
from pascal_tree import SPLITS, write_tree
from torch.utils.data import default_collate

from bench.data.loader import Transformed, build_loader, epoch_order
from bench.data.pascal_context import DataError, PascalContext
from bench.tasks import TASK_NAMES

FORK_WARNING = "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "PASCAL_MT äöü 数")


def batches(tree: Path, **settings: object) -> list[dict]:
    dataset = PascalContext(tree, "train", TASK_NAMES, keep_raw=settings.pop("keep_raw", False))
    return list(build_loader(dataset, 2, image_size=24, **{"train": True, "seed": 3, "epoch": 1} | settings))


def assert_equal_batches(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a["id"] == b["id"]
        assert all((a[key] == b[key]).all() for key in a if key != "id")


@pytest.mark.filterwarnings(FORK_WARNING)
def test_batches_do_not_depend_on_workers_or_kept_samples(tree: Path) -> None:
    reference = batches(tree)
    assert_equal_batches(reference, batches(tree))
    assert_equal_batches(reference, batches(tree, workers=2))
    assert_equal_batches(reference, batches(tree, workers=2, keep_raw=True))
    assert_equal_batches(reference, batches(tree, keep_raw=True))


def test_batches_differ_between_epochs_and_seeds(tree: Path) -> None:
    def view(**settings: int) -> float:
        dataset = Transformed(PascalContext(tree, "train", ["semseg"]), image_size=24, train=True, **settings)
        return dataset[0]["image"].sum().item()

    assert len({view(seed=3, epoch=1), view(seed=3, epoch=2), view(seed=4, epoch=1)}) == 3
    assert epoch_order(50, seed=3, epoch=1) != epoch_order(50, seed=3, epoch=2) != epoch_order(50, seed=4, epoch=2)
    assert sorted(epoch_order(50, seed=3, epoch=1)) == list(range(50))


def test_batches_have_the_promised_shapes_and_types(tree: Path) -> None:
    (batch,) = batches(tree)
    assert {k: (tuple(v.shape), str(v.dtype)) for k, v in batch.items() if k != "id"} == {
        "image": ((2, 3, 24, 24), "torch.float32"),
        "semseg": ((2, 24, 24), "torch.uint8"),
        "human_parts": ((2, 24, 24), "torch.uint8"),
        "saliency": ((2, 24, 24), "torch.uint8"),
        "normals": ((2, 3, 24, 24), "torch.float32"),
    }
    assert set(batch["id"]) < set(SPLITS["train"])


def test_validation_keeps_all_images_in_order_and_training_drops_the_rest(tree: Path) -> None:
    kept = batches(tree, train=False)
    assert [i for batch in kept for i in batch["id"]] == SPLITS["train"]
    plain = Transformed(PascalContext(tree, "train", TASK_NAMES), image_size=24, train=False)
    assert_equal_batches(kept, [default_collate([plain[0], plain[1]]), default_collate([plain[2]])])
    assert [len(batch["id"]) for batch in batches(tree)] == [2]


def test_a_batch_larger_than_the_training_split_is_refused(tree: Path) -> None:
    with pytest.raises(DataError, match="3 training images make no batch of 4"):
        build_loader(PascalContext(tree, "train", ["semseg"]), 4, train=True, image_size=24)


@pytest.mark.filterwarnings(FORK_WARNING)
def test_a_data_error_in_a_worker_names_the_file(tree: Path) -> None:
    (tree / "sal_distill/2008_000003.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"sal_distill/2008_000003\.png"):
        batches(tree, workers=1, train=False)


def test_loading_leaves_the_global_random_stream_alone(tree: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    batches(tree)
    assert torch.rand(1) == expected
