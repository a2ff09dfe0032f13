"""HyperFormer against its equations: one adapter and one task at a time, in double precision."""

import copy
import pickle
from typing import Any

import pytest
import torch
from test_methods import TASKS, assert_equal_pyramids, copied, image
from torch import Tensor, nn

from bench.model.backbone import DEMO_BACKBONE, SwinPyramid, shape_of
from methods import METHODS
from methods.base import replace
from methods.hyperformer import GeneratedAdapter

DEPTHS = (2, 2, 6, 2)
SETTINGS = {
    "block": {"embedding": 8, "hidden": 5},
    "stage": {"embedding": 8, "hidden": 5, "share": "stage", "reduction": 5},
}


def moved(dials: dict[str, Any], *, tasks: tuple[str, ...] = TASKS) -> SwinPyramid:
    """A backbone with generated adapters, away from the start, in double precision."""
    backbone = copied()
    backbone.tasks = tasks
    torch.manual_seed(2)
    METHODS["hyperformer"].apply(backbone, METHODS["hyperformer"].config(**dials))
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in backbone.hyperformer.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return backbone.double().eval()


class ExplicitAdapter(nn.Module):
    """One task's adapter behind one layer: (..., in) -> (..., out), written from the paper's equations."""

    def __init__(
        self, linear: nn.Linear, state: dict[str, Tensor], task: str, name: str, block: int, position: int, reduction: int
    ) -> None:
        super().__init__()
        self.linear = linear
        c, w = linear.out_features, linear.out_features // reduction
        z = torch.cat([state[f"task_embeddings.{task}"], state["block_embeddings"][block], state["position_embeddings"][position]])
        i = (state["projector.0.weight"] @ z + state["projector.0.bias"]).clamp(min=0)
        i = normalized(state["projector.2.weight"] @ i + state["projector.2.bias"], 1e-6)
        i = state["projector.3.weight"] * i + state["projector.3.bias"]
        row = state[f"adapters.{name}.weight"] @ i + state[f"adapters.{name}.bias"]
        affine = state[f"norms.{name}.weight"] @ i + state[f"norms.{name}.bias"]
        self.down, self.d = row[: w * c].reshape(w, c), row[w * c : w * c + w]
        self.up, self.u = row[w * c + w : 2 * w * c + w].reshape(c, w), row[2 * w * c + w :]
        self.gamma, self.beta = affine[:c], affine[c:]

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        a = h @ self.down.T + self.d
        a = a * 0.5 * (1 + torch.erf(a / 2**0.5))
        return h + self.gamma * normalized(a @ self.up.T + self.u, 1e-5) + self.beta


def normalized(x: Tensor, eps: float) -> Tensor:
    """Zero mean and unit variance over the last dimension."""
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def for_one_task(backbone: SwinPyramid, task: str, dials: dict[str, Any]) -> SwinPyramid:
    """The untouched backbone with that task's explicit adapters and no streams."""
    plain, state = copied().double(), backbone.hyperformer.state_dict()
    plain.tasks = (task,)

    def build(site) -> nn.Module:
        name = str(site.stage) if dials.get("share") == "stage" else f"{site.stage}_{site.block}"
        place = (name, sum(DEPTHS[: site.stage]) + site.block, ("proj", "fc2").index(site.kind))
        return ExplicitAdapter(site.module, state, task, *place, dials.get("reduction", 4))

    replace(plain, ("proj", "fc2"), build)
    return plain.eval()


@pytest.mark.parametrize("dials", SETTINGS.values(), ids=SETTINGS)
@torch.no_grad()
def test_every_task_has_the_network_of_its_own_adapters(dials: dict[str, Any]):
    backbone, x = moved(dials), image().double()
    actual = backbone(x)
    for task in TASKS:
        expected = for_one_task(backbone, task, dials)(x)
        assert_equal_pyramids({task: actual[task]}, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(actual["semseg"][0], actual["normals"][0], atol=1e-3)
    assert not torch.allclose(actual["semseg"][0], copied().double().eval()(x)["semseg"][0], atol=1e-3)


@torch.no_grad()
def test_one_task_alone_has_one_stream():
    dials = SETTINGS["block"]
    backbone = moved(dials, tasks=("normals",))
    x = image().double()
    assert_equal_pyramids(backbone(x), for_one_task(backbone, "normals", dials)(x), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_streams_start_at_the_first_adapter_alone():
    adapters = [module for module in moved(SETTINGS["block"]).modules() if isinstance(module, GeneratedAdapter)]
    assert [adapter.streams_in for adapter in adapters] == [1] + 23 * [3]
    assert adapters[0](torch.randn(2, 5, 24).double()).shape == (6, 5, 24)
    assert adapters[-1](torch.randn(6, 5, 768).double()).shape == (6, 5, 192)


@pytest.mark.parametrize(("share", "hypernetworks"), [("block", 12), ("stage", 4)])
def test_hypernetworks_are_registered_once_and_copies_refer_to_their_own(share: str, hypernetworks: int):
    backbone = moved({"share": share, "embedding": 8})
    names = [name for name, _ in backbone.named_parameters(remove_duplicate=False)]
    assert len(names) == len(list(backbone.parameters()))
    assert sum(name.startswith("hyperformer.adapters.") for name in names) == 2 * hypernetworks
    for twin in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        adapters = [module for module in twin.modules() if isinstance(module, GeneratedAdapter)]
        assert twin.hyperformer is not backbone.hyperformer
        assert all(adapter.hypernetworks[0] is twin.hyperformer for adapter in adapters)


def test_weights_start_normal_as_the_authors_and_norms_at_zero():
    backbone = copied()
    METHODS["hyperformer"].apply(backbone, METHODS["hyperformer"].config())
    for name, parameter in backbone.hyperformer.named_parameters():
        if name.startswith("norms.") or (name.endswith(".bias")):
            assert not parameter.any()
        elif parameter.ndim == 2 and "embeddings" not in name:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.05), name


def test_the_first_step_moves_the_generators_of_the_norm_and_the_second_all():
    backbone = copied()
    METHODS["hyperformer"].apply(backbone, METHODS["hyperformer"].config(embedding=8))
    optimizer = torch.optim.SGD(backbone.hyperformer.parameters(), lr=0.1)

    def step() -> set[str]:
        optimizer.zero_grad()
        sum(x.square().mean() for maps in backbone(image()).values() for x in maps).backward()
        optimizer.step()
        return {name for name, p in backbone.hyperformer.named_parameters() if p.grad.any()}

    names = {name for name, _ in backbone.hyperformer.named_parameters()}
    assert step() == {name for name in names if name.startswith("norms.")}
    assert step() == names


@pytest.mark.parametrize("dials", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("tasks", [TASKS, TASKS[:1]], ids=len)
def test_the_configuration_knows_how_many_parameters_train(dials: dict[str, Any], tasks: tuple[str, ...]):
    counted = sum(p.numel() for p in moved(dials, tasks=tasks).parameters() if p.requires_grad)
    shape = shape_of(DEMO_BACKBONE, image_size=64, tasks=len(tasks))
    assert METHODS["hyperformer"].config(**dials).parameters(shape) == counted


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"share": "layer"}, "allowed: block, stage"),
        ({"embedding": 0}, "embedding must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"reduction": 0}, "reduction must be at least 1, got 0"),
        ({"reduction": 25}, "leaves no channel of 24"),
    ],
)
def test_a_wrong_dial_of_hyperformer_is_a_clear_error(dials: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        METHODS["hyperformer"].apply(copied(), METHODS["hyperformer"].config(**dials))
