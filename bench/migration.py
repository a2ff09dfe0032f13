"""Records and plans of older schemas, brought up to the present one when they are read; the files stay as they are.

A record that was migrated says so in memory (`migrated_from`), so that launches, `status` and tables can name it. One that claims a version
and holds what only a later one has was edited: it is not trusted.

Version 2 (a sweep that survives) adds to version 1, all optional: `kind`, `log_tail`, the statuses `timeout` and `killed`, and in `launch`
who ran the trial (`id`, `slot`).
"""

from collections.abc import Callable, Iterable, Mapping

SCHEMA_VERSION = 2

NAMED = 3
"""So many records of an older schema are named, the others counted."""


def from_1(record: dict) -> dict:
    """Version 1 knew training runs only and kept no log."""
    return {"kind": "accuracy", "log_tail": None} | record | {"schema_version": 2, "migrated_from": 1}


STEPS: dict[int, Callable[[dict], dict]] = {1: from_1}
"""Per version the step to the next."""


LATER: dict[int, tuple[str, ...]] = {1: ("kind", "log_tail", "launch.id", "launch.slot")}
"""Per version the fields that only later ones have."""


def fields_of_later_schemas(record: object) -> list[str]:
    """Return the fields of a record that are newer than the schema which it claims."""
    if not isinstance(record, dict) or not isinstance(record.get("schema_version"), int):
        return []
    launch = record.get("launch")
    there = set(record) | ({f"launch.{field}" for field in launch} if isinstance(launch, dict) else set())
    return [field for field in LATER.get(record["schema_version"], ()) if field in there]


def migrated(records: Iterable[Mapping]) -> dict[int, list[str]]:
    """Return per older schema the run ids of the records that were written in it."""
    found: dict[int, list[str]] = {}
    for record in records:
        if (version := record.get("migrated_from")) is not None:
            found.setdefault(version, []).append(record["run_id"])
    return found


def migration_notes(records: Iterable[Mapping]) -> list[str]:
    """Return a line about each older schema that records were written in: how many they are, and the names of the first."""
    lines = []
    for version, run_ids in sorted(migrated(records).items()):
        count = f"{len(run_ids)} record{'s' if len(run_ids) > 1 else ''}"
        names = ", ".join(run_ids[:NAMED]) + (f" and {len(run_ids) - NAMED} more" if len(run_ids) > NAMED else "")
        lines.append(f"Written in schema {version}, read as schema {SCHEMA_VERSION}; the files stay as they are ({count}): {names}.")
    return lines


def migrate(record: dict) -> dict:
    """Return a record or plan in the present schema; one of an unknown version as it is, for the reader to refuse."""
    while isinstance(record, dict) and isinstance(record.get("schema_version"), int) and (step := STEPS.get(record["schema_version"])):
        record = step(record)
    return record
