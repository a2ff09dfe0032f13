"""The record of a trial: atomic writing and reading, checked against its schema (`bench.schema`). No torch.

A trial ends as `<run_id>.json` (measurements only, never a derived number) with, beside it, `<run_id>.npz` holding per-image sums for
paired statistics. The disk is the only state of a suite: a run id without a JSON file is still to do. Hence a file appears whole or not at
all, and the JSON, which says "done", is written after the arrays it names. `results/README.md` describes every field.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.migration import SCHEMA_VERSION, fields_of_later_schemas, migrate
from bench.schema import NewerSchemaError, RecordError, validate_record
from bench.secrecy import without_secrets
from bench.storage import StorageError, plain_name, set_aside, write_atomically

__all__ = ["SCHEMA_VERSION", "NewerSchemaError", "RecordError", "StorageError", "examine", "load_records", "read_plan", "read_record"]
__all__ += ["read_trusted", "to_frame", "validate_record", "write_atomically", "write_record"]


def write_record(directory: Path, record: Mapping, per_image: Mapping[str, np.ndarray] | None = None) -> Path:
    """Write one trial's record, per-image arrays first, so that a JSON file always has the arrays that it names.

    Args:
        directory: `results/<suite>/records`.
        record: The record without or with `per_image`, which is set here to the arrays' file name or None.
        per_image: Arrays to keep beside the record, such as per-image confusion sums, or None.

    Returns:
        Path of the JSON file.

    Raises:
        RecordError: Where the record breaks the schema or holds NaN or infinity: mark such a trial "diverged" and leave the value None.
    """
    directory = Path(directory)
    run_id = record.get("run_id")
    record = {**record, "per_image": f"{run_id}.npz" if per_image is not None else None}
    record |= {name: without_secrets(record[name]) for name in ("reason", "log_tail") if isinstance(record.get(name), str)}
    validate_record(record, source=f"record of {run_id!r}")
    if per_image is not None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **per_image)
        write_atomically(directory / f"{run_id}.npz", buffer.getvalue())
    path = directory / f"{run_id}.json"
    write_atomically(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return path


def read_record(path: Path) -> dict:
    """Read and validate one record.

    Raises:
        RecordError: Where the file is cut short, is no JSON, has a foreign name or breaks the schema: run the suite again.
    """
    path = Path(path)
    written = _read_json(path, remedy="Run the suite again: it sets the file aside, and only this trial runs.")
    if newer := fields_of_later_schemas(written):
        said = f"schema_version is {written['schema_version']}, but it holds {', '.join(newer)}, which came later: it was edited"
        raise RecordError(f"{path}: {said}. Run the suite again: it sets the file aside, and only this trial runs.")
    record = migrate(written)
    validate_record(record, source=str(path))
    if path.stem != record["run_id"]:
        raise RecordError(f"{path}: holds the record of run {record['run_id']!r}. Rename the file to {record['run_id']}.json or remove it.")
    return record


def read_trusted(path: Path, expected: Mapping[str, Any] | None = None) -> tuple[dict | None, str | None]:
    """Read a record that a launch is about to rely on, and look at the arrays that it names; what is damaged is set aside, by name.

    Args:
        path: The record.
        expected: What it must hold, by field, as the trial that it is taken for says.

    Returns:
        The record, or None; and what was wrong where the file, or its arrays, had to be set aside.

    Raises:
        NewerSchemaError: The record is of a newer schema: nothing is done to it.
    """
    record, error = examine(path, expected)
    if error is None:
        return record, None
    if isinstance(error, NewerSchemaError):
        raise error
    beside = (path.with_suffix(".npz"), path.with_suffix(".panels.npz"), path)
    places = [set_aside(file) for file in beside if file.exists()]  # the JSON, which says "done", last
    return None, f"{error} It is set aside as {places[-1]}; its trial runs again."


def examine(path: Path, expected: Mapping[str, Any] | None = None) -> tuple[dict | None, RecordError | None]:
    """Look at a record and at the arrays that it names, and leave them as they are; arguments as of `read_trusted`.

    Returns:
        The record, None where it cannot be read; and what is wrong with it or its arrays, None where they are whole.
    """
    try:
        record = read_record(path)
    except RecordError as error:
        return None, error
    for name, value in (expected or {}).items():
        if record[name] != value and not (name == "config" and "migrated_from" in record):
            said = "config is another one than its trial's" if name == "config" else f"{name} is {record[name]!r}, its trial's is {value!r}"
            return record, RecordError(f"{path}: {said}: it was edited, or is not the record of this trial.")
    for name in filter(None, (record["per_image"], record.get("panels"))):
        if (problem := flaw_of_arrays(path.parent / name)) is not None:
            return record, RecordError(f"{path.parent / name}: {problem}.")
    return record, None


def foreign_to(record: Mapping, row: Mapping) -> str | None:
    """Say why a record cannot be one of a plan's row, or None."""
    if record["cell_id"] == row["cell_id"] and record["seed"] in row["seeds"]:
        return None
    return f"cell_id {record['cell_id']}, seed {record['seed']}, where its row {row['label']!r} in the plan has others"


def flaw_of_arrays(path: Path) -> str | None:
    """Return why a file of arrays (.npz) cannot be relied on, None where every member can be unpacked and has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken, names = archive.testzip(), archive.namelist()
        if not names or not all(name.endswith(".npy") for name in names):
            return "holds no arrays, or something else"
        return f"{broken} in it is garbled" if broken else None
    except FileNotFoundError:
        return "missing, though its record names it"
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        return f"cut short or garbled ({error})"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays that lie beside a record; nothing is unpickled.

    Raises:
        RecordError: The file is missing, cut short or garbled: run the suite again, which makes that trial's record anew.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RecordError(f"{path}: cannot be read ({error}). Run the suite again: it sets the record aside and runs its trial.") from error


def load_records(directory: Path) -> list[dict]:
    """Read every record of a directory in the order of file names; none where the directory does not exist yet.

    Raises:
        RecordError: Naming the first file that cannot be read.
    """
    return [read_record(path) for path in sorted(Path(directory).glob("*.json"))]


def read_plan(path: Path) -> dict:
    """Read `plan.json`, which says which trials make up which row of the table.

    Raises:
        RecordError: Where the file is missing, garbled or of another schema version: launching the suite writes it again.
    """
    path = Path(path)
    if not path.exists():
        raise RecordError(f"{path}: no plan. Launch the suite with `run_suite.py run`, or name a results directory that holds one.")
    remedy = "Launch the suite again: it writes the plan anew and keeps the records."
    plan = migrate(_read_json(path, remedy=remedy))
    for field, types in (("schema_version", int), ("suite", str), ("title", str), ("rows", list), ("reference_cell_id", str | None)):
        if not isinstance(plan, dict) or not isinstance(plan.get(field), types):
            raise RecordError(f"{path}: the plan's {field!r} is missing or of a wrong type. {remedy}")
    if plan["schema_version"] != SCHEMA_VERSION:
        raise RecordError(f"{path}: schema version {plan['schema_version']}, this code reads {SCHEMA_VERSION}. {remedy}")
    for row in plan["rows"]:
        absent = {"cell_id", "label", "method", "kind", "run_ids", "tasks", "seeds"} - set(row if isinstance(row, dict) else ())
        if absent:
            raise RecordError(f"{path}: a row lacks {', '.join(sorted(absent))}. {remedy}")
        if not isinstance(row["label"], str) or not isinstance(row["run_ids"], list):
            raise RecordError(f"{path}: the label of a row is {row['label']!r:.80}, its run_ids {row['run_ids']!r:.80}. {remedy}")
        for run_id in row["run_ids"]:
            plain_name(run_id, f"{path}: run id")
    return plan


def to_frame(records: Iterable[Mapping]) -> pd.DataFrame:
    """Lay records out as one row a record, for analysis of your own.

    Returns:
        Columns run_id, cell_id, suite, status, reason, method, label, dial, dial_value, tasks (joined by "+"), seed, device, code_id,
        `<task>/<metric>` (percent or degrees), `params/...` (counts), `cost/...` (bytes, seconds, FLOPs) and `timing/...`; what a record
        does not hold is missing.
    """
    rows = []
    for record in records:
        row = {key: record[key] for key in ("run_id", "cell_id", "suite", "status", "reason")}
        row |= {"method": record["method"]["name"]} | {key: record["method"][key] for key in ("label", "dial", "dial_value")}
        row |= {"tasks": "+".join(record["tasks"]), "seed": record["seed"]}
        row |= {"device": record["env"].get("device"), "code_id": record["code_id"]}
        row |= record["metrics"] or {}
        row |= {key: record[key] for key in ("params", "cost", "timing") if record[key]}
        rows.append(row)
    return pd.json_normalize(rows, sep="/")


def _read_json(path: Path, *, remedy: str) -> dict:
    """Read a JSON file, refusing NaN and Infinity, which JSON does not know."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except IsADirectoryError as error:
        raise RecordError(f"{path}: a directory, where a file belongs. {remedy}") from error
    except ValueError as error:  # also json.JSONDecodeError and UnicodeDecodeError
        raise RecordError(f"{path}: cut short or garbled ({error}). {remedy}") from error
