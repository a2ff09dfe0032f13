"""How long a suite's trials take: from their records, else from their profiles, else from a few steps measured here."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.config import TrialConfig, steps_per_epoch
from bench.data.layout import LAYOUTS, read_split
from bench.ledger import ledger
from bench.model.multitask import build_model
from bench.plan import Reader, missing_profiles, profiled_seconds
from bench.suites import Row, Suite
from bench.training.loop import train_step
from bench.training.optim import build_optimizer

PROBE_PIXELS = {"cpu": 4 * 224**2, "cuda": 8 * 448**2}
"""A probe's batch holds about so many pixels, two images at least (batch norms need them) and no more than the trial's batch."""

PROBE_STEPS, PROBE_SECONDS = 3, 2.0
"""Timed steps of a probe; fewer once they have taken so long."""

OVERHEAD_SECONDS = 8.0
"""Start of a process, imports and evaluation, where no record tells it."""


def plan_rows(
    suite: Suite,
    suite_dir: Path,
    *,
    data_root: Path | None,
    say: Callable[[str], None],
    estimate: bool = True,
    progress: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> list[dict[str, Any]]:
    """Return what a launch would do, row by row.

    Args:
        suite: What to run.
        suite_dir: Directory of the suite's results.
        data_root: The data set's directory, which tells the number of training images; else the suite's own data set does.
        say: Told which records are damaged, which so count as missing, and that some are of an older schema.
        estimate: Whether to estimate times; else those that neither records nor profiles tell are null, and nothing is measured.
        progress: Told before each row how many are done, of how many, and the row's label.

    Returns:
        Per row its label, trials, those missing, trainable parameters, `seconds_per_trial`, `estimate_from`, where it comes from, and
        `profile_sessions`, how many of its profiles a launch would measure first.
    """
    rows = []
    with Reader(say, move=False) as reader:
        for i, row in enumerate(suite.rows):
            progress(i, len(suite.rows), row.label)
            first = row.trials[0]
            records = [reader.read(suite_dir / "records" / f"{trial.run_id}.json") for trial in row.trials]
            lacking = [trial for trial, record in zip(row.trials, records, strict=True) if record is None]
            seconds, source = _known_seconds(row, records, suite_dir)
            if seconds is None and estimate:
                seconds, source = estimate_trial_seconds(first, _training_images(first, data_root))
            rows.append(
                {
                    "row": row.label,
                    "trials": len(row.trials),
                    "missing": records.count(None),
                    "trainable_parameters": sum(ledger(trial)["trainable"] for trial in row.trials if trial.seed == first.seed),
                    "seconds_per_trial": seconds,
                    "estimate_from": source,
                    "profile_sessions": len(missing_profiles(lacking, suite_dir, reader, rerun=frozenset(), code_id=None)),
                }
            )
    return rows


def _training_images(trial: TrialConfig, data_root: Path | None) -> int:
    if data_root is not None:
        return len(read_split(data_root, "train"))
    return LAYOUTS[trial.data.layout].counts["train"] if trial.data.synthetic is None else trial.data.synthetic.n_train


def _known_seconds(row: Row, records: Sequence[Mapping[str, Any] | None], suite_dir: Path) -> tuple[float | None, str | None]:
    """Return a trial's seconds without measuring: the mean of the row's good records, else what its profiles give; and which of them."""
    recorded = recorded_seconds(records)
    if recorded is not None:
        return recorded, "records"
    profiled = profiled_seconds(list(row.trials), suite_dir)
    return (OVERHEAD_SECONDS + statistics.fmean(profiled.values()), "profiles") if profiled else (None, None)


def recorded_seconds(records: Sequence[Mapping[str, Any] | None]) -> float | None:
    """Return the mean duration of the good records, None without any."""
    seconds = [record["timing"]["total_seconds"] for record in records if record is not None and record["status"] == "ok"]
    return sum(seconds) / len(seconds) if seconds else None


def estimate_trial_seconds(trial: TrialConfig, n_train: int) -> tuple[float, str]:
    """Estimate a trial's duration from the median of a few optimiser steps here, of a smaller batch of random data; loading is not in it.

    Returns:
        Seconds, and what was measured, in words.
    """
    recipe = trial.recipe
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(recipe.threads)
    scratch = dataclasses.replace(trial, backbone=dataclasses.replace(trial.backbone, weights="scratch"))
    model = build_model(scratch).to(device).train()
    optimizer = build_optimizer(model, peak_lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    images = min(recipe.batch_size, max(2, PROBE_PIXELS[device.type] // recipe.image_size**2))
    batch = random_batch(trial, images, device)
    timed: list[float] = []
    while len(timed) < 1 + PROBE_STEPS and (len(timed) < 2 or sum(timed[1:]) < PROBE_SECONDS):  # the first one warms up
        started = time.perf_counter()
        train_step(model, batch, recipe, optimizer, scaler)
        if device.type == "cuda":
            torch.cuda.synchronize()
        timed.append(time.perf_counter() - started)
    steps = recipe.epochs * steps_per_epoch(n_train, recipe.batch_size) * recipe.batch_size / images
    count = len(timed) - 1
    measured = f"{count} step{'s' if count > 1 else ''} of {images} images here ({device.type})"
    return OVERHEAD_SECONDS + steps * statistics.median(timed[1:]), measured


def random_batch(trial: TrialConfig, images: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Return a batch of random images and labels of the trial's size."""
    b, s = images, trial.recipe.image_size
    batch = {"image": torch.randn(b, 3, s, s)}
    for name in trial.tasks:
        task = trial.data.tasks[name]
        if task.label == "normals":
            batch[name] = torch.nn.functional.normalize(torch.randn(b, 3, s, s), dim=1)
        elif task.label == "depth":
            batch[name] = 1 + torch.rand(b, 1, s, s)
        else:
            batch[name] = torch.randint(0, max(2, task.channels), (b, s, s), dtype=torch.uint8)
    return {name: tensor.to(device) for name, tensor in batch.items()}
