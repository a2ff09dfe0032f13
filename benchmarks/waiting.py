"""What share of a training step is spent waiting for data? Measured on the suite's own training loop, not on a stand-in for it.

Blocks of optimiser steps (backbone, decoders, losses, clipping, AdamW: `bench.training.loop.train_epoch`) alternate between (i) one batch
that lies on the device, again and again, and (ii) an epoch of the feed. A block of (ii) takes x, the mean of its two neighbours of (i) y
seconds a step: the share is (x - y) / x. It holds whatever the feed costs: waiting, the interpreter, memory bandwidth, the GPU's time for
the next batch's resampling, which the record's `wait_share`, a clock of the host around "give me the next batch", does not see. A control,
a block of (i) compared with its neighbours, tells how small a share the machine can resolve.

The same code runs on a CPU and on a GPU. Each block of (ii) starts its workers anew, as each epoch does.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from itertools import repeat
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from bench.config import PRECISIONS, BackboneConfig, DataConfig, RecipeConfig, TrialConfig
from bench.data.feed import Augmentation, Feed
from bench.data.store import CachedStore
from bench.model.multitask import build_model
from bench.training.loop import FitState, StepClock, train_epoch, waited_for
from bench.training.optim import build_optimizer, release_lrs
from bench.trial import prepare_device
from methods import METHODS

GOAL = 0.01
"""A GPU's step should wait for data less than this share of its time."""

CONTROL = "control: (i) itself"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained, and how long.

    Attributes:
        backbone, method: Names as in a suite; weights are random, which changes no time.
        decoder_channels: As of `bench.config.TrialConfig`.
        size, batch, precision: Side of the input in pixels, images a step, and precision of the training.
        steps: Steps a block; the split's samples repeat until an epoch is so long.
        rounds: Blocks of every mode of the feed.
    """

    backbone: str
    method: str = "full"
    decoder_channels: tuple[int, ...]
    size: int
    batch: int
    precision: str
    steps: int
    rounds: int

    def config(self, tasks: tuple[str, ...]) -> TrialConfig:
        """Return the trial that this is."""
        return TrialConfig(
            method_name=self.method,
            method=METHODS[self.method].config(),
            data=DataConfig(source="pascal_context"),
            tasks=tasks,
            backbone=BackboneConfig(name=self.backbone, weights="scratch"),
            decoder_channels=self.decoder_channels,
            recipe=RecipeConfig(batch_size=self.batch, image_size=self.size, precision=self.precision, **release_lrs(self.batch)._asdict()),
        )


WORKLOADS = {
    "cuda": Workload(
        backbone="swin_tiny_patch4_window7_224",
        decoder_channels=(18, 36, 72, 144),
        size=448,
        batch=32,
        precision="bf16",
        steps=60,
        rounds=3,
    ),
    "cpu": Workload(
        backbone="swin_micro_patch4_window4_64", decoder_channels=(8, 12, 16, 24), size=64, batch=8, precision="fp32", steps=16, rounds=3
    ),
}
"""By the kind of device: the suite `pascal`'s on a GPU; a model for which a CPU takes a minute in all."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that change the workload of the device at hand."""
    group = parser.add_argument_group("the training step", "defaults: " + "; ".join(f"{kind}: {load}" for kind, load in WORKLOADS.items()))
    group.add_argument("--train-backbone", metavar="NAME")
    group.add_argument("--train-method", choices=sorted(METHODS))
    group.add_argument("--train-precision", choices=PRECISIONS)
    for name, what in (("size", "pixels"), ("batch", "images a step"), ("steps", "steps a block"), ("rounds", "blocks of every mode")):
        group.add_argument(f"--train-{name}", type=int, metavar="N", help=what)


def chosen_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the workload that the command line gives."""
    given = {each.name: getattr(arguments, f"train_{each.name}", None) for each in fields(Workload)}
    return {name: value for name, value in given.items() if value is not None}


def repeated(store: CachedStore, count: int) -> CachedStore:
    """Return a store of `count` samples over the same arrays: those of `store` again and again."""
    chosen = np.arange(count) % len(store.ids)
    longer = CachedStore([store.ids[index] for index in chosen], store.flat, store.stored[chosen], store.native[chosen])
    longer.first = store.first[chosen]
    return longer


def feeds_of(store: CachedStore, load: Workload, device: torch.device) -> dict[str, Feed]:
    """Return the feed in every mode that reads a cache, with an epoch of `load.steps` batches."""
    count, settings = load.steps * load.batch, {"image_size": load.size, "augmentation": Augmentation(), "device": device}
    feeds = {"on the device, no loader": Feed(repeated(store.on(device), count), load.batch, mode="device", **settings)}
    cached = repeated(store, count)
    return feeds | {f"loader, {n} workers": Feed(cached, load.batch, mode="cache", workers=n, **settings) for n in (1, 2)}


class Trainer:
    """Runs blocks of training steps of one model."""

    def __init__(self, config: TrialConfig, device: torch.device, steps: int) -> None:
        self.recipe, self.device, self.steps = config.recipe, device, steps
        self.model = build_model(config).to(device)
        self.optimizer = build_optimizer(self.model, peak_lr=self.recipe.peak_lr, weight_decay=self.recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.recipe.precision == "fp16")

    def block(self, batches: Iterable[dict[str, Any]], epoch: int) -> dict[str, float]:
        """Train on so many batches; return the seconds of a step, loading included, and what a record calls `wait_share`."""
        state = FitState()
        clock = StepClock(self.device, state.step_seconds)  # waits for the GPU at the end of every step
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        waited = waited_for(batches, state)
        line = train_epoch(self.model, waited, self.recipe, self.optimizer, self.scaler, clock, epoch=epoch, steps=self.steps)
        return {"seconds": line["seconds"] / self.steps, "wait_share": state.wait_seconds / line["seconds"]}


def alternated(
    block: Callable[[Iterable[dict[str, Any]], int], dict[str, float]],
    resident: Callable[[], Iterable[dict[str, Any]]],
    feeds: dict[str, Callable[[int], Iterable[dict[str, Any]]]],
    rounds: int,
) -> dict[str, list[dict[str, float]]]:
    """Run blocks of (ii), each between two of (i); return for every mode what `compared` says of its blocks."""
    block(resident(), 0)
    for feed in feeds.values():  # page cache, page-locked memory, the allocator
        block(feed(rounds), 0)
    runs, before = {name: [] for name in feeds}, block(resident(), 0)
    for epoch in range(rounds):
        for name, feed in feeds.items():
            fed, after = block(feed(epoch), epoch), block(resident(), epoch)
            runs[name].append(compared(before, fed, after))
            before = after
    return runs


def compared(before: dict[str, float], fed: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Compare a block of (ii) with its neighbours: seconds of a step of (i) and of (ii), the share, and the host's `wait_share`."""
    alone = (before["seconds"] + after["seconds"]) / 2
    share = (fed["seconds"] - alone) / fed["seconds"]
    return {"resident_seconds": alone, "fed_seconds": fed["seconds"], "share": share, "wait_share": fed["wait_share"]}


def measure(store: CachedStore, options: dict[str, Any]) -> dict[str, Any]:
    """Measure the share in every mode, with the workload of the device at hand but for `options`.

    Returns:
        `device`, `workload`, `samples` of the split, and in `modes` the blocks of each, see `compared`.
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    load = replace(WORKLOADS[kind], **options)
    config = load.config(store.tasks)
    device = prepare_device(config.recipe)
    trainer, feeds = Trainer(config, device, load.steps), feeds_of(store, load, device)
    batch = next(iter(feeds.values())).first()
    modes = feeds | {CONTROL: lambda epoch: repeat(batch, load.steps)}
    runs = alternated(trainer.block, lambda: repeat(batch, load.steps), modes, load.rounds)
    return {"device": device.type, "workload": asdict(load), "samples": len(store.ids), "modes": runs}


def report(found: dict[str, Any]) -> str:
    """Write what `measure` returned as Markdown."""
    load, rows = found["workload"], []
    for name, blocks in found["modes"].items():
        median = {key: statistics.median(block[key] for block in blocks) for key in blocks[0]}
        shares = sorted(100 * block["share"] for block in blocks)
        milliseconds = [1000 * median[key] for key in ("resident_seconds", "fed_seconds")]
        rows.append([name, *milliseconds, 100 * median["share"], f"{shares[0]:.2f} to {shares[-1]:.2f}", 100 * median["wait_share"]])
    head = ["feed", "(i) ms/step", "(ii) ms/step", "waiting, %", "least to most, %", "`wait_share`, %"]
    return f"""## The share of a training step spent waiting for data

Measured on {"a GPU" if found["device"] == "cuda" else "a CPU"}: `{load["backbone"]}`, method `{load["method"]}`, at {load["size"]} px,
batch {load["batch"]}, {load["precision"]}, four tasks; forward, losses, backward, clipping and AdamW. (i) is one batch on the device, again
and again; (ii) an epoch of the feed. Waiting is ((ii) - (i)) / (ii), each block of (ii) against its two neighbours of (i); the control's
spread is what the machine can resolve. `wait_share` is the host's own clock, as in a record.

{tabulate(rows, head, tablefmt="github", floatfmt=("", ".1f", ".1f", ".2f", "", ".2f"))}

Median, least and most of {load["rounds"]} blocks of {load["steps"]} steps each, over {found["samples"]} samples in turn. {verdict(found)}
"""


def verdict(found: dict[str, Any]) -> str:
    """Say whether the goal, which is a GPU's, is reached."""
    if found["device"] != "cuda":
        return (
            f"No CUDA device was at hand: these shares are the CPU's, and the goal, below {GOAL:.0%} on a GPU, stays to be measured on one."
        )
    medians = {name: statistics.median(block["share"] for block in blocks) for name, blocks in found["modes"].items() if name != CONTROL}
    missed = [name for name, share in medians.items() if share >= GOAL]
    return f"The goal, a median below {GOAL:.0%}, is {'reached in every mode' if not missed else 'missed: ' + '; '.join(missed)}."
