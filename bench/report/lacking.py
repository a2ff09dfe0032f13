"""Footnotes about what a report lacks or had to leave out: trials that are missing or failed, damaged files, older schemas."""

from collections.abc import Mapping, Sequence

import pandas as pd

from bench.migration import migration_notes
from bench.report.seeds import HELD_OUT, why_no_delta_m
from bench.tasks import TASKS

DAMAGED_AT_MOST = 20
"""Damaged files that table and page name one by one."""

ABSENT_AT_MOST = 40
"""Trials not run yet, or that did not end well, that are named one by one."""


def damage_notes(damaged: Mapping[str, str], most: int | None = None) -> list[str]:
    """Name the files that could not be used, with the reason; of more than `most` the first ones, and how many there are."""
    kinds = {"records/": "record", "profiles/": "profile", "tuning": "outcome of the tune"}
    notes = []
    for name, why in list(damaged.items())[:most]:
        kind = next(title for start, title in kinds.items() if name.startswith(start))
        kind, follows = (kind, "counts as missing") if name.endswith(".json") else ("arrays beside a record", "nothing of them is used")
        notes.append(f"Damaged {kind}: {name.rpartition('/')[2]} ({why.rstrip('.')}); {follows}.")
    if most is not None and len(damaged) > most:
        notes.append(
            f"{len(damaged)} files are damaged; the first {most} are named here, `run_suite.py report` names them all in the terminal."
        )
    return notes


def _named(trials: Sequence[str]) -> str:
    """List trials by name, of very many the first ones and how many more there are."""
    more = len(trials) - ABSENT_AT_MOST
    return ", ".join(trials[:ABSENT_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def schema_notes(plan: Mapping, own: Sequence[Mapping], set_aside: Sequence[str]) -> list[str]:
    """Name plan and records that were written in an older schema, and files that launches would not trust and set aside.

    Args:
        plan: As `bench.record.read_plan` returns it.
        own: Records of the plan.
        set_aside: Names of the files, as `bench.report.loading.Results` holds them.
    """
    notes = migration_notes(own)
    if (version := plan.get("migrated_from")) is not None:
        notes.append(f"The plan was written in schema {version}; the file stays as it is.")
    if set_aside:
        notes.append(f"Set aside by a launch, for they could not be trusted, and not used here ({len(set_aside)}): {_named(set_aside)}.")
    return notes


def missing_notes(
    plan: Mapping, records: Sequence[Mapping], own: Sequence[Mapping], rows: pd.DataFrame, damaged: Mapping[str, str]
) -> list[str]:
    """Name every trial that is missing or did not end well, and the rows that suffer from it."""
    notes = []
    recorded = {record["run_id"] for record in own}
    absent = [run_id for row in plan["rows"] for run_id in row["run_ids"] if run_id not in recorded]
    absent = [run_id for run_id in absent if f"records/{run_id}.json" not in damaged]
    failed = [record for record in own if record["status"] != "ok"]
    if failed:
        named = _named([f"{record['run_id']} ({record['status']})" for record in failed])
        notes.append(f"Trials that did not end well ({len(failed)}): {named}.")
    nan = [
        f"{record['run_id']} ({task} {TASKS[task].metric})"
        for record in own
        if record["status"] == "ok"
        for task in record["tasks"]
        if record["metrics"][task][TASKS[task].metric] is None
    ]
    if nan:
        notes.append(f"Trials whose headline metric is NaN, so that their seed does not count ({len(nan)}): {_named(nan)}.")
    if absent:
        notes.append(f"Trials not run yet ({len(absent)}): {_named(absent)}.")
    if (rows["seeds_complete"] < rows["seeds_planned"]).any():
        notes.append("A seed counts only where every task of its row has a result; the column Seeds says where that fails.")
    for suffix, what in (("", "Δm"), (HELD_OUT, "Δm of the epoch best on the held-out split")):
        why = why_no_delta_m(rows, suffix=suffix) if f"delta_m{suffix}_mean" in rows else None
        if why is not None:
            notes.append(f"{what} is not given: {why}.")
    if len(records) > len(own):
        notes.append(f"{len(records) - len(own)} records in the directory belong to no row of the plan and are left out.")
    return notes
