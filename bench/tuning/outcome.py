"""From the records of a tune to its outcome, `tuning.json`, and from an outcome to the suite that uses it."""

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.config import ConfigError
from bench.errors import SuiteError
from bench.plan import plan_row
from bench.record import SCHEMA_VERSION, write_atomically
from bench.suites import Row, Suite
from bench.tuning.plan import REDUCTION_FACTOR, Point, Protocol, TunedRow, records_of, rungs
from bench.tuning.point import STOPPED
from bench.tuning.soundness import flaw_of
from bench.tuning.space import LEARNING_RATE, unit_points, with_values

SPENT = ("ok", STOPPED, "diverged")
"""Statuses of a setting that was tried as the protocol asks; another one is a defect, and the row's budget is not spent."""

OUTCOME = "tuning.json"
NAMES = {LEARNING_RATE: "learning rate"}


class TuningError(SuiteError):
    """A tune cannot be used; the message says what is missing and how to get it."""


def outcome_of(suite: Suite, rows: Sequence[TunedRow], points: Sequence[Point], protocol: Protocol, tuning_dir: Path) -> dict[str, Any]:
    """Return what `tuning.json` holds: the protocol, and for every row its space, settings, scores, choice and cost.

    Args:
        suite: The suite.
        rows: Its rows as tuned, those that the tune was asked for.
        points: All their settings.
        protocol: How they were tuned.
        tuning_dir: Where the records are.
    """
    epochs = rows[0].bases[0].recipe.epochs
    entries = [row_outcome(tuned, [point for point in points if point.row == tuned.row.label], protocol, tuning_dir) for tuned in rows]
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": suite.name,
        "title": suite.title,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "budget": protocol.budget,
        "seeds": list(protocol.seeds),
        "held_out": dataclasses.asdict(protocol.held_out),
        "searcher": protocol.searcher,
        "sequence": sequence(protocol),
        "asha": {"rungs": rungs(epochs), "reduction_factor": REDUCTION_FACTOR} if protocol.asha else None,
        "epochs": epochs,
        "complete": len(rows) == len(suite.rows) and all(entry["complete"] for entry in entries),
        "rows": entries,
    }


def sequence(protocol: Protocol) -> dict[str, Any] | None:
    """Return the quasi-random points that all rows share; None where each row's searcher chooses its own."""
    if protocol.searcher != "halton":
        return None
    points = [[round(float(x), 6) for x in unit] for unit in unit_points(protocol.budget, protocol.sequence_seed)]
    return {"kind": "scrambled Halton", "seed": protocol.sequence_seed, "points": points}


def row_outcome(tuned: TunedRow, points: Sequence[Point], protocol: Protocol, tuning_dir: Path) -> dict[str, Any]:
    """Return the outcome of one row."""
    records = [records_of(point, tuning_dir) for point in points]
    settings = [setting_outcome(point, of_point) for point, of_point in zip(points, records, strict=True)]
    finished = [setting for setting in settings if setting["status"] == "ok"]
    chosen = max(finished, key=lambda setting: (setting["score"], -setting["index"]), default=None)
    planned = plan_row(tuned.row)
    spent = len(settings) == protocol.budget and all(setting["status"] in SPENT for setting in settings)
    return {
        **{key: planned[key] for key in ("label", "cell_id", "kind", "method")},
        "space": {name: dataclasses.asdict(interval) for name, interval in tuned.space.items()},
        "complete": spent and chosen is not None,
        "chosen": None if chosen is None else {"index": chosen["index"], "values": chosen["values"], "score": chosen["score"]},
        "edge": [] if chosen is None else edges(settings, chosen["values"]),
        "epochs": sum(setting["epochs"] for setting in settings),
        "gpu_hours": sum(setting["gpu_hours"] for setting in settings),
        "cpu_hours": sum(setting["cpu_hours"] for setting in settings),
        "code_ids": sorted({record["code_id"] for of_point in records for record in of_point if record is not None}),
        "settings": settings,
    }


def setting_outcome(point: Point, records: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """Return one setting: values, status, mean held-out score at its last common epoch, epochs and hours spent."""
    present = [record for record in records if record is not None]
    status = setting_status([None if record is None else record["status"] for record in records])
    scores = {record["run_id"]: held_out_scores(record) for record in present}
    common = min((max(own, default=0) for own in scores.values()), default=0) if status in ("ok", STOPPED) else 0
    at_end = [own[common] for own in scores.values() if common in own]
    return {
        "index": point.index,
        "values": point.values,
        "status": status,
        "score": sum(at_end) / len(at_end) if at_end and len(at_end) == len(records) else None,
        "scored_at_epoch": common or None,
        "epochs": sum(len(record["history"]) for record in present),
        "gpu_hours": sum(hours(record) for record in present if is_on_gpu(record)),
        "cpu_hours": sum(hours(record) for record in present if not is_on_gpu(record)),
        "run_ids": [trial.run_id for trial in point.trials],
    }


def setting_status(statuses: Sequence[str | None]) -> str:
    """Return the status of a setting from those of its trials: the first of missing, a defect, diverged, stopped, ok that there is."""
    if None in statuses:
        return "missing"
    defects = sorted(status for status in statuses if status not in SPENT)
    return defects[0] if defects else next(status for status in ("diverged", STOPPED, "ok") if status in statuses)


def held_out_scores(record: Mapping[str, Any]) -> dict[int, float]:
    """Return the held-out score of a trial by epoch."""
    return {line["epoch"]: line["held_out"]["score"] for line in record["history"] if "held_out" in line}


def is_on_gpu(record: Mapping[str, Any]) -> bool:
    """Whether a trial had a GPU, or a share of one."""
    return bool(record["launch"]["gpus_per_trial"]) if record["launch"]["executor"] == "ray" else record["env"]["device"] != "cpu"


def hours(record: Mapping[str, Any]) -> float:
    """Return the GPU-hours (the trial's share) or CPU-core-hours (its threads) of a trial; epochs of a killed attempt count."""
    trained = record["timing"].get("train_seconds", 0.0) + record["timing"].get("held_out_seconds", 0.0)
    seconds = max(record["timing"]["total_seconds"], trained)
    share = record["launch"]["gpus_per_trial"] or 1.0 if is_on_gpu(record) else record["config"]["recipe"]["threads"]
    return seconds * share / 3600


def edges(settings: Sequence[Mapping[str, Any]], values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the dials whose chosen value is the lowest or the highest that was tried: what lies beyond is not known to be worse."""
    found = []
    for name, value in values.items():
        tried = [setting["values"][name] for setting in settings]
        side = "lowest" if value == min(tried) else "highest" if value == max(tried) else None
        if side is not None:
            found.append({"dial": name, "side": side, "value": value})
    return found


def write_outcome(outcome: Mapping[str, Any], suite_dir: Path, command: str) -> Path:
    """Write `tuning.json`."""
    path = suite_dir / OUTCOME
    write_atomically(path, json.dumps({**outcome, "command": command}, indent=1, ensure_ascii=False) + "\n")
    return path


def read_outcome(suite_dir: Path) -> dict[str, Any]:
    """Read `tuning.json`.

    Raises:
        TuningError: There is none, or it is no outcome of a tune that can be relied on.
    """
    path = suite_dir / OUTCOME
    if not path.exists():
        raise TuningError(f"no {path}: tune the suite first, `run_suite.py tune {suite_dir.name} --budget N`")
    again = "run the same `tune` command again, it only writes the file anew"
    try:
        outcome = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TuningError(f"{path} is cut short or garbled ({error}): {again}") from None
    if (flaw := flaw_of(outcome)) is not None:
        raise TuningError(f"{path} cannot be relied on: {flaw}; {again}")
    return outcome


def tuned_suite(suite: Suite, outcome: Mapping[str, Any]) -> Suite:
    """Return the suite with every row at its chosen setting, and notes that say so.

    Raises:
        TuningError: A row was not tuned, tuned as something else, or with less than the others: equal effort is the point.
    """
    entries = {entry["label"]: entry for entry in outcome["rows"]}
    again = f"run `run_suite.py tune {suite.name} --budget {outcome['budget']}` with the same options"
    problems = [problem for row in suite.rows if (problem := problem_of(row, entries.get(row.label), outcome["budget"]))]
    if problems:
        raise TuningError(f"--tuned needs equal budgets for all rows, but {'; '.join(problems)}; {again}")
    rows = tuple(
        dataclasses.replace(row, trials=tuple(with_values(trial, entries[row.label]["chosen"]["values"]) for trial in row.trials))
        for row in suite.rows
    )
    try:
        return dataclasses.replace(suite, rows=rows, tuned=True, notes=(*suite.notes, *tuning_notes(suite, outcome)))
    except ConfigError as error:
        raise TuningError(f"tuning made two rows the same: {error}; a row's fixed dial must not be tunable") from error


def problem_of(row: Row, entry: Mapping[str, Any] | None, budget: int) -> str | None:
    """Return why the outcome of a row cannot be used, None where it can."""
    if entry is None:
        return f"{row.label!r} was not tuned"
    if entry["cell_id"] != row.cell_id:
        return f"{row.label!r} was tuned with another configuration or data set"
    spent = sum(setting["status"] in SPENT for setting in entry["settings"])
    if spent != budget or len(entry["settings"]) != budget:
        rest = sorted({setting["status"] for setting in entry["settings"]} - set(SPENT))
        return f"{row.label!r} has {spent} of {budget} settings ({', '.join(rest) or 'missing'})"
    return None if entry["complete"] else f"no setting of {row.label!r} trained to the end"


def tuning_notes(suite: Suite, outcome: Mapping[str, Any]) -> list[str]:
    """Return what must be said under a table of tuned rows."""
    rows = [entry for entry in outcome["rows"] if entry["label"] in {row.label for row in suite.rows}]
    how = (
        f"the same {outcome['budget']} points of a scrambled Halton sequence (seed {outcome['sequence']['seed']}) for every row"
        if outcome["sequence"]
        else f"{outcome['budget']} settings a row, chosen by Optuna"
    )
    early = outcome["asha"]
    stopping = f"ASHA within each row at epochs {', '.join(map(str, early['rungs'][:-1]))}" if early else "no early stopping"
    share, seeds = outcome["held_out"]["fraction"], ", ".join(map(str, outcome["seeds"]))
    notes = [
        f"Tuned per row with equal budgets: {how}; {stopping}; each scored on {share:.0%} of the training split, held out, never on the "
        f"validation split (seed {seeds}, {outcome['epochs']} epochs). The rows shown were then trained anew.",
        f"Space: {'; '.join(spaces(rows))}.",
        f"Tuning cost a row: {spread([entry['epochs'] for entry in rows], 'epochs')}"
        + "".join(
            f", {spread([entry[key] for entry in rows], unit)}"
            for key, unit in (("gpu_hours", "GPU-hours"), ("cpu_hours", "CPU-core-hours"))
            if any(entry[key] for entry in rows)
        )
        + ", as measured.",
    ]
    at_edge = [f"{entry['label']} ({edge_text(entry)})" for entry in rows if entry["edge"]]
    if at_edge:
        notes.append(f"At the edge of what was tried, so that a wider or denser search might find better: {'; '.join(at_edge)}.")
    return notes


def spaces(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each distinct range in words, with the methods that it is for, where that is not all."""
    owners: dict[str, list[str]] = {}
    for entry in rows:
        for name, interval in entry["space"].items():
            scale = ", log" if interval["log"] else ""
            text = f"{NAMES.get(name, name)} {interval['low']:g} to {interval['high']:g}{scale}"
            owners.setdefault(text, []).append(entry["method"]["title"])
    everyone = len(rows)
    return [text if len(titles) == everyone else f"{text} ({', '.join(dict.fromkeys(titles))})" for text, titles in owners.items()]


def spread(values: Sequence[float], unit: str) -> str:
    """Return one value, or the range of several, with its unit."""
    low, high = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in (min(values), max(values)))
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def edge_text(entry: Mapping[str, Any]) -> str:
    """Return which dials of a row were chosen at the edge."""
    return ", ".join(f"{NAMES.get(edge['dial'], edge['dial'])} {edge['value']:g}, the {edge['side']}" for edge in entry["edge"])
