"""A trial repeats to the bit, resumes as if unbroken, and turns every failure into a record."""

import dataclasses
import importlib.metadata
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import trial as trial_module
from bench.config import TrialConfig
from bench.data import feed_modes
from bench.data.roots import ensure_synthetic, synthetic_root
from bench.model.multitask import build_model
from bench.record import read_record
from bench.suites import load
from bench.training import loop
from bench.training.checkpoint import FitState
from bench.trial import Launch, run_trial
from methods.mtlora import MTLoRAConfig

ROWS = {row.label: row for row in load("smoke").rows}
BASE = ROWS["Decoders only"].trials[0]
MTLORA = dataclasses.replace(BASE, method_name="mtlora", method=MTLoRAConfig(rank=2, task_rank=2))


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    results = tmp_path_factory.mktemp("results")
    ensure_synthetic(results, BASE.data.synthetic)
    return Launch(suite="smoke", suite_dir=results / "smoke", command="test")


def elsewhere(launch: Launch, name: str) -> Launch:
    """Another suite directory over the same rendered data."""
    return dataclasses.replace(launch, suite_dir=launch.suite_dir.parent / name)


def run(config: TrialConfig, launch: Launch, **changes) -> dict:
    return run_trial(config, launch, started=time.time(), **({"on_epoch": lambda line: None} | changes))


def measured(record: dict) -> dict:
    """What must not differ between two runs of one trial on one machine."""
    costs = {key: value for key, value in record["cost"].items() if "seconds" not in key and key != "images_per_second"}
    history = [{key: value for key, value in line.items() if key != "seconds"} for line in record["history"]]
    same = {key: record[key] for key in ("run_id", "cell_id", "status", "metrics", "params", "config")}
    same["data"] = {key: value for key, value in record["data"].items() if key != "feed"}
    return same | {"cost": costs, "history": history}


def per_image(launch: Launch, record: dict) -> dict[str, np.ndarray]:
    with np.load(launch.suite_dir / "records" / record["per_image"], allow_pickle=False) as arrays:
        return dict(arrays)


def test_same_trial_twice_gives_the_same_record_to_the_bit(launch: Launch):
    first = run(MTLORA, launch)
    torch.rand(7)  # another state of the global generator
    second = run(MTLORA, elsewhere(launch, "again"))
    assert first["status"] == "ok", first["reason"]
    assert measured(first) == measured(second)
    images = per_image(launch, first)
    assert len(images["id"]) == 5
    assert first["panels"] == f"{MTLORA.run_id}.panels.npz"
    own = [directory / "records" / first["panels"] for directory in (launch.suite_dir, elsewhere(launch, "again").suite_dir)]
    assert own[0].read_bytes() == own[1].read_bytes()
    for name, values in per_image(elsewhere(launch, "again"), second).items():
        np.testing.assert_array_equal(values, images[name])


def test_edges_train_as_a_fifth_task(launch: Launch):
    base = next(row for row in load("pascal_edges").rows if row.label == "Decoders only").trials[0]
    assert base.tasks == (*load("pascal").trials[-1].tasks, "edges")
    record = run(dataclasses.replace(MTLORA, tasks=base.tasks), elsewhere(launch, "five tasks"))
    assert record["status"] == "ok", record["reason"]
    assert set(record["metrics"]["edges"]) >= {"odsf", "oisf", "ap"}
    assert [set(line["losses"]) for line in record["history"]] == [set(base.tasks)] * len(record["history"])


def test_the_record_depends_on_neither_the_feeds_mode_nor_its_workers(launch: Launch, monkeypatch: pytest.MonkeyPatch):
    caches = launch.suite_dir.parent / "cache"
    records = [run(MTLORA, elsewhere(launch, "files"))]
    records += [run(MTLORA, dataclasses.replace(elsewhere(launch, f"device{n}"), cache_dir=caches, loader_workers=n)) for n in (0, 2)]
    monkeypatch.setattr(feed_modes, "HOST_BYTES", 0)
    records += [run(MTLORA, dataclasses.replace(elsewhere(launch, "cache"), cache_dir=caches, loader_workers=1))]
    assert [record["data"]["feed"]["mode"] for record in records] == ["files", "device", "device", "cache"]
    assert all(measured(record) == measured(records[0]) for record in records)
    assert all(0 < record["data"]["feed"]["wait_share"] < 1 for record in records)


def test_another_seed_gives_other_losses(launch: Launch):
    first = run(MTLORA, elsewhere(launch, "seeds"))
    second = run(dataclasses.replace(MTLORA, seed=1), elsewhere(launch, "seeds"))
    assert first["history"][-1]["loss"] != second["history"][-1]["loss"]


class KilledError(BaseException):
    """Stands for SIGKILL: nothing in the trial catches it."""


@pytest.mark.parametrize("killed_after", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_trial_resumes_with_the_losses_of_an_unbroken_one(launch: Launch, killed_after: int, precision: str):
    config = dataclasses.replace(MTLORA, recipe=dataclasses.replace(MTLORA.recipe, precision=precision))
    unbroken = run(config, elsewhere(launch, f"unbroken-{precision}-{killed_after}"))

    def kill(line: dict) -> None:
        if line["epoch"] == killed_after:
            raise KilledError

    broken = elsewhere(launch, f"broken-{precision}-{killed_after}")
    with pytest.raises(KilledError):
        run(config, broken, on_epoch=kill)
    assert not list((broken.suite_dir / "records").glob("*")) if (broken.suite_dir / "records").exists() else True
    epochs = []
    resumed = run(config, broken, on_epoch=lambda line: epochs.append(line["epoch"]))
    assert epochs == list(range(killed_after + 1, 4))
    assert measured(resumed) == measured(unbroken)
    assert not list((broken.suite_dir / "checkpoints").iterdir())


@pytest.mark.parametrize("content", ["damaged", "stale"])
def test_a_checkpoint_that_is_damaged_or_of_other_code_is_not_used(launch: Launch, content: str, caplog: pytest.LogCaptureFixture):
    place = elsewhere(launch, f"checkpoint-{content}")
    checkpoint = place.suite_dir / "checkpoints" / f"{BASE.run_id}.pt"
    checkpoint.parent.mkdir(parents=True)
    if content == "damaged":
        checkpoint.write_bytes(b"no checkpoint")
    else:
        torch.save({"identity": "another"}, checkpoint)
    record = run(BASE, place)
    assert record["status"] == "ok", record["reason"]
    assert len(record["history"]) == BASE.recipe.epochs
    assert "starts again" in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("planted"), "failed"),
        (torch.OutOfMemoryError("planted"), "oom"),
        (MemoryError("planted"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: planted"), "oom"),
        (KeyError("planted"), "failed"),
    ],
)
def test_a_failing_trial_becomes_a_record_with_status_and_reason(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(trial_module, "build_model", broken)
    place = elsewhere(launch, f"failing-{type(error).__name__}-{status}")
    record = run(MTLORA, place)
    assert record["status"] == status
    assert "planted" in record["reason"]
    assert read_record(place.suite_dir / "records" / f"{MTLORA.run_id}.json")["metrics"] is None


def test_a_diverging_trial_becomes_a_record(launch: Launch, monkeypatch: pytest.MonkeyPatch):
    original = build_model

    def poisoned(*args, **kwargs):
        model = original(*args, **kwargs)
        with torch.no_grad():
            model.decoders["semseg"].head[0].weight.fill_(float("nan"))
        return model

    monkeypatch.setattr(trial_module, "build_model", poisoned)
    record = run(MTLORA, elsewhere(launch, "diverging"))
    assert record["status"] == "diverged"
    assert "learning rate" in record["reason"]


def test_a_trial_that_diverges_keeps_the_course_of_its_epochs_and_says_when(launch: Launch, monkeypatch: pytest.MonkeyPatch):
    original, good = loop.train_step, run(MTLORA, elsewhere(launch, "whole"))

    def failing(*args, **kwargs):
        if len(calls) >= steps * 2:
            raise loop.DivergedError("the loss is planted")
        calls.append(1)
        return original(*args, **kwargs)

    calls, steps = [], good["data"]["n_train"] // MTLORA.recipe.batch_size
    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", failing)
        record = run(MTLORA, elsewhere(launch, "planted"))
    assert record["status"] == "diverged"
    assert record["reason"] == f"epoch 3, step 1 of {steps}: the loss is planted"
    assert [line["loss"] for line in record["history"]] == [line["loss"] for line in good["history"][:2]]


def test_missing_data_becomes_a_record_that_names_it(tmp_path: Path):
    record = run(MTLORA, Launch(suite="smoke", suite_dir=tmp_path / "smoke"))
    assert record["status"] == "invalid"
    assert "synthetic-" in record["reason"]


def test_a_task_starts_from_the_same_decoder_alone_and_among_others():
    alone = build_model(dataclasses.replace(BASE, tasks=("saliency",)))
    together = build_model(BASE)
    for name, value in alone.decoders["saliency"].state_dict().items():
        torch.testing.assert_close(value, together.decoders["saliency"].state_dict()[name], rtol=0, atol=0)


def test_decoders_of_two_tasks_start_apart_and_so_do_those_of_two_seeds():
    model, other = build_model(BASE), build_model(dataclasses.replace(BASE, seed=1))
    first = {task: decoder.narrow[0].weight for task, decoder in model.decoders.items()}
    assert len({tuple(weight.flatten().tolist()) for weight in first.values()}) == len(BASE.tasks)
    assert not any(torch.equal(weight, other.decoders[task].narrow[0].weight) for task, weight in first.items())


def test_methods_of_one_seed_start_from_the_same_backbone_and_decoders():
    frozen, mtlora = build_model(BASE), build_model(MTLORA)
    torch.testing.assert_close(frozen.decoders.state_dict(), mtlora.decoders.state_dict(), rtol=0, atol=0)
    name = "swin.layers.2.blocks.0.mlp.fc1"
    torch.testing.assert_close(
        frozen.backbone.get_submodule(name).weight, mtlora.backbone.get_submodule(f"{name}.linear").weight, rtol=0, atol=0
    )


def test_the_record_says_where_its_numbers_come_from(launch: Launch):
    record = run(BASE, elsewhere(launch, "provenance"))
    assert record["env"]["torch"] == importlib.metadata.version("torch")
    assert record["env"]["threads"] == 1
    assert record["config"] == BASE.to_dict()
    assert TrialConfig.from_dict(record["config"]) == BASE
    assert record["timing"]["trial_start"] <= record["timing"]["imports_done"] <= record["timing"]["train_start"]
    assert record["timing"]["train_start"] <= record["timing"]["train_end"] <= record["timing"]["end"]
    assert set(record["metrics"]) == set(BASE.tasks)
    assert record["cost"]["peak_allocated_bytes"] is None or torch.cuda.is_available()


def test_probing_the_memory_leaves_model_gradients_and_random_state_as_they_were(launch: Launch):
    root = synthetic_root(launch.suite_dir.parent, BASE.data.synthetic)
    batch = feed_modes.open_feeds(MTLORA, root, device=torch.device("cpu"), cache_dir=None, splits=("train",))["train"].first()
    model = build_model(MTLORA).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    assert trial_module.probe_memory(model, batch, MTLORA)["gradients"] > 0
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


def test_data_that_lies_on_the_device_is_no_part_of_a_trials_peaks():
    line, recipe = {"seconds": 2.0}, MTLORA.recipe
    fitted = FitState(history=[line, line], step_seconds=[0.5, 0.7], peak_allocated_bytes=1000, peak_reserved_bytes=1500)
    costs = trial_module.step_costs(fitted, recipe, resident=300, images=12)
    assert (costs["peak_allocated_bytes"], costs["peak_reserved_bytes"], costs["images_per_second"]) == (700, 1200, 3.0)
    assert (costs["step_seconds"]["n"], costs["step_seconds"]["median"]) == (2, pytest.approx(0.6))
    assert trial_module.step_costs(FitState(history=[line]), recipe, resident=0, images=4)["peak_allocated_bytes"] is None


def test_frozen_layers_save_fewer_activations_than_full_fine_tuning(launch: Launch):
    place = elsewhere(launch, "memory")
    full, frozen = (run(ROWS[label].trials[0], place) for label in ("Multi-task full fine-tuning", "Decoders only"))
    assert frozen["cost"]["step_memory_bytes"]["saved_activations"] < full["cost"]["step_memory_bytes"]["saved_activations"]
    assert frozen["cost"]["flops_per_image"] == full["cost"]["flops_per_image"]
    assert frozen["params"]["trainable"] == frozen["params"]["groups"]["decoders"]["total"]
