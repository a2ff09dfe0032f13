"""Polyhistor and Polyhistor-Lite against their equations: one adapter and one task at a time, in double precision."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from test_methods import TASKS, assert_equal_pyramids, copied, image
from torch import Tensor, nn

from bench.model.backbone import DEMO_BACKBONE, SwinPyramid, shape_of
from methods import METHODS
from methods.base import replace
from methods.polyhistor import ScaledAdapter

SETTINGS = {
    "polyhistor": ("polyhistor", {"rank": 3, "embedding": 5}),
    "polyhistor-kernel": ("polyhistor", {"rank": 2, "embedding": 5, "kernel": 2, "reduction": 5}),
    "lite": ("polyhistor_lite", {"rank": 3, "embedding": 5}),
    "lite-kernel": ("polyhistor_lite", {"rank": 2, "embedding": 5, "kernel": 2, "reduction": 5}),
}


def moved(name: str, dials: dict[str, Any], *, tasks: tuple[str, ...] = TASKS) -> SwinPyramid:
    """A backbone with the method's adapters, away from the start, in double precision."""
    backbone = copied()
    backbone.tasks = tasks
    torch.manual_seed(2)
    METHODS[name].apply(backbone, METHODS[name].config(**dials))
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return backbone.double().eval()


def template(emitted: np.ndarray, rank: int, first: slice, second: slice) -> np.ndarray:
    """The sum of `rank` outer products; the hypernetworks emit one row of factors for each."""
    rows = emitted.reshape(rank, -1)
    return sum(np.outer(row[first], row[second]) for row in rows)


class ExplicitAdapter(nn.Module):
    """One task's adapter behind one layer: (..., in) -> (..., out), written from the equations."""

    def __init__(self, adapter: ScaledAdapter, weight: Tensor, z: Tensor, rank: int, reduction: int) -> None:
        super().__init__()
        self.linear = adapter.linear
        emitted = (weight @ z).detach().numpy()
        w = adapter.linear.out_features // len(adapter.down)
        b = w // reduction
        down = template(emitted, rank, slice(0, b), slice(b, b + w))
        up = template(emitted, rank, slice(b + w, b + 2 * w), slice(b + 2 * w, None))
        assert (down.shape, up.shape) == ((b, w), (w, b))
        self.down = torch.from_numpy(np.kron(adapter.down.detach().numpy(), down))
        self.up = torch.from_numpy(np.kron(adapter.up.detach().numpy(), up))

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        a = h @ self.down.T
        return h + a * 0.5 * (1 + torch.erf(a / 2**0.5)) @ self.up.T


def for_one_task(backbone: SwinPyramid, task: str, name: str, dials: dict[str, Any]) -> SwinPyramid:
    """The untouched backbone with that task's explicit adapters and no streams."""
    plain, z = copied().double(), backbone.templates.task_embeddings[task]
    plain.tasks = (task,)

    def build(site) -> nn.Module:
        weight = backbone.templates.factors["all" if name == "polyhistor_lite" else str(site.stage)].weight
        return ExplicitAdapter(backbone.get_submodule(site.name), weight, z, dials["rank"], dials.get("reduction", 4))

    replace(plain, ("proj", "fc2"), build)
    return plain.eval()


@pytest.mark.parametrize(("name", "dials"), SETTINGS.values(), ids=SETTINGS)
@torch.no_grad()
def test_every_task_has_the_network_of_its_own_adapters(name: str, dials: dict[str, Any]):
    backbone, x = moved(name, dials), image().double()
    actual = backbone(x)
    for task in TASKS:
        expected = for_one_task(backbone, task, name, dials)(x)
        assert_equal_pyramids({task: actual[task]}, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(actual["semseg"][0], actual["normals"][0], atol=1e-3)
    assert not torch.allclose(actual["semseg"][0], copied().double().eval()(x)["semseg"][0], atol=1e-3)


@pytest.mark.parametrize(("name", "dials"), [SETTINGS["polyhistor"], SETTINGS["lite"]], ids=["polyhistor", "lite"])
@torch.no_grad()
def test_one_task_alone_has_one_stream(name: str, dials: dict[str, Any]):
    backbone, x = moved(name, dials, tasks=("normals",)), image().double()
    assert_equal_pyramids(backbone(x), for_one_task(backbone, "normals", name, dials)(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("setting", "sides", "templates"),
    [
        ("polyhistor", (1, 1, 1, 1), {"0": (24, 6), "1": (48, 12), "2": (96, 24), "3": (192, 48)}),
        ("polyhistor-kernel", (2, 2, 2, 2), {"0": (12, 2), "1": (24, 4), "2": (48, 9), "3": (96, 19)}),
        ("lite", (1, 2, 4, 8), {"all": (24, 6)}),
        ("lite-kernel", (2, 4, 8, 16), {"all": (12, 2)}),
    ],
)
def test_kernels_make_up_for_what_the_templates_lack(setting: str, sides: tuple[int, ...], templates: dict[str, tuple[int, int]]):
    backbone = moved(*SETTINGS[setting])
    adapters = [(name, module) for name, module in backbone.named_modules() if isinstance(module, ScaledAdapter)]
    assert backbone.templates.shapes == templates
    assert [adapter.streams_in for _, adapter in adapters] == [1] + 23 * [3]
    for name, adapter in adapters:
        side = sides[int(name.split(".")[2])]
        assert adapter.down.shape == adapter.up.shape == (side, side)


@pytest.mark.parametrize("name", ["polyhistor", "polyhistor_lite"])
def test_templates_are_registered_once_and_copies_refer_to_their_own(name: str):
    backbone = moved(name, {"rank": 2})
    assert len(list(backbone.named_parameters(remove_duplicate=False))) == len(list(backbone.parameters()))
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        adapters = [module for module in twin.modules() if isinstance(module, ScaledAdapter)]
        assert len(adapters) == 24
        assert twin.templates is not backbone.templates
        assert all(adapter.templates[0] is twin.templates for adapter in adapters)


@pytest.mark.parametrize("kernel", [1, 2, 4])
def test_at_the_start_templates_have_unit_variance_and_d_keeps_the_scale(kernel: int):
    torch.manual_seed(0)
    backbone = copied()
    backbone.tasks = tuple(f"task{i}" for i in range(100))
    METHODS["polyhistor_lite"].apply(backbone, METHODS["polyhistor_lite"].config(kernel=kernel))
    down, up = backbone.templates("all")
    assert down.shape == (100, 6 // kernel, 24 // kernel)
    assert 0.8 < down.var() < 1.25
    assert 0.8 < up.var() < 1.25
    for adapter in (module for module in backbone.modules() if isinstance(module, ScaledAdapter)):
        assert adapter.linear.out_features * adapter.down.square().mean().item() == pytest.approx(1)
        assert not adapter.up.any()


@pytest.mark.parametrize(("name", "dials"), SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("tasks", [TASKS, TASKS[:1]], ids=len)
def test_the_configuration_knows_how_many_parameters_train(name: str, dials: dict[str, Any], tasks: tuple[str, ...]):
    counted = sum(p.numel() for p in moved(name, dials, tasks=tasks).parameters() if p.requires_grad)
    shape = shape_of(DEMO_BACKBONE, image_size=64, tasks=len(tasks))
    assert METHODS[name].config(**dials).parameters(shape) == counted


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"reduction": 0}, "reduction must be at least 1, got 0"),
        ({"embedding": 0}, "embedding must be at least 1, got 0"),
        ({"kernel": 0}, "kernel must be at least 1, got 0"),
        ({"kernel": 5}, "kernel = 5 does not divide 24 channels; use a divisor"),
        ({"kernel": 8}, "reduction 4 leaves no channel of 3"),
    ],
)
@pytest.mark.parametrize("name", ["polyhistor", "polyhistor_lite"])
def test_a_wrong_dial_of_polyhistor_is_a_clear_error(name: str, dials: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        METHODS[name].apply(copied(), METHODS[name].config(**dials))
