"""Whether `tuning.json` can be relied on: its structure, that what was chosen was tried, and the records and the code behind it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.record import SCHEMA_VERSION, examine

FIELDS: dict[str, type | tuple[type, ...]] = {"budget": int, "seeds": list, "held_out": dict, "epochs": int, "rows": list}
ROW: dict[str, type | tuple[type, ...]] = {"label": str, "cell_id": str, "method": dict, "space": dict, "complete": bool, "edge": list}
ROW |= {"epochs": int, "gpu_hours": (int, float), "cpu_hours": (int, float), "settings": list}
SETTING: dict[str, type | tuple[type, ...]] = {"index": int, "values": dict, "status": str, "run_ids": list}
CHOSEN: dict[str, type | tuple[type, ...]] = {"index": int, "values": dict, "score": (int, float)}


def flaw_of(outcome: object) -> str | None:
    """Return why the content of `tuning.json` is no outcome of a tune, None where it is one."""
    if not isinstance(outcome, dict):
        return f"it holds a {type(outcome).__name__}, no outcome of a tune"
    if (version := outcome.get("schema_version")) != SCHEMA_VERSION:
        return f"its schema_version is {version!r}, this code reads {SCHEMA_VERSION}"
    if (flaw := lacking(outcome, FIELDS)) or (flaw := lacking(outcome["held_out"], {"fraction": (int, float)}, "held_out")):
        return flaw
    if not isinstance(outcome.get("sequence", ...), dict | None) or not isinstance(outcome.get("asha", ...), dict | None):
        return "its 'sequence' or 'asha' is missing or of a wrong type"
    if (sequence := outcome["sequence"]) is not None and (flaw := lacking(sequence, {"seed": int}, "sequence")):
        return flaw
    if (asha := outcome["asha"]) is not None and (flaw := lacking(asha, {"rungs": list}, "asha")):
        return flaw
    return next(filter(None, map(flaw_of_row, outcome["rows"])), None)


def flaw_of_row(row: object) -> str | None:
    """Return what is wrong with one row of an outcome, None where it is sound."""
    label = row.get("label") if isinstance(row, dict) else row
    if flaw := lacking(row, ROW, f"row {label!r}"):
        return flaw
    if flaw := lacking(row["method"], {"title": str}, f"the method of row {label!r}"):
        return flaw
    for name, interval in row["space"].items():
        if flaw := lacking(interval, {"low": (int, float), "high": (int, float), "log": bool}, f"{name!r} in the space of row {label!r}"):
            return flaw
    for edge in row["edge"]:
        if flaw := lacking(edge, {"dial": str, "side": str, "value": (int, float)}, f"an edge of row {label!r}"):
            return flaw
    for setting in row["settings"]:
        flaw = lacking(setting, SETTING, f"a setting of row {label!r}") or flaw_of_values(setting["values"], row)
        if flaw:
            return flaw
    return flaw_of_choice(row)


def flaw_of_choice(row: Mapping[str, Any]) -> str | None:
    """Return why what a row chose is not what it tried, None where it is: one of its settings that trained to the end, with its score."""
    label, chosen = row["label"], row.get("chosen")
    if chosen is None:
        return f"row {label!r} is complete, but has chosen nothing" if row["complete"] else None
    if flaw := lacking(chosen, CHOSEN, f"the choice of row {label!r}"):
        return flaw
    tried = [setting for setting in row["settings"] if setting["status"] == "ok" and setting["index"] == chosen["index"]]
    if not any((setting["values"], setting.get("score")) == (chosen["values"], chosen["score"]) for setting in tried):
        return f"row {label!r} has chosen {chosen['values']} with score {chosen['score']}, which is none of the settings that it tried"
    return None


def flaw_of_values(values: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """Return why the values of a setting do not fit the space of its row, None where they do."""
    if set(values) != set(row["space"]):
        return f"a setting of row {row['label']!r} has values of {sorted(values)}, its space is {sorted(row['space'])}"
    wrong = [name for name, value in values.items() if isinstance(value, bool) or not isinstance(value, int | float)]
    return f"{wrong[0]!r} of a setting of row {row['label']!r} is no number" if wrong else None


def lacking(part: object, fields: Mapping[str, type | tuple[type, ...]], where: str = "") -> str | None:
    """Return which field of a part of an outcome is missing or of a wrong type, None where all are sound."""
    of = f" of {where}" if where else ""
    if not isinstance(part, dict):
        return f"{where or 'it'} is no object"
    for name, kind in fields.items():
        value = part.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return f"{name!r}{of} is missing or of a wrong type"
    return None


def doubts(outcome: Mapping[str, Any], tuning_dir: Path, code_id: str) -> list[str]:
    """Return what to say of a sound outcome before it is used: a damaged record behind it, and a tune that other code made.

    Args:
        outcome: As `flaw_of` finds nothing wrong with.
        tuning_dir: Where the tune's records are; those that are not there, as in a copied result, are not missed.
        code_id: Of the present code.
    """
    said = []
    for run_id in (run_id for row in outcome["rows"] for setting in row["settings"] for run_id in setting["run_ids"]):
        path = tuning_dir / "records" / f"{run_id}.json"
        if path.exists() and (error := examine(path)[1]) is not None:
            said.append(f"damaged behind tuning.json: {error} Run the same `tune` command again: it makes that record anew.")
    others = sorted({made_by for row in outcome["rows"] for made_by in row.get("code_ids", ())} - {code_id})
    if others:
        said.append(f"the tune was made by other code ({', '.join(others)}; the present one is {code_id}): `tune --rerun stale` repeats it")
    return said
