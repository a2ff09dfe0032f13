"""The parameter ledger: what each row of a suite trains, counted, as a closed form, and as published; without data or weights."""

import dataclasses
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.config import ConfigError, TrialConfig
from bench.measure.cost import parameter_ledger
from bench.model.backbone import Pyramid, build_backbone, shape_of
from bench.model.decoders import decoder_parameters
from bench.model.multitask import build_model
from bench.suites import Row, Suite

PUBLISHED_COUNTS = Path(__file__).parent.parent / "results" / "published_counts.csv"
PUBLISHED_BACKBONE = "swin_tiny_patch4_window7_224"
PROBE_IMAGE_SIZE = 64
CANCELLED = 1e-11
"""A gradient this small beside its tensor's largest one, in float64, is rounding."""


@cache
def ledger(trial: TrialConfig) -> dict[str, Any]:
    """Return a trial's counts by group (`bench.measure.cost.parameter_ledger`); nothing is allocated."""
    with torch.device("meta"):
        return parameter_ledger(build_model(trial, backbone=_untrained(trial, "meta")))


@cache
def _pickled(name: str, image_size: int, device: str) -> bytes:
    with torch.device(device):
        pyramid = build_backbone(name, image_size=image_size, tasks=(), drop_path=0.0, weights="scratch", weights_file=None)
    return pickle.dumps(pyramid)


def _untrained(trial: TrialConfig, device: str) -> Pyramid:
    """Return a new backbone of the trial's kind with random weights; copying one is several times faster than building it."""
    pyramid = pickle.loads(_pickled(trial.backbone.name, trial.recipe.image_size, device))
    pyramid.tasks = trial.tasks
    return pyramid


def ledger_rows(suite: Suite) -> list[dict[str, Any]]:
    """Return one entry a row, its models of one seed summed.

    Returns:
        Per row: trainable parameters by group, in all, with and without decoders; `closed_form`, the same total from the methods' and
        decoders' formulae; `dead`, how many of them train and never get a gradient, and `dead_names`; on the published backbone, what the
        tables print (`printed_millions`), the `published` count behind it, of the released code where there is one, of which
        `published_decoders`, how precisely it was printed and what it includes;
        `difference_with_decoders`, ours minus published, and `difference`, the same without either's decoders; `refused`, why the method
        does not work on this backbone, with nulls in all counts, or null.
    """
    published = pd.read_csv(PUBLISHED_COUNTS, keep_default_na=False).set_index("row")
    rows = []
    for row in suite.rows:
        try:
            rows.append(_counts(row) | _dead(row) | _published(row, published) | {"refused": None})
        except ConfigError as error:  # the method and this backbone do not go together
            rows.append({"row": row.label, "refused": str(error)})
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def _counts(row: Row) -> dict[str, Any]:
    ledgers = [ledger(trial) for trial in _models(row)]
    groups = {group: sum(ledger["groups"][group]["trainable"] for ledger in ledgers) for group in ledgers[0]["groups"]}
    trainable, total = (sum(ledger[key] for ledger in ledgers) for key in ("trainable", "total"))
    return {
        "row": row.label,
        "models": len(ledgers),
        "trainable": trainable,
        "trainable_without_decoders": trainable - groups["decoders"],
        "closed_form": sum(closed_form(trial) for trial in _models(row)),
        **groups,
        "not_trained": total - trainable,
        "total": total,
        "total_without_decoders": total - sum(ledger["groups"]["decoders"]["total"] for ledger in ledgers),
    }


def _models(row: Row) -> list[TrialConfig]:
    return [trial for trial in row.trials if trial.seed == row.trials[0].seed]


def closed_form(trial: TrialConfig) -> int:
    """Return the trial's trainable parameters by formula: the method's on this backbone, and the decoders'."""
    shape = shape_of(trial.backbone.name, image_size=trial.recipe.image_size, tasks=len(trial.tasks))
    channels = _untrained(trial, "meta").channels
    outputs = [trial.data.tasks[task].channels for task in trial.tasks]
    return trial.method.trainable(shape) + sum(decoder_parameters(trial.decoder, channels, trial.decoder_channels, n) for n in outputs)


def _dead(row: Row) -> dict[str, Any]:
    models = _models(row)
    found = dead_parameters(models[0])  # models of one row differ in the decoder's last layer only
    return {"dead": len(models) * sum(found.values()), "dead_names": sorted(found)}


def dead_parameters(trial: TrialConfig) -> dict[str, int]:
    """Find the parameters that are trainable and get no gradient from a loss in which every output counts.

    Looks at a small image, because the size does not decide which parameters are read. Every parameter, frozen ones too, is moved away
    from its start first, so that zeros there hide none: timm starts SwinV2's norms at zero, behind which nothing gets a gradient. A tensor
    is dead where its gradient is none or zero. So are entries of a vector whose gradient cancels to the rounding of float64, as that of a
    key's bias does: softmax does not feel what is added to all scores of a query.

    Returns:
        Dotted name within the model, and how many entries are dead.
    """
    threads, small = (
        torch.get_num_threads(),
        dataclasses.replace(trial, recipe=dataclasses.replace(trial.recipe, image_size=PROBE_IMAGE_SIZE)),
    )
    torch.set_num_threads(1)  # the work is too small for more
    with torch.random.fork_rng(devices=[]):
        model = build_model(small, backbone=_untrained(small, "cpu")).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.empty_like(parameter).uniform_(-0.02, 0.02))
        outputs = model(torch.randn(1, 3, PROBE_IMAGE_SIZE, PROBE_IMAGE_SIZE, dtype=torch.float64))
        sum((output * torch.randn_like(output)).sum() for output in outputs.values()).backward()
    torch.set_num_threads(threads)
    found = {name: _dead_entries(p) for name, p in model.named_parameters() if p.requires_grad}
    return {name: entries for name, entries in found.items() if entries}


def _dead_entries(parameter: torch.nn.Parameter) -> int:
    """Count entries without gradient: all, or those of a vector that cancelled. Zeros alone in a vector are a ReLU's on this one input."""
    if parameter.grad is None or not parameter.grad.any():
        return parameter.numel()
    if parameter.ndim != 1:
        return 0
    size = parameter.grad.abs()
    cancelled = size < CANCELLED * size.max()
    return int(cancelled.sum()) if (cancelled & (size > 0)).any() else 0


def _published(row: Row, published: pd.DataFrame) -> dict[str, Any]:
    """Compare, on the published backbone, without decoders, because tables of other papers count other decoders."""
    of_published = row.trials[0].backbone.name.startswith(PUBLISHED_BACKBONE)
    if row.label not in published.index or not of_published:
        numbers = ("printed_millions", "published", "published_decoders", "precision", "difference_with_decoders", "difference")
        return dict.fromkeys((*numbers, "published_includes", "evidence", "note"))
    entry = published.loc[row.label]
    with_decoders, ours = (sum(ledger(trial)[key] for trial in _models(row)) for key in ("trainable", "trainable_without_decoders"))
    return {
        "printed_millions": float(entry["printed_millions"]) if entry["printed_millions"] else None,
        "published": int(entry["count"]),
        "published_decoders": int(entry["decoders"]),
        "precision": int(entry["precision"]),
        "difference_with_decoders": with_decoders - int(entry["count"]),
        "difference": ours - (int(entry["count"]) - int(entry["decoders"])),
        "published_includes": entry["includes"],
        "evidence": entry["evidence"],
        "note": entry["note"],
    }
