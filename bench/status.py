"""What is on disk of a suite: row by row, the time that its slots spent, and the end of a trial's log. No torch."""

import datetime
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import SuiteError
from bench.migration import migration_notes
from bench.record import NewerSchemaError, RecordError, examine, foreign_to, read_plan
from bench.storage import plain_name
from bench.tuning.asked import AskedError, asked_files, read_asked

DAMAGED, NEWER = "damaged", "of a newer schema"
TUNING = "tuning"
"""The folder of a suite's results in which its tune lies."""

RECORDS, PROFILES = "records", "profiles"
KEPT = ("run_id", "cell_id", "seed", "status", "timing", "launch", "migrated_from")
"""What is kept of a record that was read."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A record, as far as it can be read (`KEPT` of it), and what is wrong with it or its arrays."""

    record: Mapping[str, Any] | None
    error: RecordError | None

    @property
    def status(self) -> str:
        """The record's status, or what it is instead."""
        if self.error is None:
            return self.record["status"]
        return NEWER if isinstance(self.error, NewerSchemaError) else DAMAGED


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """What lies in the directory of a suite's results or of its tune; each file was read once.

    Attributes:
        directory: Where.
        found: By folder, `RECORDS` or `PROFILES`, and run id.
        asked: What a searcher asked for, in order.
        torn: What is wrong with the files of other settings that it asked for.
    """

    directory: Path
    found: dict[str, dict[str, Found]]
    asked: list[dict[str, Any]] = field(default_factory=list)
    torn: list[AskedError] = field(default_factory=list)

    def records(self) -> Iterator[Mapping[str, Any]]:
        """Go through the records and profiles that can be read; the times of one hold, whatever its arrays are."""
        return (found.record for folder in self.found.values() for found in folder.values() if found.record is not None)


def look_at(directory: Path) -> Shelf:
    """Read what lies in a directory; damage is kept, and ends nothing."""
    found = {folder: {path.stem: found_at(path) for path in sorted((directory / folder).glob("*.json"))} for folder in (RECORDS, PROFILES)}
    found[RECORDS] |= foreign(directory, found[RECORDS])
    shelf = Shelf(directory=directory, found=found)
    for path in asked_files(directory):
        try:
            shelf.asked.append(read_asked(path))
        except AskedError as error:
            shelf.torn.append(error)
    return shelf


def found_at(path: Path) -> Found:
    """Read one record."""
    record, error = examine(path)
    return Found(record=None if record is None else {key: record.get(key) for key in KEPT}, error=error)


def foreign(directory: Path, found: Mapping[str, Found]) -> dict[str, Found]:
    """Return the records that stand under the name of another row's trial, as the damage that they are; a tune's rows do not tell."""
    if directory.name == TUNING or not (directory / "plan.json").exists():
        return {}
    try:
        plan = read_plan(directory / "plan.json")
    except RecordError:  # `suite_status` tells
        return {}
    whole = [(run_id, row, found[run_id]) for row in plan["rows"] for run_id in row["run_ids"] if run_id in found]
    said = {run_id: foreign_to(own.record, row) for run_id, row, own in whole if own.error is None}
    return {
        run_id: Found(record=found[run_id].record, error=RecordError(f"{directory / RECORDS / run_id}.json: {why}."))
        for run_id, why in said.items()
        if why is not None
    }


def suite_status(shelf: Shelf) -> list[dict[str, Any]]:
    """Count, for each row of the last plan, the trials with a record, those that failed, have begun, and are missing.

    A record that cannot be read, or whose arrays cannot, counts as "damaged".

    Raises:
        FileNotFoundError: The suite has not been launched here.
        bench.record.RecordError: The plan is damaged.
    """
    plan_file = shelf.directory / "plan.json"
    if not plan_file.exists():
        name = shelf.directory.name
        raise FileNotFoundError(f"no {plan_file}: this suite has not been run here; start it with `run_suite.py run {name}`")
    return [row_status(row["label"], row["run_ids"], shelf) for row in read_plan(plan_file)["rows"]]


def tuning_status(shelf: Shelf) -> list[dict[str, Any]]:
    """Count the trials of a suite's tune as `suite_status` counts a suite's; nothing where it has not been tuned.

    Planned are those of the last tune with given settings, and all that a searcher has asked for so far.
    """
    return [row_status(label, run_ids, shelf) for label, run_ids in tuned_run_ids(shelf).items()]


def tuned_run_ids(shelf: Shelf) -> dict[str, list[str]]:
    """Return the run ids of a tune's trials, row by row."""
    planned: dict[str, list[str]] = {}
    if (plan_file := shelf.directory / "plan.json").exists():
        planned = {row["label"]: list(row["run_ids"]) for row in read_plan(plan_file)["rows"]}
    for asked in shelf.asked:
        planned.setdefault(asked["row"], []).extend(asked.get("run_ids", []))  # those of an older launch do not say
    return {label: list(dict.fromkeys(run_ids)) for label, run_ids in planned.items()}


def row_status(label: str, run_ids: list[str], shelf: Shelf) -> dict[str, Any]:
    """Count the trials of one row."""
    statuses = [shelf.found[RECORDS][run_id].status for run_id in run_ids if run_id in shelf.found[RECORDS]]
    begun = [run_id for run_id in run_ids if (shelf.directory / "checkpoints" / f"{run_id}.attempts").exists()]
    failures = sorted({status for status in statuses if status != "ok"})
    return {
        "row": label,
        "trials": len(run_ids),
        "ok": statuses.count("ok"),
        "not_ok": ", ".join(f"{statuses.count(status)} {status}" for status in failures),
        "begun": len(begun),
        "missing": len(run_ids) - len(statuses),
    }


def remarks(shelf: Shelf) -> list[str]:
    """Return a line about everything that cannot be read, with the reason and with what comes of it; about profiles of which sessions are
    missing, and about records of older schemas.
    """
    planned = planned_run_ids(shelf)
    lines = [
        f"{found.status}: {found.error} {prospect(folder, run_id in planned, found.status)}"
        for folder, of_folder in shelf.found.items()
        for run_id, found in of_folder.items()
        if found.error is not None
    ]
    lines += [f"{DAMAGED}: {error} The next `tune` of its row sets it aside and asks for another setting." for error in shelf.torn]
    return lines + missing_sessions(shelf) + migration_notes(record for record in shelf.records() if record["migrated_from"] is not None)


def missing_sessions(shelf: Shelf) -> list[str]:
    """Say how many sessions of profiles the last plan lacks, where some were measured, and how many failed; older plans do not say."""
    try:
        plan = read_plan(shelf.directory / "plan.json")
    except (FileNotFoundError, RecordError):
        return []
    planned = {run_id for row in plan["rows"] for run_id in row.get("profiles", ())}
    whole = {run_id: found.status for run_id, found in shelf.found[PROFILES].items() if run_id in planned and found.error is None}
    failed = [run_id for run_id, status in whole.items() if status != "ok"]
    results = re.search(r" --results[ =]\S+", str(plan.get("command") or ""))
    again = f"run_suite.py profile {shelf.directory.name}{results[0] if results else ''}"
    lines = []
    if 0 < len(whole) < len(planned):
        lines.append(f"profiles: {len(planned) - len(whole)} of {len(planned)} sessions have no good record; `{again}` measures them")
    if failed:
        lines.append(f"profiles: {len(failed)} of {len(planned)} sessions failed; `{again} --rerun failed` measures them again")
    return lines


def planned_run_ids(shelf: Shelf) -> set[str]:
    """Return the run ids that the last launch in a directory asked for; none where its plan cannot be read, which `suite_status` tells."""
    try:
        return {run_id for run_ids in tuned_run_ids(shelf).values() for run_id in run_ids}
    except RecordError:
        return set()


def prospect(folder: str, planned: bool, status: str) -> str:
    """Say what the next launch does about a record or profile that is not whole."""
    if folder == RECORDS and not planned:
        return "No row of the last plan holds it: nothing is done to it."
    if status == NEWER:
        return "A launch that needs it refuses to start, and leaves it as it is."
    return (
        "The next launch that measures it sets it aside." if folder == PROFILES else "The next `run` or `tune` sets it aside and runs it."
    )


def overhead(shelf: Shelf) -> dict[str, Any]:
    """Return what the slots of a suite's launches did with their time, profiles included, damaged records not; see `slot_shares`."""
    return slot_shares(shelf.records())


def slot_shares(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what slots did with their time.

    A slot runs one trial after the other; its time goes from its own start, which its name holds (in older records: from the start of its
    first trial), to the end of its last trial, so that what passes before and between trials counts. So do the earlier attempts of a trial
    that died, of which training is what its last attempt went on from. A trial that no slot is known of (older records) is a slot for
    itself.

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
    begun = {slot: min(slot_start(slot[1]), *(start for start, _ in span)) for slot, span in spans.items()}
    seconds = sum(max(end for _, end in span) - begun[slot] for slot, span in spans.items())
    shares = {"training_share": training, "evaluation_share": evaluation, "overhead_share": seconds - training - evaluation}
    shares["not_training_share"] = seconds - training
    return {"slots": len(spans), "slot_seconds": seconds} | {name: part / seconds if seconds else None for name, part in shares.items()}


def slot_start(slot: object) -> float:
    """Return when a slot began, as its name says (seconds since 1970); infinity where it does not."""
    try:
        return datetime.datetime.fromisoformat(str(slot).rpartition("@")[2]).timestamp()
    except ValueError:
        return math.inf


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
