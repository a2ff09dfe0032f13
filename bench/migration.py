"""Records and plans of older schemas, brought up to the present one when they are read; the files stay as they are.

Version 2 (a sweep that survives) adds to version 1, all optional: `kind`, `log_tail`, the statuses `timeout` and `killed`, and in `launch`
who ran the trial (`id`, `slot`).
"""

from collections.abc import Callable

SCHEMA_VERSION = 2


def from_1(record: dict) -> dict:
    """Version 1 knew training runs only and kept no log."""
    return {"kind": "accuracy", "log_tail": None} | record | {"schema_version": 2}


STEPS: dict[int, Callable[[dict], dict]] = {1: from_1}
"""Per version the step to the next."""


def migrate(record: dict) -> dict:
    """Return a record or plan in the present schema; one of an unknown version as it is, for the reader to refuse."""
    while isinstance(record, dict) and isinstance(record.get("schema_version"), int) and (step := STEPS.get(record["schema_version"])):
        record = step(record)
    return record
