"""Optimiser groups, and the schedule against the release's values."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.training.optim import build_optimizer, learning_rate, release_lrs

SCHEDULE = {"steps_per_epoch": 10, "epochs": 5, "warmup_epochs": 1, "peak_lr": 1.0, "warmup_lr": 0.1, "min_lr": 0.2}


@pytest.mark.golden("lr*.npz")
def test_learning_rate_equals_the_release_at_every_golden_step(golden_file):
    golden = np.load(golden_file)
    epochs, steps_per_epoch = int(golden["epochs"]), int(golden["iters_per_epoch"])
    lrs = release_lrs(int(golden["batch"]))._asdict()
    for step, expected in zip(golden["step_update_arg"], golden["lr"], strict=True):
        lr = learning_rate(int(step), steps_per_epoch=steps_per_epoch, epochs=epochs, warmup_epochs=20, **lrs)
        assert lr == pytest.approx(float(expected), rel=1e-12)
    assert lrs["warmup_lr"] == pytest.approx(float(golden["lr_before_any_update"]), rel=1e-12)


def test_learning_rate_equals_timm_at_every_step():
    scheduler_module = pytest.importorskip("timm.scheduler.cosine_lr")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = scheduler_module.CosineLRScheduler(
        optimizer, t_initial=40, lr_min=0.2, warmup_lr_init=0.1, warmup_t=10, t_in_epochs=False, warmup_prefix=True, cycle_limit=1
    )
    for step in range(55):
        scheduler.step_update(step)
        assert learning_rate(step, **SCHEDULE) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_learning_rate_without_warm_up_starts_at_the_peak_and_ends_at_the_floor():
    schedule = SCHEDULE | {"warmup_epochs": 0}
    values = [learning_rate(step, **schedule) for step in range(52)]
    assert values[0] == 1.0
    assert values[25] == pytest.approx(0.6)
    assert values[50] == values[51] == pytest.approx(0.2)
    assert values == sorted(values, reverse=True)


def test_a_warm_up_of_part_of_an_epoch_ends_at_the_nearest_step():
    schedule = SCHEDULE | {"steps_per_epoch": 100, "warmup_epochs": 0.29}  # 0.29 * 100 is 28.999999999999996
    rates = [learning_rate(step, **schedule) for step in (28, 29, 30)]
    assert rates[0] == pytest.approx(0.1 + 28 * 0.9 / 29)
    assert rates[1] == 1.0 > rates[2]


def test_a_warm_up_as_long_as_the_training_never_falls():
    values = [learning_rate(step, **(SCHEDULE | {"warmup_epochs": 5})) for step in range(50)]
    assert values == sorted(values)
    assert values[49] == pytest.approx(0.1 + 49 * 0.9 / 50)


@pytest.mark.parametrize("change", [{"warmup_epochs": 5.1}, {"warmup_epochs": -1}, {"epochs": 0}])
def test_a_schedule_that_cannot_be_is_an_error(change):
    with pytest.raises(ValueError, match=r"must|need"):
        learning_rate(0, **(SCHEDULE | change))


def test_a_negative_step_is_an_error():
    with pytest.raises(ValueError, match="step is -1"):
        learning_rate(-1, **SCHEDULE)


def test_release_rates_scale_with_the_batch():
    assert release_lrs(512) == (5e-4, 5e-7, 5e-6)
    assert release_lrs(32) == pytest.approx((3.125e-5, 3.125e-8, 3.125e-7))
    with pytest.raises(ValueError, match="batch_size"):
        release_lrs(0)


def test_one_dimensional_parameters_and_biases_do_not_decay():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].bias = nn.Parameter(torch.zeros(1, 2))  # a bias is named so, whatever its shape
    optimizer = build_optimizer(model, peak_lr=1e-3, weight_decay=0.05)
    decayed, exempt = optimizer.param_groups
    assert [id(p) for p in decayed["params"]] == [id(model[0].weight), id(model[2].weight)]
    assert [id(p) for p in exempt["params"]] == [id(p) for p in (model[0].bias, model[1].weight, model[1].bias, model[2].bias)]
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.05, 0.0)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.999)}
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}
    assert {group["eps"] for group in optimizer.param_groups} == {1e-8}


def test_frozen_parameters_are_not_in_the_optimizer():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    optimizer = build_optimizer(model, peak_lr=1e-3)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_one_step_of_decay_alone_is_by_hand():
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = build_optimizer(model, peak_lr=0.1, weight_decay=0.5)
    model.weight.grad, model.bias.grad = torch.zeros(1, 1), torch.zeros(1)
    optimizer.step()
    assert model.weight.item() == pytest.approx(1 - 0.1 * 0.5)
    assert model.bias.item() == 1


def test_training_nothing_is_an_error():
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), peak_lr=1e-3)
