"""One trial, from configuration to record: the story of the experiment."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import provenance
from bench.config import RecipeConfig, TrialConfig, steps_per_epoch
from bench.data.feed import Feed
from bench.data.feed_modes import open_feeds, resident_bytes
from bench.data.layout import content_hash_of, fingerprint
from bench.data.roots import data_root_of
from bench.data.shown import shown_ids
from bench.measure import cost
from bench.measure.panels import Panels
from bench.model.multitask import build_model
from bench.model.node_cache import copied, default_cache_dir
from bench.outcome import conclude, iso
from bench.record import SCHEMA_VERSION
from bench.tracking import Tracking
from bench.training.checkpoint import FitState
from bench.training.held_out import HeldOut, held_out_metrics
from bench.training.loop import evaluate, fit, forget_peaks, train_step
from bench.training.optim import build_optimizer

EPOCH_SECONDS = {"train": "seconds", "held_out": "held_out_seconds"}
"""Parts of a trial's timing, and their names in a line of the history."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Where and how a trial runs; nothing here may change its result.

    Attributes:
        suite, suite_dir: The suite's name and the directory of its records and checkpoints.
        results: Directory under which synthetic data is rendered; None: the one that holds `suite_dir`.
        data_root: A PASCAL_MT directory; None for synthetic data, which lies under the results.
        weights_file: The file behind `weights = "sha256:..."`.
        cache_dir: Directory of the prepared caches; None decodes the files in every epoch.
        node_copies: Whether the nodes of a cluster copy the caches to their own disks first.
        loader_workers: Threads that prepare batches; 0 prepares them in the trial's own.
        trackers: What watches the trial, see `bench.tracking`.
        executor, gpus_per_trial: Who runs the trial, and its share of GPUs, for the record: timings depend on them.
        command: The command line, for the record.
        id, slot: Of the launch, and of the supervisor that the trial runs under, for the record: a slot runs one trial after the other.
        git: Commit and state of the checkout that the launch was made from; None looks here.
    """

    suite: str
    suite_dir: Path
    results: Path | None = None
    data_root: Path | None = None
    weights_file: Path | None = None
    cache_dir: Path | None = None
    node_copies: bool = False
    loader_workers: int = 0
    trackers: tuple[str, ...] = ()
    executor: str = "serial"
    gpus_per_trial: float | None = None
    command: str = ""
    id: str = ""
    slot: str | None = None
    git: dict[str, Any] | None = None

    @property
    def node_dir(self) -> Path | None:
        """The directory of this node to which caches are copied; None leaves them where they are."""
        return default_cache_dir() / "data" if self.node_copies else None


def run_trial(
    config: TrialConfig,
    launch: Launch,
    *,
    started: float,
    attempt: int = 1,
    earlier: Sequence[Mapping[str, Any]] = (),
    on_epoch: Callable[[dict], None] = print,
) -> dict:
    """Run a trial to its record, and write it; a trial that fails becomes a record that says so.

    Args:
        config: The trial.
        launch: Where it runs.
        started: `time.time()` at the start of the process or trial, before heavy imports.
        attempt: How often the trial has been started, this time included.
        earlier: When its earlier attempts were, as of `bench.outcome.conclude`.
        on_epoch: Called with each epoch's line of the history.

    Returns:
        The record.

    Raises:
        StorageError: The disk of the results does not take a checkpoint or the record; there is no record then.
    """
    timing = {"trial_start": iso(started), "imports_done": iso(time.time())}
    record = describe(config, launch, attempt) | {"timing": timing}
    checkpoint = launch.suite_dir / "checkpoints" / f"{config.run_id}.pt"
    tracking = Tracking(launch.trackers, suite=launch.suite, run_id=config.run_id, suite_dir=launch.suite_dir, config=config.to_dict())

    def watched(line: dict) -> None:
        record["history"].append({key: value for key, value in line.items() if key != "images_per_second"})  # stays if the trial fails
        tracking.epoch(line)
        on_epoch(line)

    record = conclude(
        record,
        lambda: measure(config, launch, checkpoint, watched, timing),
        started=started,
        directory=launch.suite_dir / "records",
        log=launch.suite_dir / "logs" / f"{config.run_id}.log",
        earlier=earlier,
    )
    checkpoint.unlink(missing_ok=True)
    tracking.end(record)
    return record


def measure(
    config: TrialConfig, launch: Launch, checkpoint: Path, on_epoch: Callable[[dict], None], timing: dict
) -> tuple[dict, dict | None]:
    """Train and evaluate; return the measured part of the record and the per-image sums. Fills `timing`."""
    recipe, device, results = config.recipe, prepare_device(config.recipe), launch.results or launch.suite_dir.parent
    root = data_root_of(
        config.data.source,
        config.data.synthetic,
        config.data.fingerprint,
        results=results,
        data_root=launch.data_root,
    )
    where = {"cache_dir": launch.cache_dir, "node_dir": launch.node_dir, "workers": launch.loader_workers}
    feeds = open_feeds(
        config, root, device=device, draws=results / "data", splits=config.splits, share=launch.gpus_per_trial or 1.0, **where
    )
    train, held_out, val = (feeds.get(split) for split in ("train", "held_out", "val"))
    steps = steps_per_epoch(len(train.ids), recipe.batch_size)
    model = build_model(config, weights_file=local_weights(config, launch)).to(device)
    inference = cost.inference_cost(model, recipe.image_size, device)
    memory = probe_memory(model, train.first(), config)
    forget_peaks(device)
    timing |= {"train_start": iso(time.time())}
    data = {"fingerprint": fingerprint(root), "content_hash": content_hash_of(root), "n_train": len(train.ids)}
    data |= {f"n_{split}": len(feeds[split].ids) if split in feeds else None for split in ("val", "held_out")}
    loop = {"steps_per_epoch": steps, "device": device, "checkpoint": checkpoint}

    def report(line: dict) -> None:
        on_epoch(line | {"images_per_second": steps * recipe.batch_size / line["seconds"]})

    loop |= {"on_epoch": report, "identity": f"{provenance.code_id()} {data['fingerprint']}"}
    watch = None if held_out is None else watch_held_out(model, recipe.evaluate_every, held_out, val, device)
    fitted = fit(model, train, recipe, held_out=watch, **loop)
    timing |= {"train_end": iso(time.time())}
    timing |= {f"{of}_seconds": sum(line.get(key, 0.0) for line in fitted.history) for of, key in EPOCH_SECONDS.items()}
    evaluation_started, panels = time.perf_counter(), None if val is None else Panels(shown_ids(root, val.ids))
    metrics, per_image = (held_out_metrics(fitted.history[-1]), None) if val is None else evaluate(model, val(), device, panels)
    timing |= {"evaluate_seconds": time.perf_counter() - evaluation_started}
    pictures = None if val is None else panels.write(launch.suite_dir / "records", config.run_id, data["fingerprint"])
    resident = sum(resident_bytes(feed) for feed in feeds.values()) if device.type == "cuda" else 0
    waited = fitted.wait_seconds / timing["train_seconds"]
    data["feed"] = train.describe() | {"evaluation_mode": (val or held_out).mode, "resident_bytes": resident, "wait_share": waited}
    costs = inference | {"step_memory_bytes": memory, "stored_bytes": cost.stored_bytes(model)}
    costs |= step_costs(fitted, recipe, resident=resident, images=recipe.epochs * steps * recipe.batch_size)
    measured = {"metrics": metrics, "history": fitted.history, "params": cost.parameter_ledger(model), "cost": costs, "data": data}
    return measured | {"panels": pictures, "best_on_held_out": fitted.best}, per_image


def step_costs(fitted: FitState, recipe: RecipeConfig, *, resident: int, images: int) -> dict[str, Any]:
    """Return what training `images` images cost: peaks of the CUDA allocator without the data there, seconds of a step, images a second."""
    return {
        "peak_allocated_bytes": without(resident, fitted.peak_allocated_bytes),
        "peak_reserved_bytes": without(resident, fitted.peak_reserved_bytes),
        "batch_size": recipe.batch_size,
        "step_seconds": cost.summarize_seconds(fitted.step_seconds, warmup_steps=0),
        "images_per_second": images / sum(line["seconds"] for line in fitted.history),
    }


def watch_held_out(model: torch.nn.Module, every: int | None, held_out: Feed, val: Feed | None, device: torch.device) -> HeldOut:
    """Return how the model is evaluated on held-out images while it trains, and on the validation split, where one is given, when best."""

    def metrics_on(feed: Feed) -> dict[str, dict[str, float | None]]:
        return evaluate(model, feed(), device)[0]

    return HeldOut(every=every, evaluate=partial(metrics_on, held_out), at_best=None if val is None else partial(metrics_on, val))


def prepare_device(recipe: RecipeConfig) -> torch.device:
    """Set torch up as every trial has it, and return the device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.backends.cudnn.allow_tf32 = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs a tenth of a step, and nothing here reads such memory
    return device


def local_weights(config: TrialConfig, launch: Launch) -> Path | None:
    """Return the weights file; on Ray as this node's own copy, which the first trial of a node makes and the others share."""
    if launch.weights_file is None or launch.executor != "ray":
        return launch.weights_file
    digest = config.backbone.weights.removeprefix("sha256:")
    return copied(launch.weights_file, digest, default_cache_dir())


def without(resident: int, peak: int | None) -> int | None:
    """Take the data set that lies on the device off a peak: what is left is the method's."""
    return None if peak is None else peak - resident


def probe_memory(model: torch.nn.Module, batch: dict[str, Any], config: TrialConfig) -> dict[str, int]:
    """Measure the memory of one training step on a copy of the model, which leaves model and random state as they were."""
    probe = copy.deepcopy(model).train()
    optimizer = build_optimizer(probe, peak_lr=config.recipe.peak_lr, weight_decay=config.recipe.weight_decay)
    scaler = torch.amp.GradScaler(batch["image"].device.type, enabled=config.recipe.precision == "fp16")
    with torch.random.fork_rng(devices=[batch["image"].device] if batch["image"].is_cuda else []):
        return cost.step_memory(probe, optimizer, lambda: train_step(probe, batch, config.recipe, optimizer, scaler))


def describe(config: TrialConfig, launch: Launch, attempt: int) -> dict[str, Any]:
    """Return the part of a record that is known before the trial runs."""
    method = config.method
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "accuracy",
        "run_id": config.run_id,
        "cell_id": config.cell_id,
        "suite": launch.suite,
        "config": config.to_dict(),
        "method": method_block(config.method_name, method),
        "tasks": list(config.tasks),
        "seed": config.seed,
        "metrics": None,
        "history": [],
        "params": None,
        "cost": None,
        "data": None,
        "per_image": None,
        "panels": None,
        "best_on_held_out": None,
        "env": provenance.environment(config.recipe.threads),
        "code_id": provenance.code_id(),
        "git": launch.git or provenance.git_state(),
        "launch": launch_block(launch),
        "command": launch.command,
        "attempt": attempt,
        "log_tail": None,
    }


def launch_block(launch: Launch) -> dict[str, Any]:
    """Return the record's block about who ran the trial."""
    return {
        "executor": launch.executor,
        "gpus_per_trial": launch.gpus_per_trial,
        "loader_workers": launch.loader_workers,
        "id": launch.id,
        "slot": launch.slot,
    }


def method_block(name: str, method: Any) -> dict[str, Any]:
    """Return the record's block about the method."""
    value = None if method.dial is None else asdict(method)[method.dial]
    block = {"name": name, "title": method.title, "label": method.label, "dial": method.dial, "dial_value": value}
    return block | {"single_path": method.single_path}
