"""What is on disk of a suite: row by row, the time that its slots spent, and the end of a trial's log. No torch."""

import contextlib
import datetime
import json
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.errors import SuiteError
from bench.migration import migration_notes
from bench.record import RecordError, read_plan, read_record, read_whole
from bench.storage import plain_name

DAMAGED = "damaged"
TUNING = "tuning"
"""The folder of a suite's results in which its tune lies."""


def suite_status(suite_dir: Path) -> list[dict[str, Any]]:
    """Count, for each row of the last plan, the trials with a record, those that failed, have begun, and are missing.

    A record that cannot be read, or whose arrays cannot, counts as "damaged": the next launch sets it aside and runs its trial again.

    Raises:
        FileNotFoundError: The suite has not been launched here.
        bench.record.RecordError: The plan is damaged.
    """
    plan_file = suite_dir / "plan.json"
    if not plan_file.exists():
        raise FileNotFoundError(f"no {plan_file}: this suite has not been run here; start it with `run_suite.py run {suite_dir.name}`")
    return [row_status(row["label"], row["run_ids"], suite_dir) for row in read_plan(plan_file)["rows"]]


def tuning_status(suite_dir: Path) -> list[dict[str, Any]]:
    """Count the trials of a suite's tune as `suite_status` counts a suite's; nothing where it has not been tuned.

    Planned are those of the last tune with given settings, and all that a searcher has asked for so far.
    """
    directory, planned = suite_dir / TUNING, {}
    if (directory / "plan.json").exists():
        planned = {row["label"]: list(row["run_ids"]) for row in read_plan(directory / "plan.json")["rows"]}
    for path in sorted((directory / "asked").glob("*/*.json")):
        asked = json.loads(path.read_text(encoding="utf-8"))
        planned.setdefault(asked["row"], []).extend(asked.get("run_ids", []))  # those of an older launch do not say
    return [row_status(label, dict.fromkeys(run_ids), directory) for label, run_ids in planned.items()]


def row_status(label: str, run_ids: Iterable[str], directory: Path) -> dict[str, Any]:
    """Count the trials of one row, whose records lie under a directory."""
    records = {run_id: directory / "records" / f"{run_id}.json" for run_id in run_ids}
    statuses = [readable(path)["status"] for path in records.values() if path.exists()]
    begun = [run_id for run_id in records if (directory / "checkpoints" / f"{run_id}.attempts").exists()]
    failures = sorted({status for status in statuses if status != "ok"})
    return {
        "row": label,
        "trials": len(records),
        "ok": statuses.count("ok"),
        "not_ok": ", ".join(f"{statuses.count(status)} {status}" for status in failures),
        "begun": len(begun),
        "missing": len(records) - len(statuses),
    }


def readable(path: Path) -> Mapping[str, Any]:
    """Return a record, or one of status "damaged" that says why, and holds nothing else."""
    try:
        return read_whole(path)
    except RecordError as error:
        return {"status": DAMAGED, "reason": str(error)}


def remarks(suite_dir: Path) -> list[str]:
    """Return a line about every record and profile that is damaged, with the reason, and about those of older schemas."""
    found = [readable(path) for folder in ("records", "profiles") for path in sorted((suite_dir / folder).glob("*.json"))]
    damaged = [f"damaged: {record['reason']} The next `run` or `tune` sets it aside." for record in found if record["status"] == DAMAGED]
    return damaged + migration_notes(record for record in found if record["status"] != DAMAGED)


def overhead(suite_dir: Path) -> dict[str, Any]:
    """Return what the slots of a suite's launches did with their time, profiles included, damaged records not; see `slot_shares`."""
    found = []
    for path in (path for folder in ("records", "profiles") for path in sorted((suite_dir / folder).glob("*.json"))):
        with contextlib.suppress(RecordError):
            found.append(read_record(path))  # its times hold, whatever its arrays are
    return slot_shares(found)


def slot_shares(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what slots did with their time.

    A slot runs one trial after the other; its time goes from the start of its first to the end of its last, so that what passes between two
    trials counts. So do the earlier attempts of a trial that died, of which training is what its last attempt went on from. A trial that no
    slot is known of (older records) is a slot for itself.

    Returns:
        `slots`, `slot_seconds`, and the shares of it that were training, evaluation, and neither (`overhead_share`); `not_training_share`
        is all but training. The shares are None where no time is known.
    """
    spans: dict[tuple, list[tuple[float, float]]] = {}
    training = evaluation = 0.0
    for record in records:
        timing, launch = record["timing"], record.get("launch") or {}
        if not timing.get("total_seconds"):
            continue
        last = {"start": timing["trial_start"], "seconds": timing.get("attempt_seconds", timing["total_seconds"])}
        last |= {"launch": launch.get("id"), "slot": launch.get("slot")}
        for number, attempt in enumerate([*timing.get("earlier_attempts", ()), last]):
            slot = (attempt["launch"], attempt["slot"]) if attempt["slot"] else (record["run_id"], number)
            start = datetime.datetime.fromisoformat(attempt["start"]).timestamp()
            spans.setdefault(slot, []).append((start, start + attempt["seconds"]))
        training += timing.get("train_seconds") or 0.0
        evaluation += timing.get("evaluate_seconds") or 0.0
    seconds = sum(max(end for _, end in span) - min(start for start, _ in span) for span in spans.values())
    shares = {"training_share": training, "evaluation_share": evaluation, "overhead_share": seconds - training - evaluation}
    shares["not_training_share"] = seconds - training
    return {"slots": len(spans), "slot_seconds": seconds} | {name: part / seconds if seconds else None for name, part in shares.items()}


def log_tail(suite_dir: Path, run_id: str, lines: int) -> str:
    """Return the last lines of the log of a trial, or of a trial of the suite's tune.

    Raises:
        SuiteError: There is no such log.
    """
    folders = [suite_dir / "logs", suite_dir / TUNING / "logs"]
    found = [path for folder in folders if (path := folder / f"{plain_name(run_id, 'run id')}.log").exists()]
    if not found:
        known = [file.stem for folder in folders for file in sorted(folder.glob("*.log"))]
        raise SuiteError(f"no log of {run_id!r} in {' or '.join(map(str, folders))}; there are {', '.join(known) or 'none'}")
    with found[0].open(encoding="utf-8", errors="replace") as file:
        return "".join(deque(file, maxlen=lines)).rstrip("\n")
