"""Pretrain the demo's backbone: classify rendered abstract objects (`bench.data.synthetic.source`), keep the Swin without its heads.

It runs on the CPU, where the same seed, thread count and versions give the same file to the bit.
"""

import dataclasses
import datetime
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch

from bench import provenance
from bench.data.doctor import Finding
from bench.data.synthetic.source import SOURCE_CLASSES
from bench.model.backbone import DEMO_BACKBONE, DEMO_WEIGHTS
from bench.pretrain.config import PretrainConfig, PretrainError
from bench.pretrain.source_set import IMAGE_SIZE, SourceSet, render_source_set
from bench.pretrain.training import Progress, SourceClassifier, accuracy_as_stored, pack_backbone, source_accuracy, train
from bench.record import write_atomically

_TRAIN, _HELD_OUT = 0, 1


def pretrain(out: Path = DEMO_WEIGHTS.parent, *, processes: int = 2, progress: Progress | None = None, **settings: Any) -> dict[str, Any]:
    """Render the source set, train the demo's backbone on it, and write `<backbone>.safetensors` and `.json` (the manifest).

    Args:
        out: Directory of the two files; made where it does not exist.
        processes: Processes that render; they do not change the images.
        progress: Told how far the work is.
        **settings: Fields of `PretrainConfig`.

    Returns:
        The manifest: command, settings, source accuracy (share of the held-out images that are right), hash, versions, seconds.

    Raises:
        PretrainError: A setting is out of range, the loss diverged, or the file is too large or worse than the model it was made from.
    """
    unknown = set(settings) - {f.name for f in dataclasses.fields(PretrainConfig)}
    if unknown:
        allowed = ", ".join(f.name for f in dataclasses.fields(PretrainConfig))
        raise PretrainError(f"unknown settings {sorted(unknown)}; allowed: {allowed}")
    config = PretrainConfig(**settings)
    started_at, start = datetime.datetime.now(datetime.UTC), time.perf_counter()
    source, held_out = _render_both(config, processes, progress)
    rendered = time.perf_counter()
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            classifier, losses = train(source, config, progress=progress)
        trained = time.perf_counter()
        accuracy, _ = source_accuracy(classifier, held_out)
        packed = pack_backbone(classifier)
        stored_accuracy, patch_accuracy = accuracy_as_stored(classifier, packed, held_out, trained_accuracy=accuracy)
    finally:
        torch.set_num_threads(threads_before)
    seconds = {"render": rendered - start, "train": trained - rendered, "total": time.perf_counter() - start}
    manifest = _describe(classifier, packed, config) | {
        "source_accuracy": stored_accuracy,
        "source_accuracy_float32": accuracy,
        "chance_accuracy": 1 / SOURCE_CLASSES,
        "patch_accuracy": round(patch_accuracy, 4),
        "epoch_losses": losses,
        "source_sha256": hashlib.sha256(source.images.tobytes() + held_out.images.tobytes()).hexdigest(),
        "started_at": started_at.isoformat(timespec="seconds"),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }
    write_atomically(Path(out) / manifest["file"], packed)
    write_atomically(Path(out) / f"{DEMO_BACKBONE}.json", json.dumps(manifest, indent=1, allow_nan=False) + "\n")
    return manifest


def _render_both(config: PretrainConfig, processes: int, progress: Progress | None) -> list[SourceSet]:
    """Render the training and the held-out images, with one count of progress."""
    total, sets = config.images + config.held_out, []
    for split, count, before in ((_TRAIN, config.images, 0), (_HELD_OUT, config.held_out, config.images)):

        def told(done: int, before: int = before) -> None:
            if progress:
                progress("render", before + done, total, "")

        sets.append(render_source_set(count, seed=config.seed, split=split, processes=processes, progress=told))
    return sets


def _describe(classifier: SourceClassifier, packed: bytes, config: PretrainConfig) -> dict[str, Any]:
    """Return the part of the manifest that says what the file is and how to remake it."""
    return {
        "backbone": DEMO_BACKBONE,
        "file": f"{DEMO_BACKBONE}.safetensors",
        "sha256": hashlib.sha256(packed).hexdigest(),
        "bytes": len(packed),
        "dtype": "float16",
        "parameters": sum(value.numel() for value in classifier.pyramid.swin.state_dict().values()),
        "command": command_of(config),
        **dataclasses.asdict(config),
        "image_size": IMAGE_SIZE,
        "source_classes": SOURCE_CLASSES,
        "env": provenance.environment(config.threads) | {"device": "cpu", "deterministic": True},
    }


def check_kept(directory: Path = DEMO_WEIGHTS.parent) -> Finding:
    """Say whether the kept weights are there and are those of their manifest."""
    file, subject = Path(directory) / DEMO_WEIGHTS.name, "demo weights"
    remedy = "restore bench/assets from git, or make it again with `run_suite.py pretrain` (over an hour)"
    try:
        manifest = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        return Finding(subject, "fail", f"cannot be read: {error}", remedy)
    if digest != manifest.get("sha256"):
        return Finding(subject, "fail", f"{file} has SHA-256 {digest}, its manifest says {manifest.get('sha256')}", remedy)
    return Finding(subject, "ok", f"{manifest['backbone']}, {manifest['parameters']:,} parameters, as in the manifest")


def command_of(config: PretrainConfig) -> str:
    """Return the command line that remakes the weights; settings that have their default are left out."""
    changed = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if getattr(config, f.name) != f.default}
    return " ".join(["python run_suite.py pretrain", *[f"--{name.replace('_', '-')} {value}" for name, value in changed.items()]])
