"""What a suite asks for and what is still to do: the plan on disk, the missing trials, an estimate of the time."""

import dataclasses
import datetime
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.config import TrialConfig, steps_per_epoch
from bench.model.multitask import build_model
from bench.profile import profile_id
from bench.record import SCHEMA_VERSION, read_record, read_trusted, write_atomically
from bench.suites import Row, Suite
from bench.training.loop import train_step
from bench.training.optim import build_optimizer
from bench.trial import method_block

PROBE_BATCH, PROBE_STEPS = 4, 3
OVERHEAD_SECONDS = 8.0
"""Start of a process, imports and evaluation, where no record tells it."""


def write_plan(suite: Suite, suite_dir: Path, command: str) -> Path:
    """Write plan.json, from which `status` and `report` know the rows; atomically."""
    by_label = {row.label: row for row in suite.rows}
    plan = {
        "schema_version": SCHEMA_VERSION,
        "suite": suite.name,
        "title": suite.title,
        "description": suite.description,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "command": command,
        "reference_cell_id": by_label[suite.reference].cell_id,
        "rows": [plan_row(row) for row in suite.rows],
        "notes": list(suite.notes),
        "tuned": suite.tuned,
    }
    path = suite_dir / "plan.json"
    write_atomically(path, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
    return path


def plan_row(row: Row) -> dict[str, Any]:
    """Return a row as plan.json holds it."""
    first = row.trials[0]
    return {
        "cell_id": row.cell_id,
        "label": row.label,
        "method": method_block(first.method_name, first.method),
        "kind": row.kind,
        "run_ids": [trial.run_id for trial in row.trials],
        "tasks": list(dict.fromkeys(task for trial in row.trials for task in trial.tasks)),
        "seeds": sorted({trial.seed for trial in row.trials}),
    }


def missing(
    trials: list[TrialConfig],
    suite_dir: Path,
    *,
    rerun: frozenset[str] = frozenset(),
    code_id: str | None = None,
    set_aside: Callable[[str], None] | None = None,
) -> list[TrialConfig]:
    """Return the trials that have no record, and those whose record is to be made again.

    Args:
        trials: What the suite asks for.
        suite_dir: Directory of the suite's results.
        rerun: Any of "failed" (records with another status than ok) and "stale" (records made by other code than `code_id`).
        code_id: The present code.
        set_aside: Given by a launch, which relies on the records: a damaged one is moved away, told by this, and counts as missing.

    Raises:
        bench.record.RecordError: A record is damaged, and `set_aside` is not given; or it is of a newer schema.
    """
    return [trial for trial in trials if to_do(suite_dir / "records" / f"{trial.run_id}.json", rerun, code_id, set_aside)]


def missing_profiles(
    trials: list[TrialConfig], suite_dir: Path, *, rerun: frozenset[str], code_id: str, set_aside: Callable[[str], None]
) -> list[TrialConfig]:
    """Return one trial for every profile that these trials lack; arguments as of `missing`."""
    first = {profile_id(trial): trial for trial in sorted(trials, key=lambda trial: -trial.seed)}
    wanted = {run_id: first[run_id] for run_id in dict.fromkeys(map(profile_id, trials))}
    return [trial for run_id, trial in wanted.items() if to_do(suite_dir / "profiles" / f"{run_id}.json", rerun, code_id, set_aside)]


def to_do(path: Path, rerun: frozenset[str], code_id: str | None, set_aside: Callable[[str], None] | None) -> bool:
    """Whether a record is missing, or to be made again; arguments as of `missing`."""
    if not path.exists():
        return True
    if set_aside is not None:
        record, problem = read_trusted(path)
        if record is None:
            set_aside(str(problem))
            return True
    elif not rerun:
        return False
    else:
        record = read_record(path)
    return ("failed" in rerun and record["status"] != "ok") or ("stale" in rerun and record["code_id"] != code_id)


def profiled_seconds(trials: list[TrialConfig], suite_dir: Path) -> dict[str, float]:
    """Estimate from the profiles the seconds that trials train: per run id, those without a profile left out."""
    profiles = {path.stem: read_record(path) for path in (suite_dir / "profiles").glob("*.json")}
    seconds = {}
    for trial in trials:
        profile = profiles.get(profile_id(trial))
        if profile is not None and profile["status"] == "ok" and profile["cost"]["step_seconds"]["median"]:
            steps = steps_per_epoch(profile["data"]["n_train"], trial.recipe.batch_size)
            seconds[trial.run_id] = trial.recipe.epochs * steps * profile["cost"]["step_seconds"]["median"]
    return seconds


def estimate_trial_seconds(trial: TrialConfig, n_train: int) -> float:
    """Estimate a trial's duration from the median of three optimiser steps of a small batch here, on random data; loading is not in it."""
    recipe = trial.recipe
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(recipe.threads)
    scratch = dataclasses.replace(trial, backbone=dataclasses.replace(trial.backbone, weights="scratch"))
    model = build_model(scratch).to(device).train()
    optimizer = build_optimizer(model, peak_lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    images = min(recipe.batch_size, PROBE_BATCH)
    batch = random_batch(trial, images, device)
    timed = []
    for _ in range(1 + PROBE_STEPS):  # the first one warms up
        started = time.perf_counter()
        train_step(model, batch, recipe, optimizer, scaler)
        timed.append(time.perf_counter() - started)
    seconds = statistics.median(timed[1:])
    return OVERHEAD_SECONDS + recipe.epochs * steps_per_epoch(n_train, recipe.batch_size) * seconds * recipe.batch_size / images


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
