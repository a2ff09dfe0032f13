"""What a suite asks for and what is still to do: the plan on disk, the missing trials, and what profiles tell of their time."""

import contextlib
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.busy import busy_times
from bench.config import TrialConfig, steps_per_epoch
from bench.migration import migration_notes
from bench.plain import digest
from bench.profile import profile_id
from bench.record import SCHEMA_VERSION, RecordError, read_record, read_trusted, write_atomically
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
        "tasks": list(dict.fromkeys(task for trial in row.trials for task in trial.tasks)),
        "seeds": sorted({trial.seed for trial in row.trials}),
    }


def sweep_of(trial: TrialConfig) -> dict[str, Any]:
    """Return what the rows of one sweep share: `settings`, the method's fields but the dial, and a hash of all but dial, seed and tasks."""
    plain = trial.to_dict()
    settings = {key: value for key, value in plain["method"].items() if key not in ("name", trial.method.dial)}
    shared = {key: value for key, value in plain.items() if key not in ("seed", "tasks")} | {"method": settings}
    return {"settings": settings, "sweep_id": digest(shared, 12)}


def missing(
    trials: list[TrialConfig],
    suite_dir: Path,
    *,
    rerun: frozenset[str] = frozenset(),
    code_id: str | None = None,
    set_aside: Callable[[str], None] | None = None,
) -> list[TrialConfig]:
    """Return the trials that have no record, and those whose record is to be made again.

    Args:
        trials: What the suite asks for.
        suite_dir: Directory of the suite's results.
        rerun: Any of "failed" (records with another status than ok) and "stale" (records made by other code than `code_id`),
            and "busy" (profiles whose single measurements lie far apart, see `bench.busy`).
        code_id: The present code.
        set_aside: Given by a launch, which relies on the records: a damaged one is moved away, told by this, and counts as missing;
            one of an older schema is told as well, and counts.

    Raises:
        bench.record.RecordError: A record is damaged, and `set_aside` is not given; or it is of a newer schema.
    """
    return [trial for trial in trials if to_do(suite_dir / "records" / f"{trial.run_id}.json", rerun, code_id, set_aside)]


def missing_profiles(
    trials: list[TrialConfig], suite_dir: Path, *, rerun: frozenset[str], code_id: str, set_aside: Callable[[str], None]
) -> list[TrialConfig]:
    """Return one trial for every profile that these trials lack; arguments as of `missing`."""
    first = {profile_id(trial): trial for trial in sorted(trials, key=lambda trial: -trial.seed)}
    wanted = {run_id: first[run_id] for run_id in dict.fromkeys(map(profile_id, trials))}
    return [trial for run_id, trial in wanted.items() if to_do(suite_dir / "profiles" / f"{run_id}.json", rerun, code_id, set_aside)]


def damaged_profiles(trials: list[TrialConfig], suite_dir: Path, set_aside: Callable[[str], None]) -> list[TrialConfig]:
    """Return one trial for every damaged profile of these trials, which is moved away and told of, whoever is to use it."""
    found = []
    for run_id, trial in {profile_id(trial): trial for trial in sorted(trials, key=lambda trial: -trial.seed)}.items():
        path = suite_dir / "profiles" / f"{run_id}.json"
        problem = read_trusted(path)[1] if path.exists() else None
        if problem is not None:
            set_aside(problem)
            found.append(trial)
    return found


def to_do(path: Path, rerun: frozenset[str], code_id: str | None, set_aside: Callable[[str], None] | None) -> bool:
    """Whether a record is missing, or to be made again; arguments as of `missing`."""
    if not path.exists():
        return True
    if set_aside is not None:
        record, problem = read_trusted(path)
        if record is None:
            set_aside(str(problem))
            return True
        for note in migration_notes([record]):
            set_aside(note)
    elif not rerun:
        return False
    else:
        record = read_record(path)
    busy = "busy" in rerun and record.get("kind") == "profile" and bool(busy_times(record["cost"]))
    return busy or ("failed" in rerun and record["status"] != "ok") or ("stale" in rerun and record["code_id"] != code_id)


def profiled_seconds(trials: list[TrialConfig], suite_dir: Path) -> dict[str, float]:
    """Estimate from the profiles the seconds that trials train: per run id, those without one that can be read left out."""
    profiles: dict[str, dict[str, Any]] = {}
    for run_id in dict.fromkeys(map(profile_id, trials)):
        with contextlib.suppress(RecordError, FileNotFoundError):  # an order and an estimate do without; `status` names a damaged one
            profiles[run_id] = read_record(suite_dir / "profiles" / f"{run_id}.json")
    seconds = {}
    for trial in trials:
        profile = profiles.get(profile_id(trial))
        if profile is not None and profile["status"] == "ok" and profile["cost"]["step_seconds"]["median"]:
            steps = steps_per_epoch(profile["data"]["n_train"], trial.recipe.batch_size)
            seconds[trial.run_id] = trial.recipe.epochs * steps * profile["cost"]["step_seconds"]["median"]
    return seconds
