"""The feed's benchmark: its plain reader reads what the suite's reads, the share of a step spent waiting is what a clock by hand says."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pascal_tree import write_tree

from bench.data.pascal_context import PascalContext
from bench.data.store import CachedStore
from bench.training import loop
from benchmarks import feed, per_sample, waiting
from benchmarks.feed import TASKS


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "PASCAL_MT")


@pytest.fixture
def store(tree: Path) -> CachedStore:
    return feed.opened(tree, tree.parent / "cache")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> waiting.Workload:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    load = dataclasses.replace(waiting.WORKLOADS["cpu"], size=32, batch=2, steps=3, rounds=2, decoder_channels=(4, 4, 8, 8))
    monkeypatch.setitem(waiting.WORKLOADS, "cpu", load)
    return load


def test_the_plain_reader_reads_what_the_suite_reads(tree: Path):
    suites = PascalContext(tree, "train", TASKS)
    for name, expected in zip(suites.ids, suites, strict=True):
        found = per_sample.read({modality: paths[name] for modality, paths in suites.files.items()})
        assert found.keys() | {"id"} == expected.keys()
        for task in ("image", *TASKS[:3]):
            assert found[task].dtype == expected[task].dtype
            np.testing.assert_array_equal(found[task], expected[task])
        assert found["normals"].dtype == np.float32
        np.testing.assert_allclose(found["normals"], expected["normals"], atol=1e-6)


def test_a_long_epoch_gives_the_splits_samples_in_turn(store: CachedStore):
    longer, count = waiting.repeated(store, 7), len(store.ids)
    assert longer.ids == tuple(store.ids[index % count] for index in range(7))
    for index in range(7):
        one, other = longer.samples([index]), store.samples([index % count])
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(one[1:], other[1:], strict=True))


def test_the_share_is_what_a_clock_by_hand_says(store: CachedStore, tiny: waiting.Workload, monkeypatch: pytest.MonkeyPatch):
    """A batch takes 1 s to come, a step 2 s at first and half a second more in each block: the drift cancels between the neighbours."""
    now, steps = [0.0], [0]

    def step(*arguments: object) -> dict[str, float]:
        steps[0] += 1
        now[0] += 2 + 0.5 * ((steps[0] - 1) // tiny.steps)
        return {"total": 1.0}

    def slow(epoch: int) -> Iterator[dict[str, torch.Tensor]]:
        for _ in range(tiny.steps):
            now[0] += 1
            yield {}

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(loop, "train_step", step)
    trainer = waiting.Trainer(tiny.config(store.tasks), torch.device("cpu"), tiny.steps)
    runs = waiting.alternated(trainer.block, lambda: iter([{}] * tiny.steps), {"slow": slow}, rounds=2)
    alone = [2 + 0.5 * 3, 2 + 0.5 * 5]  # two blocks warm up, one of (i), then (ii) and (i) in turn
    for block, seconds in zip(runs["slow"], alone, strict=True):
        assert block["resident_seconds"] == pytest.approx(seconds)
        assert block["fed_seconds"] == pytest.approx(seconds + 1)
        assert block["share"] == pytest.approx(1 / (seconds + 1))
        assert block["wait_share"] == pytest.approx(1 / (seconds + 1))


def test_every_mode_trains_and_a_cpu_is_said_to_be_one(store: CachedStore, tiny: waiting.Workload):
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    try:
        found = waiting.measure(store, {"rounds": 1})
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
    assert list(found["modes"]) == ["on the device, no loader", "loader, 1 workers", "loader, 2 workers", waiting.CONTROL]
    for (block,) in found["modes"].values():
        assert block["share"] == pytest.approx(1 - block["resident_seconds"] / block["fed_seconds"])
        assert 0 <= block["wait_share"] <= 1
    text = waiting.report(found)
    assert "these shares are the CPU's" in text
    assert "batch 2, fp32" in " ".join(text.split())
    assert all(f"| {name}" in text for name in found["modes"])


@pytest.mark.parametrize(
    ("shares", "said"),
    [([0.002, 0.004, 0.5], "below 1%, is reached in every mode"), ([0.02, 0.01, 0.0], "below 1%, is missed: loader, 1 workers")],
)
def test_a_gpus_report_shows_the_shares_and_judges_the_goal_by_their_median(shares: list[float], said: str):
    blocks = {"resident_seconds": 0.1, "fed_seconds": 0.1, "wait_share": 0.0}
    modes = {"on the device, no loader": [0.0], "loader, 1 workers": shares, waiting.CONTROL: [0.9]}
    runs = {name: [blocks | {"share": share} for share in each] for name, each in modes.items()}
    text = waiting.report({"device": "cuda", "workload": dataclasses.asdict(waiting.WORKLOADS["cuda"]), "samples": 64, "modes": runs})
    assert "Measured on a GPU" in text
    assert f"{100 * min(shares):.2f} to {100 * max(shares):.2f}" in text
    assert said in text
