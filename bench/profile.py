"""A profile: what a row costs, measured while nothing else runs on the device; a few steps, no training to the end.

Accuracy trials may share a GPU or the cores of a machine, so that their times and the allocator's peaks depend on their neighbours. Time
and memory of a table row come from its profiles instead, records of kind "profile", for every set of tasks that the row trains together.

A process that measures a row finds memory, caches and clocks as they happen to be, and all of its single measurements share that. So each
row is measured in `SESSIONS` processes, all rows once before any of them again: how far a row's sessions lie apart says how well its times
can be known (Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, ISMM 2013).
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bench.config import TrialConfig
from bench.data.feed_modes import open_feeds
from bench.data.layout import content_hash_of, fingerprint
from bench.data.roots import data_root_of
from bench.heartbeat import beat
from bench.measure import cost
from bench.model.multitask import MultiTaskModel, build_model
from bench.outcome import conclude, iso
from bench.plain import digest
from bench.training.loop import forget_peaks, train_step
from bench.training.optim import build_optimizer
from bench.trial import Launch, describe, local_weights, prepare_device, probe_memory

STEPS, WARMUP_STEPS = 10, 3
SESSIONS = 3


def profile_id(config: TrialConfig, session: int = 1) -> str:
    """Return the stable name of a trial's profile: the trials of a row that train the same tasks share it, whatever their seed."""
    stem = dataclasses.replace(config, seed=0).run_id.rpartition("-s0-")[0]
    name = f"profile-{stem}-{digest({name: value for name, value in config.to_dict().items() if name != 'seed'}, 8)}"
    return name if session == 1 else f"{name}-session{session}"


@dataclasses.dataclass(frozen=True)
class Session:
    """One measurement of a trial's costs: the trial, and which time it is, from 1 to `SESSIONS`."""

    trial: TrialConfig
    number: int

    @property
    def run_id(self) -> str:
        """Of its record."""
        return profile_id(self.trial, self.number)


def sessions_of(trials: Sequence[TrialConfig]) -> list[Session]:
    """Return the sessions that measure these trials, all rows once before any of them again; the lowest seed of a row stands for all."""
    first = {profile_id(trial): trial for trial in sorted(trials, key=lambda trial: -trial.seed)}
    in_order = [first[name] for name in dict.fromkeys(map(profile_id, trials))]
    return [Session(trial, number) for number in range(1, SESSIONS + 1) for trial in in_order]


def run_profile(
    config: TrialConfig, launch: Launch, *, session: int, started: float, attempt: int = 1, earlier: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Measure a trial's costs and write them as a record of kind "profile" to `profiles/`.

    Args:
        config: The trial.
        launch: Where it runs.
        session: Which time it is, from 1 to `SESSIONS`.
        started, attempt, earlier: As of `bench.trial.run_trial`.

    Returns:
        The record.

    Raises:
        StorageError: The disk of the results does not take it.
    """
    timing = {"trial_start": iso(started), "imports_done": iso(time.time())}
    run_id = profile_id(config, session)
    return conclude(
        describe(config, launch, attempt) | {"kind": "profile", "run_id": run_id, "session": session, "timing": timing},
        lambda: (profile(config, launch, timing), None),
        started=started,
        directory=launch.suite_dir / "profiles",
        log=launch.suite_dir / "logs" / f"{run_id}.log",
        earlier=earlier,
    )


def profile(config: TrialConfig, launch: Launch, timing: dict[str, Any]) -> dict[str, Any]:
    """Return the measured part of a profile's record. Fills `timing`."""
    recipe, device = config.recipe, prepare_device(config.recipe)
    root = data_root_of(
        config.data.source,
        config.data.synthetic,
        config.data.fingerprint,
        results=launch.suite_dir.parent,
        data_root=launch.data_root,
    )
    feeds = open_feeds(
        config,
        root,
        device=device,
        draws=launch.suite_dir.parent / "data",
        cache_dir=launch.cache_dir,
        node_dir=launch.node_dir,
        share=0.0,  # nothing but the model and one batch on the device
    )
    train, val = feeds["train"], feeds["val"]
    batch = train.first()
    model = build_model(config, weights_file=local_weights(config, launch)).to(device)
    inference = cost.inference_cost(model, recipe.image_size, device)
    memory = probe_memory(model, batch, config)
    params, stored = cost.parameter_ledger(model), cost.stored_bytes(model)
    forget_peaks(device)
    timing |= {"train_start": iso(time.time())}
    seconds = time_steps(model, batch, config)
    timing |= {"train_end": iso(time.time()), "train_seconds": sum(seconds)}
    cuda = device.type == "cuda"
    costs = inference | {
        "step_memory_bytes": memory,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(device) if cuda else None,
        "device_memory_bytes": torch.cuda.get_device_properties(device).total_memory if cuda else None,
        "batch_size": recipe.batch_size,
        "step_seconds": cost.summarize_seconds(seconds, warmup_steps=WARMUP_STEPS),
        "images_per_second": None,  # of training with its loading; a profile loads one batch
        "stored_bytes": stored,
    }
    data = {"fingerprint": fingerprint(root), "content_hash": content_hash_of(root), "n_train": len(train.ids), "n_val": len(val.ids)}
    return {"params": params, "cost": costs, "data": data}


def time_steps(model: MultiTaskModel, batch: dict[str, Any], config: TrialConfig) -> list[float]:
    """Return the seconds of single training steps on one batch, the first ones warm up."""
    recipe, seconds = config.recipe, []
    model.train()
    optimizer = build_optimizer(model, peak_lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
    scaler = torch.amp.GradScaler(batch["image"].device.type, enabled=recipe.precision == "fp16")
    for _ in range(WARMUP_STEPS + STEPS):
        started = time.perf_counter()
        train_step(model, batch, recipe, optimizer, scaler)
        beat()
        if batch["image"].is_cuda:
            torch.cuda.synchronize(batch["image"].device)
        seconds.append(time.perf_counter() - started)
    return seconds
