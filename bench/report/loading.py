"""What a report reads of a suite, however damaged: what cannot be read is named and counts as missing, the rest goes on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.record import RecordError, flaw_of_arrays, foreign_to, read_plan, read_record
from bench.report.profiles import with_profiles


@dataclass(frozen=True, kw_only=True)
class Results:
    """A suite's results as far as they can be read.

    Attributes:
        plan: As `bench.record.read_plan` returns it.
        records: Readable records, with the costs of their profiles.
        tuning: What a tune left beside the plan, or None.
        damaged: Why, per name of a file that cannot be used, such as `records/a.json`.
        set_aside: Records that launches set aside, such as `records/set_aside/a.json`.
    """

    plan: dict
    records: list[Mapping]
    tuning: dict | None
    damaged: dict[str, str] = field(default_factory=dict)
    set_aside: tuple[str, ...] = ()

    def damaged_trials(self) -> list[str]:
        """List the planned trials whose record is damaged."""
        planned = [run_id for row in self.plan["rows"] for run_id in row["run_ids"]]
        return [run_id for run_id in planned if f"records/{run_id}.json" in self.damaged]


def load_results(suite_dir: Path) -> Results:
    """Read plan, records, profiles, the arrays beside them, and the outcome of a tune.

    Raises:
        RecordError: The plan cannot be read: without it nothing can be said.
    """
    suite_dir, damaged = Path(suite_dir), {}
    plan = read_plan(suite_dir / "plan.json")
    expected = {run_id: row for row in plan["rows"] for run_id in row["run_ids"]}
    records = []
    for record in _readable(suite_dir, "records", damaged):
        row = expected.get(record["run_id"])
        if row is not None and (said := foreign_to(record, row)) is not None:
            damaged[f"records/{record['run_id']}.json"] = said
        else:
            records.append(_with_sound_arrays(record, suite_dir, damaged))
    for path in sorted((suite_dir / "records").glob("scenes-*.npz")):
        _sound(path, suite_dir, damaged)
    profiles = _readable(suite_dir, "profiles", damaged)
    aside = tuple(path.relative_to(suite_dir).as_posix() for path in sorted((suite_dir / "records" / "set_aside").glob("*.json")))
    tuning = _tuning(suite_dir, damaged)
    return Results(plan=plan, records=with_profiles(records, profiles), tuning=tuning, damaged=damaged, set_aside=aside)


def _readable(suite_dir: Path, folder: str, damaged: dict[str, str]) -> list[dict]:
    found = []
    for path in sorted((suite_dir / folder).glob("*.json")):
        try:
            found.append(read_record(path))
        except RecordError as error:
            damaged[f"{folder}/{path.name}"] = str(error).replace(f"{path}: ", "").replace(f"{path}, ", "")
    return found


def _with_sound_arrays(record: dict, suite_dir: Path, damaged: dict[str, str]) -> dict:
    """Return a record that names no array that cannot be read."""
    for key in ("per_image", "panels"):
        path = suite_dir / "records" / str(record.get(key))
        if record.get(key) is not None and not _sound(path, suite_dir, damaged):
            record = {**record, key: None}
    return record


def _sound(path: Path, suite_dir: Path, damaged: dict[str, str]) -> bool:
    """Whether a file of arrays is there and whole."""
    if (problem := flaw_of_arrays(path)) is not None:
        damaged[path.relative_to(suite_dir).as_posix()] = problem
    return problem is None


def _tuning(suite_dir: Path, damaged: dict[str, str]) -> dict | None:
    """Return what a tune of the suite left beside the plan, or None."""
    path = suite_dir / "tuning.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("rows"), list) and "budget" in found:
            return found
        damaged[path.name] = "no outcome of a tune: `rows` or `budget` is missing"
    except ValueError as error:
        damaged[path.name] = f"cut short or garbled ({error})"
    return None
