"""Losses and metrics of depth, and the loss of edges, against hand arithmetic; a tiny trial on all tasks of NYUD, and one on edges."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nyud_tree import write_nyud_tree
from rich.console import Console

from bench.config import BackboneConfig, DataConfig, HeldOutConfig, RecipeConfig, TrialConfig
from bench.data.synthetic import SyntheticConfig
from bench.launch import data_config, prepare_data
from bench.measure.metrics import METRICS
from bench.tasks import IGNORE, NYUD_TASKS
from bench.training.losses import LOSSES
from bench.trial import Launch, run_trial
from methods.frozen import FrozenConfig


def maps(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


def test_depth_loss_averages_over_valid_pixels_only():
    logits = maps(1, 2, 9).requires_grad_()
    loss = LOSSES["depth"](logits, maps(3, 2.5, 0))
    assert loss.item() == pytest.approx((2 + 0.5) / 2)
    loss.backward()
    assert logits.grad.flatten().tolist() == [-0.5, -0.5, 0]
    nothing = LOSSES["depth"](logits, maps(0, 0, 0))
    assert nothing.item() == 0


def test_depth_scores_are_by_hand():
    metric = METRICS["depth"]()
    metric.update(maps(1, 3, 4, 7), maps(2, 3, 5, 0))
    metric.update(maps(2, 2, 2, 2), maps(0, 0, 4, 0))
    scores = metric.compute()
    assert scores["rmse_m"] == pytest.approx(math.sqrt((1 + 0 + 1 + 4) / 4))
    assert scores["mae_m"] == pytest.approx((1 + 0 + 1 + 2) / 4)
    assert scores["abs_rel"] == pytest.approx(100 * (1 / 2 + 0 + 1 / 5 + 2 / 4) / 4)
    assert scores["ratio_below_1.25"] == pytest.approx(25)  # 5 / 4 is not below 1.25
    assert scores["ratio_below_1.5625"] == pytest.approx(50)
    assert scores == METRICS["depth"]().scores(metric.per_image())


def test_depth_without_labels_has_no_score_and_a_negative_prediction_has():
    metric = METRICS["depth"]()
    metric.update(maps(1, 2), maps(0, 0))
    assert set(metric.compute().values()) == {None}
    metric.update(maps(-1, -2), maps(1, 1))
    assert metric.compute()["rmse_m"] == pytest.approx(math.sqrt((4 + 9) / 2))
    assert metric.compute()["ratio_below_1.25"] == 0


def test_edge_loss_weighs_edges_by_0_95():
    logits, label = torch.zeros(1, 1, 1, 4), torch.tensor([[[1, 0, 0, IGNORE]]], dtype=torch.uint8)
    assert LOSSES["edges"](logits, label).item() == pytest.approx((0.95 + 2 * 0.05) * math.log(2) / 3)
    assert LOSSES["edges"](logits, torch.full_like(label, IGNORE)).item() == 0


def tiny(tasks: tuple[str, ...], data: DataConfig) -> TrialConfig:
    return TrialConfig(
        method_name="frozen",
        method=FrozenConfig(),
        tasks=tasks,
        data=data,
        backbone=BackboneConfig(name="swin_micro_patch4_window4_64", weights="scratch", drop_path=0.0),
        decoder_channels=(4, 4, 8, 8),
        recipe=RecipeConfig(epochs=1, warmup_epochs=0.5, batch_size=2, image_size=32),
    )


def run(config: TrialConfig, results: Path, data_root: Path | None = None) -> dict[str, Any]:
    prepare_data([config], results, data_root, Console(quiet=True))
    return run_trial(
        config, Launch(suite="tiny", suite_dir=results / "tiny", data_root=data_root), started=time.time(), on_epoch=lambda _: None
    )


def test_a_trial_learns_edges_beside_other_tasks(tmp_path: Path):
    data = DataConfig(synthetic=SyntheticConfig(n_train=4, n_val=2, size=48, seed=1), held_out=HeldOutConfig(fraction=0.25))
    record = run(tiny(("semseg", "edges"), data), tmp_path)
    assert record["status"] == "ok", record["reason"]
    assert 0 <= record["metrics"]["edges"]["odsf"] <= 100
    assert record["data"]["n_train"] == 3
    with np.load(tmp_path / "tiny/records" / record["per_image"], allow_pickle=False) as rows:
        assert rows["edges/matched"].shape == (2, 99)


def test_a_trial_learns_all_tasks_of_nyud(tmp_path: Path):
    root = write_nyud_tree(tmp_path / "NYUD_MT")
    record = run(tiny(NYUD_TASKS, data_config(root)), tmp_path, root)
    assert record["status"] == "ok", record["reason"]
    assert set(record["metrics"]) == set(NYUD_TASKS)
    assert record["metrics"]["depth"]["rmse_m"] > 0
    assert len([key for key in record["metrics"]["semseg"] if key.startswith("iou/")]) == 40
