"""Families: the rows that differ in their method's dial alone, so that a line through them, or between two of them, means something."""

from collections.abc import Mapping, Sequence

import pandas as pd

SEPARATOR = " · "
"""Between the name of a method in one training mode and what sets a further sweep of it apart."""


def families(rows: Sequence[Mapping]) -> list[str]:
    """Name the family of each row of a plan.

    LoRA per task and shared LoRA are two families, and so are sweeps of one method with other settings: the first keeps the method's name,
    the others say what is different, or, where there is no dial or nothing of the method's own differs, are named by their first row.

    Args:
        rows: As `bench.record.read_plan` returns them; those of old plans, which lack `sweep_id`, count as one sweep a method and mode.
    """
    names, sweeps = _methods_and_modes(rows), {}
    for name, row in zip(names, rows, strict=True):
        sweeps.setdefault(name, {}).setdefault(_sweep(row), row)
    titles = {name: _titles(name, list(own.values())) for name, own in sweeps.items()}
    places = {name: {sweep: place for place, sweep in enumerate(own)} for name, own in sweeps.items()}
    return [titles[name][places[name][_sweep(row)]] for name, row in zip(names, rows, strict=True)]


def with_titles(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the row frame with families named for readers: one of a single row without a dial as the table calls that row.

    Args:
        rows: As `bench.report.stats.row_frame` returns it.

    Returns:
        The frame with a new `family`, and the old one as `look`, by which `bench.report.style.family_styles` finds colour and marker.
    """
    alone = (rows.groupby("family")["label"].transform("size") == 1) & rows["dial"].isna() & ~rows["label"].isin(rows["family"])
    return rows.assign(look=rows["family"], family=rows["family"].where(~alone, rows["label"]))


def _methods_and_modes(rows: Sequence[Mapping]) -> list[str]:
    modes: dict[str, set[str]] = {}
    for row in rows:
        modes.setdefault(row["method"]["name"], set()).add(row["kind"])
    said = {"single_task": ", single-task", "multi_task": ", multi-task"}
    return [row["method"]["title"] + (said[row["kind"]] if len(modes[row["method"]["name"]]) > 1 else "") for row in rows]


def _titles(name: str, firsts: Sequence[Mapping]) -> list[str]:
    """Name the sweeps of a method in one mode, of each of which the first row is given."""
    differences = [_difference(firsts[0], row) for row in firsts[1:]]
    titles = [name]
    for row, differs in zip(firsts[1:], differences, strict=True):
        unclear = row["method"]["dial"] is None or not differs or differences.count(differs) > 1
        titles.append(row["label"] if unclear else f"{name}{SEPARATOR}{differs}")
    return titles


def _sweep(row: Mapping) -> tuple:
    return row.get("sweep_id"), row["method"]["dial"]


def _difference(first: Mapping, other: Mapping) -> str:
    """Say what a sweep sets otherwise than the first one; the dials themselves are no settings."""
    dials = {first["method"]["dial"], other["method"]["dial"]}
    ours, theirs = (row.get("settings", {}) for row in (other, first))
    said = [f"{key.replace('_', ' ')} {_short(ours.get(key))}" for key in ours if key not in dials and ours[key] != theirs.get(key)]
    swept = [] if len(dials) == 1 else [f"by {str(other['method']['dial']).replace('_', ' ')}"]
    return ", ".join([*swept, *said])


def _short(value: object) -> str:
    """Print a setting; a long list by its first entries."""
    if not isinstance(value, list):
        return str(value)
    return "none" if not value else "+".join(map(str, value[:2])) + (f"+{len(value) - 2} more" if len(value) > 2 else "")
