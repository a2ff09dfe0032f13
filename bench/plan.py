"""What a suite asks for and what is still to do: the plan on disk, the missing trials, and what profiles tell of their time."""

import contextlib
import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.busy import busy_times
from bench.config import TrialConfig, steps_per_epoch
from bench.migration import migration_notes
from bench.plain import digest
from bench.profile import Session, profile_id, sessions_of
from bench.record import SCHEMA_VERSION, RecordError, examine, read_record, read_trusted, write_atomically
from bench.suites import Row, Suite
from bench.trial import method_block


def write_plan(suite: Suite, suite_dir: Path, command: str) -> Path:
    """Write plan.json, from which `status` and `report` know the rows; atomically."""
    by_label = {row.label: row for row in suite.rows}
    plan = {
        "schema_version": SCHEMA_VERSION,
        "suite": suite.name,
        "title": suite.title,
        "description": suite.description,
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(),
        "command": command,
        "reference_cell_id": by_label[suite.reference].cell_id,
        "rows": [plan_row(row) for row in suite.rows],
        "notes": list(suite.notes),
        "tuned": suite.tuned,
    }
    path = suite_dir / "plan.json"
    write_atomically(path, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
    return path


def plan_row(row: Row) -> dict[str, Any]:
    """Return a row as plan.json holds it."""
    first = row.trials[0]
    return {
        "cell_id": row.cell_id,
        "label": row.label,
        "method": method_block(first.method_name, first.method),
        **sweep_of(first),
        "kind": row.kind,
        "run_ids": [trial.run_id for trial in row.trials],
        "profiles": [session.run_id for session in sessions_of(row.trials)],
        "tasks": list(dict.fromkeys(task for trial in row.trials for task in trial.tasks)),
        "seeds": sorted({trial.seed for trial in row.trials}),
    }


def sweep_of(trial: TrialConfig) -> dict[str, Any]:
    """Return what the rows of one sweep share: `settings`, the method's fields but the dial, and a hash of all but dial, seed and tasks."""
    plain = trial.to_dict()
    settings = {key: value for key, value in plain["method"].items() if key not in ("name", trial.method.dial)}
    shared = {key: value for key, value in plain.items() if key not in ("seed", "tasks")} | {"method": settings}
    return {"settings": settings, "sweep_id": digest(shared, 12)}


class Reader:
    """Reads the records that a command counts on, and tells what is wrong with them: damage at once, older schemas in the end, counted.

    Within `with Reader(say, move=True) as reader:`; what is not whole reads as if it were not there.

    Args:
        say: Told each line.
        move: Whether what is damaged is set aside, as a launch does, which makes it anew; else it stays.
    """

    def __init__(self, say: Callable[[str], None], *, move: bool) -> None:
        self.say, self.move = say, move
        self.older: dict[Path, dict[str, Any]] = {}

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for note in migration_notes(self.older.values()):
            self.say(note)

    def read(self, path: Path, trial: TrialConfig | None = None) -> dict[str, Any] | None:
        """Return a record that is whole, and is this trial's where one is given; None where there is none.

        Raises:
            bench.record.NewerSchemaError: Where damage is set aside: what newer code wrote is not ours to move.
        """
        if not path.exists():
            return None
        expected = None if trial is None else expectation(trial)
        if self.move:
            record, problem = read_trusted(path, expected)
        else:
            record, error = examine(path, expected)
            record, problem = (record, None) if error is None else (None, f"not counted: {error}")
        if problem is not None:
            self.say(problem)
        elif "migrated_from" in record:
            self.older[path] = {key: record[key] for key in ("run_id", "migrated_from")}
        return record


def missing(
    trials: list[TrialConfig], suite_dir: Path, reader: Reader, *, rerun: frozenset[str] = frozenset(), code_id: str | None = None
) -> list[TrialConfig]:
    """Return the trials that have no record, and those whose record is to be made again.

    Args:
        trials: What the suite asks for.
        suite_dir: Directory of the suite's results.
        reader: Reads the records.
        rerun: Any of "failed" (records with another status than ok) and "stale" (records made by other code than `code_id`),
            and "busy", which names profiles alone, see `missing_profiles`.
        code_id: The present code.
    """
    return [trial for trial in trials if again(reader.read(suite_dir / "records" / f"{trial.run_id}.json", trial), rerun, code_id)]


def missing_profiles(
    trials: list[TrialConfig], suite_dir: Path, reader: Reader, *, rerun: frozenset[str], code_id: str | None
) -> list[Session]:
    """Return the sessions of profiles that these trials lack, in their order; arguments as of `missing`.

    Where one session was measured on a busy device, or sessions lie as far apart, "busy" names all of the row.
    """
    found: dict[str, list[dict[str, Any] | None]] = {}
    for session in sessions_of(trials):
        found.setdefault(profile_id(session.trial), []).append(reader.read(profile_file(suite_dir, session)))
    costs = {name: [record["cost"] for record in records if record and record["status"] == "ok"] for name, records in found.items()}
    busy = {name for name, own in costs.items() if "busy" in rerun and busy_times(own)}
    return [
        session
        for session in sessions_of(trials)
        if profile_id(session.trial) in busy or again(found[profile_id(session.trial)][session.number - 1], rerun, code_id)
    ]


def damaged_profiles(trials: list[TrialConfig], suite_dir: Path, reader: Reader) -> list[Session]:
    """Return the sessions of these trials' profiles whose record is damaged, which the reader moves away, whoever is to use it."""
    return [session for session in sessions_of(trials) if (path := profile_file(suite_dir, session)).exists() and reader.read(path) is None]


def profile_file(suite_dir: Path, session: Session) -> Path:
    """Return where the record of a session lies."""
    return suite_dir / "profiles" / f"{session.run_id}.json"


def expectation(trial: TrialConfig) -> dict[str, Any]:
    """Return what a trial's record holds of the trial."""
    return {"cell_id": trial.cell_id, "seed": trial.seed, "tasks": list(trial.tasks), "config": trial.to_dict()}


def again(record: Mapping[str, Any] | None, rerun: frozenset[str], code_id: str | None) -> bool:
    """Whether a record is missing, or is to be made again; arguments as of `missing`."""
    if record is None:
        return True
    return ("failed" in rerun and record["status"] != "ok") or ("stale" in rerun and record["code_id"] != code_id)


def profiled_seconds(trials: list[TrialConfig], suite_dir: Path) -> dict[str, float]:
    """Estimate from the profiles the seconds that trials train: per run id, those without one that can be read left out."""
    profiles: dict[str, dict[str, Any]] = {}
    for session in reversed(sessions_of(trials)):  # the first one that is good stands
        with contextlib.suppress(RecordError, FileNotFoundError):  # an order and an estimate do without; `status` names a damaged one
            record = read_record(profile_file(suite_dir, session))
            profiles |= {profile_id(session.trial): record} if record["status"] == "ok" else {}
    seconds = {}
    for trial in trials:
        profile = profiles.get(profile_id(trial))
        if profile is not None and profile["cost"]["step_seconds"]["median"]:
            steps = steps_per_epoch(profile["data"]["n_train"], trial.recipe.batch_size)
            seconds[trial.run_id] = trial.recipe.epochs * steps * profile["cost"]["step_seconds"]["median"]
    return seconds
