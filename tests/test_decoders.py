"""The kinds of decoder: counts against closed forms and the release's, values against the papers' arithmetic, gradients, whole models."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, interpolate, linear, relu

from bench import config
from bench.config import BackboneConfig, RecipeConfig, TrialConfig
from bench.data.roots import ensure_synthetic
from bench.measure.cost import parameter_ledger
from bench.model.decoders import DECODERS, decoder_parameters
from bench.model.multitask import build_model
from bench.suites import load
from bench.tasks import TASK_NAMES, TASKS
from bench.trial import Launch, run_trial
from methods import METHODS

CHANNELS = [48, 96, 192, 192]
SIDES = {64: (8, 4, 2, 2), 96: (12, 6, 3, 3)}
CANCELLED = {"hrnet": {"head.0.bias"}, "segformer": {f"embed.{i}.bias" for i in range(4)}, "aspp": set()}
"""Parameters that add a constant before a batch norm, which takes it out again: their gradient is zero in training."""

SMOKE = load("smoke").rows[-1].trials[0]


def pyramid(sides: tuple[int, ...], batch: int = 2) -> list[Tensor]:
    return [torch.randn(batch, c, s, s) for c, s in zip(CHANNELS, sides, strict=True)]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def trial(
    decoder: str, *, backbone: str = "swin_micro_patch4_window4_64", method: str = "frozen", image_size: int = 64, **changes: Any
) -> TrialConfig:
    return TrialConfig(
        method_name=method,
        method=METHODS[method].config(),
        data=SMOKE.data,
        backbone=BackboneConfig(name=backbone, weights="scratch"),
        decoder=decoder,
        recipe=RecipeConfig(image_size=image_size),
        **changes,
    )


def closed_form(kind: str, widths: tuple[int, ...], outputs: int) -> int:
    """Parameters of a head, layer by layer, as the papers draw it; norms have two a channel."""
    total = sum(widths)
    if kind == "hrnet":
        return total * 4 * total + 4 * total + 2 * 4 * total + 4 * total * outputs + outputs
    if kind == "segformer":
        return sum(w * 256 + 256 for w in widths) + 4 * 256 * 256 + 2 * 256 + 256 * outputs + outputs
    branches = total * 256 + 3 * 9 * total * 256 + total * 256 + 5 * 2 * 256
    return branches + 5 * 256 * 256 + 2 * 256 + 9 * 256 * 256 + 2 * 256 + 256 * outputs + outputs


def test_the_configuration_allows_the_kinds_that_exist():
    assert tuple(DECODERS) == config.DECODERS


@pytest.mark.parametrize("image_size", SIDES)
@pytest.mark.parametrize("kind", DECODERS)
def test_logits_are_as_large_as_the_finest_map(kind: str, image_size: int):
    maps = pyramid(SIDES[image_size])
    logits = DECODERS[kind](CHANNELS, (4, 6, 8, 12), 7)(maps)
    assert logits.shape == (2, 7, *maps[0].shape[-2:])


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("widths", [(18, 36, 72, 144), (4, 6, 8, 12), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("kind", DECODERS)
def test_parameters_equal_the_closed_form(kind: str, widths: tuple[int, ...], task: str):
    outputs = TASKS[task].channels
    with torch.device("meta"):
        decoder = DECODERS[kind](CHANNELS, widths, outputs)
    narrow = sum(c * w for c, w in zip(CHANNELS, widths, strict=True))
    assert count(decoder) == narrow + closed_form(kind, widths, outputs) == decoder_parameters(kind, CHANNELS, widths, outputs)


@pytest.mark.parametrize(
    ("kind", "heads", "total"),
    [
        ("hrnet", 1_213_952, 29_464_442),
        ("segformer", 1_339_424, 29_589_914),  # the release's has 8,224 more, of classifiers that it does not use
        ("aspp", 11_710_496, 39_960_986),
    ],
)
def test_swin_tiny_with_four_tasks_has_the_releases_count(kind: str, heads: int, total: int):
    with torch.device("meta"):
        ledger = parameter_ledger(build_model(trial(kind, backbone="swin_tiny_patch4_window7_224", method="full", image_size=448)))
    decoders = 732_672 + heads
    assert ledger["groups"]["decoders"] == {"total": decoders, "trainable": decoders}
    assert (ledger["total"], ledger["trainable_without_decoders"]) == (total, 27_517_818)


def norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    """Batch norm in evaluation, then ReLU."""
    return relu(batch_norm(x, w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-5))


def resized(x: Tensor, side: int) -> Tensor:
    return interpolate(x, (side, side), mode="bilinear", align_corners=False)


def functional_segformer(w: dict[str, Tensor], maps: list[Tensor]) -> Tensor:
    """Linear layers on tokens (B, h w, C), as the paper and the release write them."""
    batch, side, embedded = maps[0].shape[0], maps[0].shape[-1], []
    for i, x in enumerate(maps):
        tokens = linear(x.flatten(2).mT, w[f"narrow.{i}.weight"].flatten(1))
        tokens = linear(tokens, w[f"embed.{i}.weight"].flatten(1), w[f"embed.{i}.bias"])
        embedded.append(resized(tokens.mT.reshape(batch, 256, *x.shape[-2:]), side))
    c1, c2, c3, c4 = embedded
    fused = norm(conv2d(torch.cat([c4, c3, c2, c1], 1), w["head.0.weight"]), w, "head.1")
    return conv2d(fused, w["head.4.weight"], w["head.4.bias"])


def functional_aspp(w: dict[str, Tensor], maps: list[Tensor]) -> Tensor:
    side = maps[0].shape[-1]
    x = torch.cat([resized(conv2d(x, w[f"narrow.{i}.weight"]), side) for i, x in enumerate(maps)], 1)
    branches = [norm(conv2d(x, w["head.0.convs.0.0.weight"]), w, "head.0.convs.0.1")]
    for i, rate in enumerate((12, 24, 36), 1):
        atrous = conv2d(x, w[f"head.0.convs.{i}.0.weight"], padding=rate, dilation=rate)
        branches.append(norm(atrous, w, f"head.0.convs.{i}.1"))
    pooled = norm(conv2d(adaptive_avg_pool2d(x, 1), w["head.0.convs.4.1.weight"]), w, "head.0.convs.4.2")
    branches.append(pooled.expand(-1, -1, side, side))
    x = norm(conv2d(torch.cat(branches, 1), w["head.0.project.0.weight"]), w, "head.0.project.1")
    x = norm(conv2d(x, w["head.1.weight"], padding=1), w, "head.2")
    return conv2d(x, w["head.4.weight"], w["head.4.bias"])


@pytest.mark.parametrize(
    ("kind", "functional", "sides"),
    [("segformer", functional_segformer, (8, 4, 2, 2)), ("aspp", functional_aspp, (40, 20, 10, 10))],  # 40: every rate is inside
)
def test_a_decoder_equals_its_functional_version(kind: str, functional: Any, sides: tuple[int, ...]):
    torch.manual_seed(0)
    decoder, maps = DECODERS[kind](CHANNELS, (2, 3, 4, 5), 3), pyramid(sides)
    with torch.no_grad():
        decoder(maps)  # moves the running statistics away from 0 and 1
        torch.testing.assert_close(decoder.eval()(maps), functional(dict(decoder.state_dict()), maps))


@pytest.mark.parametrize("kind", DECODERS)
def test_a_gradient_reaches_every_parameter(kind: str):
    torch.manual_seed(0)
    decoder = DECODERS[kind](CHANNELS, (4, 6, 8, 12), 3)
    decoder(pyramid(SIDES[64], batch=4)).square().sum().backward()
    largest = {name: parameter.grad.abs().max().item() for name, parameter in decoder.named_parameters()}
    assert {name for name, value in largest.items() if value < 1e-5 * max(largest.values())} == CANCELLED[kind]


@pytest.mark.parametrize("kind", DECODERS)
def test_dropout_acts_in_training_alone(kind: str):
    torch.manual_seed(0)
    decoder, maps = DECODERS[kind](CHANNELS, (4, 6, 8, 12), 3), pyramid(SIDES[64])
    with torch.no_grad():
        assert torch.equal(decoder(maps), decoder(maps)) == (kind == "hrnet")
        decoder.eval()
        assert torch.equal(decoder(maps), decoder(maps))


def test_the_pooling_branch_takes_one_image_in_evaluation_only():
    decoder, one = DECODERS["aspp"](CHANNELS, (4, 6, 8, 12), 3), pyramid(SIDES[64], batch=1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        decoder(one)
    assert decoder.eval()(one).shape == (1, 3, 8, 8)


def test_the_default_decoder_keeps_the_names_of_its_state():
    """The release's weights and golden files are read by these names."""
    trained = [f"narrow.{i}.weight" for i in range(4)] + [f"head.{i}.{kind}" for i in (0, 1, 3) for kind in ("weight", "bias")]
    statistics = [f"head.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]
    decoders = build_model(trial(TrialConfig.decoder)).decoders
    assert {task: set(decoder.state_dict()) for task, decoder in decoders.items()} == {task: {*trained, *statistics} for task in TASK_NAMES}


@pytest.mark.parametrize("image_size", SIDES)
@pytest.mark.parametrize("kind", DECODERS)
def test_a_model_with_any_decoder_answers_at_the_images_resolution(kind: str, image_size: int):
    model = build_model(trial(kind, image_size=image_size, decoder_channels=(8, 12, 16, 24)))
    assert {type(decoder) for decoder in model.decoders.values()} == {DECODERS[kind]}
    outputs = model(torch.randn(2, 3, image_size, image_size))
    assert {task: tuple(x.shape) for task, x in outputs.items()} == {t: (2, TASKS[t].channels, image_size, image_size) for t in TASK_NAMES}
    ledger = parameter_ledger(model)
    assert ledger["groups"]["decoders"] == {"total": count(model.decoders), "trainable": count(model.decoders)}
    assert ledger["trainable"] == count(model.decoders)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(set(DECODERS) - {TrialConfig.decoder}))
def test_a_trial_with_another_decoder_ends_as_a_record(kind: str, tmp_path: Path):
    config = dataclasses.replace(SMOKE, decoder=kind, recipe=dataclasses.replace(SMOKE.recipe, epochs=1))
    ensure_synthetic(tmp_path, config.data.synthetic)
    record = run_trial(config, Launch(suite="smoke", suite_dir=tmp_path / "smoke"), started=time.time(), on_epoch=lambda line: None)
    assert (record["status"], record["reason"]) == ("ok", None)
    assert record["config"]["decoder"] == kind
