"""Evaluate a checkpoint of the official MTLoRA release (arXiv 2403.20320) with this suite's data, decoders and metrics."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from bench.config import BackboneConfig, DataConfig, RecipeConfig, TrialConfig, method_config
from bench.data.feed import Feed
from bench.data.feed_modes import EVALUATION_BATCH
from bench.data.pascal_context import fingerprint
from bench.data.roots import open_split
from bench.data.store import FileStore
from bench.model.backbone import WeightsError
from bench.model.multitask import MultiTaskModel, build_model
from bench.model.release import read_released
from bench.training.loop import evaluate
from methods import METHODS


def load_released(weights: Path, *, backbone: str, image_size: int, **dials: Any) -> MultiTaskModel:
    """Rebuild a released model and load its weights.

    Args:
        weights: The checkpoint.
        backbone: The Swin of timm's registry that it was trained on.
        image_size: Side of its input, pixels.
        **dials: Fields of the method's configuration that a state dict does not show, such as `scale` and `mode`.

    Raises:
        WeightsError: It does not fit; the message lists what is missing, surplus or of another shape.
    """
    released = read_released(weights)
    fields = {field.name for field in dataclasses.fields(METHODS[released.method].config)}
    known = {name: value for name, value in dials.items() if name in fields} | released.dials
    trial = TrialConfig(
        method_name=released.method,
        method=method_config(released.method, known),
        tasks=released.tasks,
        data=DataConfig(source="pascal_context", fingerprint="none"),
        backbone=BackboneConfig(name=backbone, weights="scratch", drop_path=0.0),
        decoder_channels=released.decoder_channels,
        recipe=RecipeConfig(image_size=image_size),
    )
    model = build_model(trial)
    expected = model.state_dict()
    found = {name if name in expected else wrapped(name, expected): value for name, value in released.state.items()}
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    unscaled = {name for name in expected if ".task_scale." in name}  # no release trains them: they stay at `scale`
    missing, surplus = sorted(set(expected) - set(found) - counters - unscaled), sorted(set(found) - set(expected))
    wrong = [
        f"{n}: {tuple(found[n].shape)} instead of {tuple(expected[n].shape)}"
        for n in found
        if n in expected and found[n].shape != expected[n].shape
    ]
    if missing or surplus or wrong:
        raise WeightsError(
            f"{weights} does not fit {released.method} on {backbone} at {image_size} px: {len(missing)} missing {missing[:5]}; "
            f"{len(surplus)} surplus {surplus[:5]}; {len(wrong)} of another shape {wrong[:5]}. Check --backbone and --img-size"
        )
    model.load_state_dict(found, strict=False)
    return model


def wrapped(name: str, expected: dict[str, torch.Tensor]) -> str:
    """Return the name of a layer without pairs of its own that hands on streams here, where the release leaves it plain; else the name."""
    owner, _, leaf = name.rpartition(".")
    inner = f"{owner}.linear.{leaf}"
    return inner if inner in expected else name


def evaluate_released(weights: Path, data_root: Path, *, backbone: str, image_size: int, workers: int = 0, **dials: Any) -> dict[str, Any]:
    """Evaluate a released checkpoint on the validation split of a PASCAL_MT directory; arguments as of `load_released`.

    Returns:
        `metrics` a task, `method`, `tasks`, number of images `n_val` and `fingerprint` of the data.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_released(weights, backbone=backbone, image_size=image_size, **dials).to(device)
    val = FileStore(open_split(data_root, "val", model.tasks))
    feed = Feed(val, EVALUATION_BATCH, image_size=image_size, mode="files", workers=workers, device=device)
    metrics, _ = evaluate(model, feed(), device)
    return {
        "metrics": metrics,
        "method": read_released(weights).method,
        "tasks": list(model.tasks),
        "n_val": len(val.ids),
        "fingerprint": fingerprint(data_root),
    }
