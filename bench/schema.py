"""What a record must hold: fields, types, statuses, sums that must add up. No torch.

`results/README.md` describes every field. What is read was perhaps cut short, edited or written by other code: whatever breaks the schema
is named, so that a reader of records can leave that one out and go on.
"""

import datetime
import math
from collections.abc import Mapping
from pathlib import Path

from bench.errors import SuiteError
from bench.migration import SCHEMA_VERSION
from bench.tasks import TASKS

STATUSES = ("ok", "failed", "oom", "diverged", "invalid", "timeout", "killed", "stopped")
KINDS = ("accuracy", "profile")

_NONE = (type(None),)
_TEXT, _INTEGER, _NUMBER, _MAPPING, _LIST = (str,), (int,), (int, float), (dict,), (list,)

_FIELDS = {
    "schema_version": _INTEGER,
    "run_id": _TEXT,
    "cell_id": _TEXT,
    "suite": _TEXT,
    "status": _TEXT,
    "reason": _TEXT + _NONE,
    "config": _MAPPING,
    "method": _MAPPING,
    "method.name": _TEXT,
    "method.title": _TEXT,
    "method.label": _TEXT,
    "method.dial": _TEXT + _NONE,
    "method.dial_value": _NUMBER + _NONE,
    "tasks": _LIST,
    "seed": _INTEGER,
    "metrics": _MAPPING + _NONE,
    "history": _LIST,
    "params": _MAPPING + _NONE,
    "cost": _MAPPING + _NONE,
    "data": _MAPPING + _NONE,
    "per_image": _TEXT + _NONE,
    "env": _MAPPING,
    "code_id": _TEXT,
    "git": _MAPPING,
    "command": _TEXT,
    "timing": _MAPPING,
    "attempt": _INTEGER,
}
"""Fields of every record: dotted path -> allowed JSON types."""

_MEMORY_PARTS = ("weights", "gradients", "optimizer_state", "saved_activations")
_MEASURED_FIELDS = {
    "metrics": _MAPPING,
    "params": _MAPPING,
    "params.groups": _MAPPING,
    "params.total": _INTEGER,
    "params.trainable": _INTEGER,
    "params.trainable_without_decoders": _INTEGER,
    "cost": _MAPPING,
    "cost.flops_per_image": _INTEGER,
    "cost.flops_uncovered_ops": _MAPPING,
    "cost.inference_seconds": _MAPPING,
    "cost.inference_seconds.median": _NUMBER,
    "cost.merged_layers": _INTEGER,
    "cost.merged_flops_per_image": _INTEGER,
    "cost.merged_inference_seconds": _MAPPING,
    "cost.merged_inference_seconds.median": _NUMBER,
    "cost.step_memory_bytes": _MAPPING,
    **{f"cost.step_memory_bytes.{part}": _INTEGER for part in (*_MEMORY_PARTS, "total")},
    "cost.peak_allocated_bytes": _INTEGER + _NONE,
    "cost.peak_reserved_bytes": _INTEGER + _NONE,
    "cost.step_seconds": _MAPPING,
    "cost.step_seconds.median": _NUMBER + _NONE,
    "cost.images_per_second": _NUMBER + _NONE,
    "cost.stored_bytes": _INTEGER,
    "data": _MAPPING,
    "data.fingerprint": _TEXT,
    "data.n_train": _INTEGER,
    "data.n_val": _INTEGER + _NONE,
    "timing.train_seconds": _NUMBER,
    "timing.total_seconds": _NUMBER,
}
"""Fields that a record of status "ok" has besides."""

_OPTIONAL_FIELDS = {
    "config.backbone": _MAPPING,
    "config.data": _MAPPING,
    "config.recipe": _MAPPING,
    "best_on_held_out": _MAPPING + _NONE,
    "env.device": _TEXT + _NONE,
    "env.cpu": _TEXT + _NONE,
    "env.threads": _INTEGER + _NONE,
    "launch": _MAPPING,
    "launch.id": _TEXT + _NONE,
    "launch.slot": _TEXT + _NONE,
    "panels": _TEXT + _NONE,
    "session": _INTEGER,
    "timing.trial_start": _TEXT + _NONE,
    "timing.end": _TEXT + _NONE,
    **{f"timing.{name}_seconds": _NUMBER + _NONE for name in ("train", "evaluate", "attempt", "total")},
    "timing.earlier_attempts": _LIST,
}
"""Fields that a record need not have, with their types where it has them."""

RANGES = {"%": (0.0, 100.0), "°": (0.0, 180.0), "m": (0.0, math.inf)}
"""Values that a headline metric can take, per unit: a stand-in such as -1 is none of them."""


class RecordError(SuiteError):
    """A record or plan breaks the schema or cannot be read; the message names the file, the field and the remedy."""


class NewerSchemaError(RecordError):
    """A record is of a schema that came after this code: it is not damaged, and nothing is done to it."""


def validate_record(record: object, *, source: str) -> None:
    """Check a record against the schema.

    Args:
        record: What a JSON file held or a trial is about to write.
        source: Name of the file or run, for the message.

    Raises:
        RecordError: Naming the field, what was found and what is allowed.
    """
    if not isinstance(record, dict):
        raise RecordError(f"{source}: a record is a JSON object, not {type(record).__name__}.")
    if record.get("schema_version") != SCHEMA_VERSION or isinstance(record["schema_version"], bool):
        found = record.get("schema_version")
        newer = isinstance(found, int) and found > SCHEMA_VERSION
        remedy = "Use the code that wrote it, or move the file away: its trial runs again then." if newer else "Its trial must run again."
        kind = NewerSchemaError if newer else RecordError
        raise kind(f"{source}: schema_version is {found!r}, this code reads {SCHEMA_VERSION}. {remedy}")
    _check_types(record, _FIELDS, source)
    _check_plain(record, "", source)
    _check_types(record, {path: types for path, types in _OPTIONAL_FIELDS.items() if _holds(record, path)}, source)
    if Path(record["run_id"]).name != record["run_id"]:
        raise RecordError(f"{source}: run_id {record['run_id']!r} is no plain file name.")
    if record["per_image"] not in (None, f"{record['run_id']}.npz"):
        raise RecordError(f"{source}: per_image is {record['per_image']!r}, allowed: null or {record['run_id']}.npz.")
    if record.get("kind", "accuracy") not in KINDS:
        raise RecordError(f"{source}: kind {record['kind']!r} is unknown; allowed: {', '.join(KINDS)}.")
    if record["status"] not in STATUSES:
        raise RecordError(f"{source}: status {record['status']!r} is unknown; allowed: {', '.join(STATUSES)}.")
    unknown = [task for task in record["tasks"] if not isinstance(task, str) or task not in TASKS]
    if unknown or not record["tasks"]:
        raise RecordError(f"{source}: tasks {record['tasks']!r}; allowed: one or more of {', '.join(TASKS)}.")
    if record["status"] == "ok":
        _check_measurements(record, source)
    elif not record["reason"]:
        raise RecordError(f"{source}: status {record['status']!r} needs a reason.")
    _check_history(record, source)
    _check_times(record, source)


def _holds(record: Mapping, path: str) -> bool:
    owner, _, field = path.rpartition(".")
    holder = record.get(owner) if owner else record
    return isinstance(holder, dict) and field in holder


def _check_types(record: Mapping, fields: Mapping[str, tuple[type, ...]], source: str) -> None:
    """Check presence and JSON type of dotted fields; bool is no number here."""
    for path, types in fields.items():
        value: object = record
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                raise RecordError(f"{source}: field {path!r} is missing. Write null where something was not measured.")
            value = value[key]
        _check_type(path, value, types, source)


def _check_type(path: str, value: object, types: tuple[type, ...], source: str) -> None:
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
        raise RecordError(f"{source}: field {path!r} is {value!r:.80}, allowed: {names}.")


def _check_measurements(record: dict, source: str) -> None:
    """Check what only a finished trial has: each task's metrics, unless it is a profile, and sums that must add up."""
    profile = record.get("kind") == "profile"
    _check_types(record, {path: types for path, types in _MEASURED_FIELDS.items() if not (profile and path == "metrics")}, source)
    if not profile:
        _check_metrics(record["metrics"], record["tasks"], "metrics", source)
        best = record.get("best_on_held_out")
        if best is not None:
            _check_types(best, {"metrics": _MAPPING + _NONE}, f"{source}, best_on_held_out")
            _check_metrics(best["metrics"] or {}, [], "best_on_held_out.metrics", source)
    _check_amounts(record["cost"], "cost", source)
    groups = record["params"]["groups"]
    of_groups = {f"{name}.{part}": _INTEGER for name in groups for part in ("total", "trainable")}
    _check_types(groups, of_groups, f"{source}, params.groups")
    _check_amounts(record["params"], "params", source)
    _check_sums(record["params"], record["cost"]["step_memory_bytes"], source)


def _check_metrics(metrics: Mapping, tasks: list[str], path: str, source: str) -> None:
    """Check that every task has its headline metric, in its range, and that all metrics are numbers or null."""
    for task in tasks:
        if TASKS[task].metric not in (metrics.get(task) if isinstance(metrics.get(task), dict) else {}):
            raise RecordError(f"{source}: {path}.{task} lacks {TASKS[task].metric!r}, the headline metric of {task}.")
    for task, values in metrics.items():
        if not isinstance(values, dict):
            continue  # `score` beside the tasks
        _check_numbers(values, f"{source}, {path}.{task}")
        low, high = RANGES[TASKS[task].unit] if task in TASKS else (-math.inf, math.inf)
        value = values.get(TASKS[task].metric) if task in TASKS else None
        if value is not None and math.isfinite(value) and not low <= value <= high:
            raise RecordError(f"{source}: {path}.{task}.{TASKS[task].metric} is {value}, allowed: {low:g} to {high:g}, or null.")


def _check_amounts(part: Mapping, path: str, source: str) -> None:
    """Check that no count, cost or time is negative: what was not measured is null."""
    for key, value in part.items():
        if isinstance(value, dict):
            _check_amounts(value, f"{path}.{key}", source)
        elif isinstance(value, int | float) and value < 0:
            raise RecordError(f"{source}: {path}.{key} is {value}. Write null where something was not measured.")


def _check_sums(params: Mapping, memory: Mapping, source: str) -> None:
    """Check that groups of parameters, and parts of the memory, add up to what is stated."""
    groups = params["groups"]
    own = sum(group["trainable"] for name, group in groups.items() if name != "decoders")
    sums = {
        "params.total": (params["total"], sum(group["total"] for group in groups.values())),
        "params.trainable": (params["trainable"], sum(group["trainable"] for group in groups.values())),
        "params.trainable_without_decoders": (params["trainable_without_decoders"], own),
        "cost.step_memory_bytes.total": (memory["total"], sum(memory[part] for part in _MEMORY_PARTS)),
    }
    for path, (stated, summed) in sums.items():
        if stated != summed:
            raise RecordError(f"{source}: {path} is {stated}, but its parts sum to {summed}. The accounting of the trial is wrong.")


def _check_numbers(values: Mapping, source: str) -> None:
    """Check that every value is a number or null; the keys are names, which may hold dots."""
    for name, value in values.items():
        _check_type(name, value, _NUMBER + _NONE, source)


def _check_history(record: Mapping, source: str) -> None:
    """Check the lines of the history: epoch, and losses as numbers or null."""
    for place, line in enumerate(record["history"]):
        where = f"{source}, history[{place}]"
        if not isinstance(line, dict):
            raise RecordError(f"{where}: a line of the history is an object, not {type(line).__name__}.")
        _check_types(line, {"epoch": _INTEGER, "losses": _MAPPING}, where)
        _check_numbers(line["losses"], f"{where}.losses")


_ATTEMPT_FIELDS = {"start": _TEXT, "seconds": _NUMBER, "launch": _TEXT + _NONE, "slot": _TEXT + _NONE}
"""Fields of an earlier attempt."""


def _check_times(record: Mapping, source: str) -> None:
    """Check that starts and ends are times (ISO 8601), where the record holds them, and that what took time has a start."""
    timing = record["timing"]
    stamps = {f"timing.{key}": timing[key] for key in ("trial_start", "end") if timing.get(key)}
    for place, attempt in enumerate(timing.get("earlier_attempts", ())):
        where = f"timing.earlier_attempts[{place}]"
        _check_type(where, attempt, _MAPPING, source)
        _check_types(attempt, _ATTEMPT_FIELDS, f"{source}, {where}")
        stamps[f"{where}.start"] = attempt["start"]
    for path, stamp in stamps.items():
        try:
            datetime.datetime.fromisoformat(stamp)
        except ValueError as error:
            raise RecordError(f"{source}: {path} is {stamp!r}, no time (ISO 8601).") from error
    if timing.get("total_seconds") and not timing.get("trial_start"):
        raise RecordError(f"{source}: timing.total_seconds is {timing['total_seconds']}, but there is no timing.trial_start.")


def _check_plain(value: object, path: str, source: str) -> None:
    """Check that a value is made of plain JSON types and finite numbers only."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise RecordError(f"{source}: key {key!r} under {path or 'the record'!r} is no string.")
            _check_plain(inner, f"{path}.{key}" if path else key, source)
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            _check_plain(inner, f"{path}[{position}]", source)
    elif isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{source}: {path} is {value}. A record holds finite numbers; write None where there is none.")
    elif not isinstance(value, str | int | float | type(None)):
        raise RecordError(f"{source}: {path} is a {type(value).__name__}. Convert it to a plain Python number, string, list or dict.")
