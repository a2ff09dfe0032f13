"""Single steps, epochs and checkpoints of the training loop, on a model of four numbers: against plain torch and hand arithmetic."""

import copy
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from bench.config import RecipeConfig
from bench.provenance import code_id
from bench.tasks import TASKS, Task
from bench.training import loop
from bench.training.checkpoint import FitState, load_checkpoint, save_checkpoint
from bench.training.loop import DivergedError, StepClock, evaluate, train_epoch, train_step
from bench.training.optim import build_optimizer, learning_rate
from bench.tuning.entries import history_in

CPU = torch.device("cpu")


class Model(nn.Module):
    """Depth from colours by a 1x1 convolution, behind a batch norm; a frozen layer that no task reads."""

    tasks = ("depth",)
    table: ClassVar[dict[str, Task]] = {"depth": TASKS["depth"]}

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head, self.frozen = nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1), nn.Linear(2, 2).requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"depth": self.head(self.norm(image))}


def model_of(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    return Model()


def batch(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"image": torch.randn(2, 3, 4, 4, generator=generator), "depth": 50 + torch.rand(2, 1, 4, 4, generator=generator)}


def scaler(scale: float | None = None) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=scale is not None, init_scale=scale or 1.0)


def step_taken(clip_norm: float | None, scale: float | None = None) -> list[Tensor]:
    """Return how far one step of plain gradient descent with learning rate 1 moves each parameter."""
    model = model_of()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    train_step(model, batch(), RecipeConfig(clip_norm=clip_norm), optimizer, scaler(scale))
    return [old - new.detach() for old, new in zip(before, model.parameters(), strict=True)]


def norm_of(steps: list[Tensor]) -> float:
    return math.sqrt(sum(float(step.square().sum()) for step in steps))


def test_a_gradient_is_clipped_to_the_recipes_norm_and_keeps_its_direction():
    whole, clipped = step_taken(None), step_taken(0.01)
    assert norm_of(whole) > 0.1
    assert norm_of(clipped) == pytest.approx(0.01, rel=1e-4)
    for long, short in zip(whole, clipped, strict=True):
        torch.testing.assert_close(short, long * (0.01 / norm_of(whole)), rtol=1e-3, atol=1e-7)


def test_a_loss_scale_changes_no_step_clipped_or_not():
    for clip_norm in (None, 0.01):
        for plain, scaled in zip(step_taken(clip_norm), step_taken(clip_norm, scale=1024.0), strict=True):
            torch.testing.assert_close(scaled, plain, rtol=1e-4, atol=1e-7)


def test_a_step_sees_the_gradient_of_its_own_batch_only():
    model = model_of()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    gradients = []
    for seed in (0, 1, 0):
        train_step(model, batch(seed), RecipeConfig(clip_norm=None), optimizer, scaler())
        gradients.append(model.head.weight.grad.clone())
    torch.testing.assert_close(gradients[2], gradients[0], rtol=0, atol=0)
    assert not torch.equal(gradients[1], gradients[0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_raises_before_any_step(value: float):
    model, images = model_of(), batch()
    images["image"][0, 0, 0, 0] = value
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, peak_lr=1.0)
    with pytest.raises(DivergedError, match=r"the loss is .*a lower learning rate"):
        train_step(model, images, RecipeConfig(), optimizer, scaler())
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_an_epoch_trains_at_the_rate_of_every_step_and_reports_means(monkeypatch: pytest.MonkeyPatch):
    recipe = RecipeConfig(epochs=4, warmup_epochs=1.5, peak_lr=1e-3, warmup_lr=1e-5, min_lr=1e-4)
    model, rates, training = model_of().eval(), [], []
    optimizer, clock = build_optimizer(model, peak_lr=recipe.peak_lr), StepClock(CPU, [])

    def step(model: Model, images: dict, recipe: RecipeConfig, optimizer: torch.optim.Optimizer, _: Any) -> dict[str, float]:
        rates.append([group["lr"] for group in optimizer.param_groups])
        training.append(model.training)
        return {"total": 10.0 * len(rates), "depth": float(len(rates))}

    monkeypatch.setattr(loop, "train_step", step)
    line = train_epoch(model, [batch(seed) for seed in range(5)], recipe, optimizer, scaler(), clock, epoch=2, steps=5)
    schedule = {"steps_per_epoch": 5, "epochs": 4, "warmup_epochs": 1.5, "peak_lr": 1e-3, "warmup_lr": 1e-5, "min_lr": 1e-4}
    assert rates == [[learning_rate(10 + i, **schedule)] * 2 for i in range(5)]
    assert training == [True] * 5
    assert (line["epoch"], line["lr"], line["losses"], line["loss"]) == (3, rates[-1][0], {"depth": pytest.approx(3)}, pytest.approx(30))
    assert len(clock.seconds) == 5 - loop.WARMUP_STEPS


def test_evaluation_changes_nothing_and_scores_the_model_as_it_will_be_used():
    model, images = trained(3)[0].train(), batch(7) | {"id": ["a", "b"]}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    metrics, per_image = evaluate(model, [images, images], CPU)
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)
    with torch.no_grad():
        error = model.eval()(images["image"])["depth"] - images["depth"]
    assert metrics["depth"]["rmse_m"] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-5)
    assert per_image["id"].tolist() == ["a", "b", "a", "b"]
    assert per_image["depth/valid"].tolist() == [16] * 4


def trained(steps: int, growth_interval: int = 2) -> tuple[Model, torch.optim.Optimizer, torch.amp.GradScaler]:
    model = model_of()
    optimizer = build_optimizer(model, peak_lr=1e-2)
    loss_scale = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=growth_interval)
    for seed in range(steps):
        train_step(model, batch(seed), RecipeConfig(), optimizer, loss_scale)
    return model, optimizer, loss_scale


def test_a_checkpoint_gives_back_model_optimiser_loss_scale_and_random_state(tmp_path: Path):
    path, state = tmp_path / "trial.pt", FitState(epoch=2, history=[{"epoch": 1}, {"epoch": 2}], step_seconds=[0.5], wait_seconds=1.5)
    model, optimizer, loss_scale = trained(5)
    torch.manual_seed(123)
    save_checkpoint(path, "code data", state, model, optimizer, loss_scale)
    drawn = torch.rand(3)
    other, other_optimizer, other_scale = trained(0)
    assert load_checkpoint(path, "code data", other, other_optimizer, other_scale) == state
    torch.testing.assert_close(torch.rand(3), drawn, rtol=0, atol=0)
    assert (other_scale.get_scale(), other_scale.state_dict()) == (32.0, loss_scale.state_dict())
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert other.norm.num_batches_tracked == 5
    for one in (model, other):  # the moments too: the next step is the same
        train_step(one, batch(9), RecipeConfig(), *((optimizer, loss_scale) if one is model else (other_optimizer, other_scale)))
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_holds_no_frozen_weight_and_is_not_used_for_other_code_or_data(tmp_path: Path):
    path = tmp_path / "trial.pt"
    model, optimizer, loss_scale = trained(1)
    save_checkpoint(path, "code data", FitState(epoch=1), model, optimizer, loss_scale)
    kept = set(torch.load(path, weights_only=True)["model"])
    assert kept == {name for name in model.state_dict() if not name.startswith("frozen.")}
    assert load_checkpoint(path, "code other", *trained(0)) == FitState()
    assert not path.exists()
    assert (tmp_path / "set_aside" / path.name).exists()


def spoiled(content: dict) -> list[object]:
    """What may stand in a file that loads, and is no checkpoint of a trial."""
    without = {key: value for key, value in content.items() if key != "fit"}
    renamed = content | {"fit": {f"{key}x": value for key, value in content["fit"].items()}}
    return [[1, 2], torch.zeros(3), {}, {"identity": "code data"}, without, renamed, content | {"rng": None}, content | {"identity": 3}]


@pytest.mark.parametrize("number", range(8))
def test_a_file_that_loads_and_is_no_checkpoint_is_set_aside(tmp_path: Path, number: int):
    path = tmp_path / "trial.pt"
    save_checkpoint(path, f"{code_id()} data", FitState(epoch=1, history=[{"epoch": 1}]), *trained(1))
    assert history_in(path) == [{"epoch": 1}]
    torch.save(spoiled(torch.load(path, weights_only=True))[number], path)
    assert history_in(path) == []  # what may pause a tuning trial starts it again as well
    model, optimizer, loss_scale = trained(0)
    before = copy.deepcopy(model.state_dict())
    assert load_checkpoint(path, f"{code_id()} data", model, optimizer, loss_scale) == FitState()
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert [file.name for file in (tmp_path / "set_aside").iterdir()] == [path.name]
