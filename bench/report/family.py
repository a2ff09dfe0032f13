"""Families: the rows that differ in their method's dial alone, so that a line through them, or between two of them, means something."""

from collections.abc import Mapping, Sequence

SEPARATOR = " · "
"""Between the name of a method in one training mode and what sets a further sweep of it apart."""


def family_of(rows: Sequence[Mapping], row: Mapping) -> str:
    """Name the family of a row.

    LoRA per task and shared LoRA are two families, and so are sweeps of one method with other settings: the first keeps the method's name,
    the others say what is different, or, where there is no dial or nothing of the method's own differs, are named by their first row.

    Args:
        rows: Of a plan, as `bench.record.read_plan` returns it; those of old plans, which lack `sweep_id`, count as one sweep a method.
        row: One of them.
    """
    name = _method_and_mode(rows, row)
    sweeps: dict[tuple, Mapping] = {}
    for other in rows:
        if _method_and_mode(rows, other) == name:
            sweeps.setdefault(_sweep(other), other)
    first, own = next(iter(sweeps.values())), sweeps[_sweep(row)]
    if own is first:
        return name
    differs = _difference(first, own)
    label = f"{name}{SEPARATOR}{differs}"
    taken = [_difference(first, other) for other in sweeps.values()].count(differs) > 1
    return own["label"] if own["method"]["dial"] is None or not differs or taken else label


def _method_and_mode(rows: Sequence[Mapping], row: Mapping) -> str:
    modes = {other["kind"] for other in rows if other["method"]["name"] == row["method"]["name"]}
    mode = "" if len(modes) == 1 else (", single-task" if row["kind"] == "single_task" else ", multi-task")
    return row["method"]["title"] + mode


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
