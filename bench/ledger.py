"""The parameter ledger: what each row of a suite trains, counted, as a closed form, and as published; without data or weights."""

import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
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


def ledger_rows(suite: Suite, *, progress: Callable[[int, int, str], None] = lambda done, total, label: None) -> list[dict[str, Any]]:
    """Return one entry a row, its models of one seed summed.

    Args:
        suite: Whose rows.
        progress: Told before each row how many are done, of how many, and the row's label.

    Returns:
        Per row: trainable parameters by group, in all, with and without decoders; `closed_form`, the same total from the methods' and
        decoders' formulae; `dead`, how many of them train and never get a gradient, `dead_names`, and `dead_parts`, which part of a tensor
        where not the whole is; on the published backbone what is published (`_published`); `refused`, why the method does not work on this
        backbone, with nulls in all counts, or null.
    """
    published = published_counts()
    rows = []
    for i, row in enumerate(suite.rows):
        progress(i, len(suite.rows), row.label)
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
    return {
        "dead": len(models) * sum(dead.entries for dead in found.values()),
        "dead_names": sorted(found),
        "dead_parts": {name: dead.part for name, dead in sorted(found.items()) if dead.part},
    }


@dataclass(frozen=True)
class Dead:
    """What of a parameter never gets a gradient: how many entries, and in words which part; "" is the whole."""

    entries: int
    part: str


def dead_parameters(trial: TrialConfig) -> dict[str, Dead]:
    """Find the parameters that are trainable and get no gradient from a loss in which every output counts.

    Looks at a small image, because the size does not decide which parameters are read. Every parameter, frozen ones too, is moved away
    from its start first, so that zeros there hide none: timm starts SwinV2's norms at zero, behind which nothing gets a gradient. A tensor
    is dead where its gradient is none or zero. So are entries of a vector whose gradient cancels to the rounding of float64, as that of a
    key's bias does: softmax does not feel what is added to all scores of a query.

    Returns:
        By the dotted name within the model, what is dead.
    """
    threads, small = (
        torch.get_num_threads(),
        dataclasses.replace(trial, recipe=dataclasses.replace(trial.recipe, image_size=PROBE_IMAGE_SIZE)),
    )
    torch.set_num_threads(1)  # the work is too small for more
    with torch.random.fork_rng(devices=[]):
        model = build_model(small, backbone=_untrained(small, "cpu")).double().eval()
        found: dict[str, Dead] = {}
        for name, parameter in model.named_parameters():
            with torch.no_grad():
                parameter.add_(torch.empty_like(parameter).uniform_(-0.02, 0.02))
            if parameter.requires_grad:
                found[name] = Dead(parameter.numel(), "")  # until a gradient arrives
                parameter.register_post_accumulate_grad_hook(partial(_look_and_forget, found, name))
        outputs = model(torch.randn(1, 3, PROBE_IMAGE_SIZE, PROBE_IMAGE_SIZE, dtype=torch.float64))
        sum((output * torch.randn_like(output)).sum() for output in outputs.values()).backward()
    torch.set_num_threads(threads)
    return {name: dead for name, dead in found.items() if dead.entries}


def _look_and_forget(found: dict[str, Dead], name: str, parameter: torch.nn.Parameter) -> None:
    """Judge a gradient as it arrives and free it: all at once would take as much memory again as the model."""
    dead = _dead_entries(parameter.grad)
    found[name] = Dead(int(dead.sum()), "" if dead.all() else _part(name, dead))
    parameter.grad = None


def _dead_entries(grad: torch.Tensor) -> torch.Tensor:
    """Return where a gradient is dead: everywhere, or in those entries of a vector that cancelled; bool of its shape.

    Zeros alone in a vector are a ReLU's on this one input.
    """
    if not grad.any():
        return torch.ones_like(grad, dtype=torch.bool)
    size = grad.abs()
    cancelled = size < CANCELLED * size.max()
    if grad.ndim != 1 or not (cancelled & (size > 0)).any():
        return torch.zeros_like(cancelled)
    return cancelled


def _part(name: str, dead: torch.Tensor) -> str:
    """Name the dead part of a vector: the keys' of a fused projection of queries, keys and values, else the number of its entries."""
    for fused, share in {"qkv": "third", "kv": "half"}.items():
        if fused in name.split("."):
            each = len(dead) // len(fused)
            keys = torch.zeros_like(dead)
            keys[fused.index("k") * each :][:each] = True
            if torch.equal(dead, keys):
                return f"the keys' {share}"
    return f"{int(dead.sum())} of {len(dead)} entries"


def published_counts() -> pd.DataFrame:
    """Return the published counts by row: `printed_millions` as text with its decimals ("" where no table prints the row), and numbers."""
    table = pd.read_csv(PUBLISHED_COUNTS, keep_default_na=False, dtype={"printed_millions": str})
    return table.set_index("row")


def half_printed_unit(printed: str) -> int:
    """Return half a unit of the last printed digit of a number of millions: 5,000 parameters for "2.85"."""
    return round(0.5 * 10 ** (6 - len(printed.partition(".")[2])))


def _published(row: Row, published: pd.DataFrame) -> dict[str, Any]:
    """Compare, on the published backbone, without decoders, because tables of other papers count other decoders.

    Returns:
        `printed_millions` (text, as the table has it) and `half_printed_unit`; `published`, the count behind it, `published_kind`
        ("released code", to the unit, or "printed", rounded) and of which `published_decoders`; `difference`, ours minus published, both
        without decoders, null where nothing else is counted and theirs are others; `difference_with_decoders`, null where theirs are
        others or none; `agrees_with` (`_agreement`); and what the published count includes, its evidence and a note.
    """
    of_published = row.trials[0].backbone.name.startswith(PUBLISHED_BACKBONE)
    if row.label not in published.index or not of_published:
        numbers = ("printed_millions", "half_printed_unit", "published", "published_kind", "published_decoders", "difference")
        return dict.fromkeys((*numbers, "difference_with_decoders", "agrees_with", "published_includes", "evidence", "note"))
    entry = published.loc[row.label]
    ledgers = [ledger(trial) for trial in _models(row)]
    total, ours = (sum(counts[key] for counts in ledgers) for key in ("trainable", "trainable_without_decoders"))
    printed, count, decoders = entry["printed_millions"], int(entry["count"]), int(entry["decoders"])
    counted, same_decoders = entry["precision"] == 1, total - ours == decoders
    difference = ours - (count - decoders) if same_decoders or count > decoders else None
    return {
        "printed_millions": printed or None,
        "half_printed_unit": half_printed_unit(printed) if printed else None,
        "published": count,
        "published_kind": "released code" if counted else "printed",
        "published_decoders": decoders,
        "difference": difference,
        "difference_with_decoders": total - count if same_decoders else None,
        "agrees_with": _agreement(difference, printed, count if counted else None),
        "published_includes": entry["includes"],
        "evidence": entry["evidence"],
        "note": entry["note"],
    }


def _agreement(difference: int | None, printed: str, counted: int | None) -> str:
    """Say what our count equals, decoders aside: the released code's to the unit, the printed one to half a printed unit, or neither.

    A released count is the printed one's own convention, so that the two are compared as they are.
    """
    if difference is None:
        return "not comparable"
    code = counted is not None and difference == 0
    off = difference if counted is None else difference + counted - round(float(printed or 0) * 1e6)
    print_ = bool(printed) and abs(off) <= half_printed_unit(printed)
    if code and printed:
        return "code, print" if print_ else "code only"
    return "code" if code else "print" if print_ else "neither"
