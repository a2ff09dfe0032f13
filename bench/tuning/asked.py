"""The settings that a searcher has asked for, each in a file of its own, so that a tune that is killed keeps them. No torch.

They lie in `asked/<row>/<index>.json` of a tune's directory. One that is damaged is set aside; its number is not given again, so that no
setting is written over, and no sampler, which is seeded by the next number, draws the same twice.
"""

import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.errors import SuiteError
from bench.storage import plain_name, set_aside

NUMBER = re.compile(r"(\d+)(\.\d+)?\.json")
"""A file's name: the setting's number; beside others of that number that were set aside also which of them it is."""


class AskedError(SuiteError):
    """The file of an asked-for setting cannot be used; the message names it and says why."""


def asked_files(tuning_dir: Path) -> list[Path]:
    """Return the files of all rows, row by row in the order of their numbers."""
    return sorted((tuning_dir / "asked").glob("*/*.json"), key=lambda path: (path.parent.name, len(path.name), path.name))


def read_asked(path: Path, dials: Iterable[str] | None = None) -> dict[str, Any]:
    """Read the file of one setting: `index`, `row` (its label), `values`, and `run_ids` unless it is of an older launch.

    Args:
        path: The file.
        dials: The names that its values must have; None takes any.

    Raises:
        AskedError: It is cut short, garbled, or not such a file.
    """
    try:
        asked = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also of what is no text
        raise AskedError(f"{path}: cut short or garbled ({error}).") from error
    if (flaw := flaw_of(asked, dials)) is not None:
        raise AskedError(f"{path}: {flaw}.")
    if (number := NUMBER.fullmatch(path.name)) is None or number[2]:
        raise AskedError(f"{path}: its name is no number.")
    return asked | {"index": int(number[1])}


def flaw_of(asked: object, dials: Iterable[str] | None) -> str | None:
    """Return why the content of a file is no asked-for setting, None where it is one."""
    if not isinstance(asked, dict) or not isinstance(asked.get("row"), str) or not isinstance(asked.get("values"), dict):
        return "it holds no setting, which has a row and values"
    values, run_ids = asked["values"], asked.get("run_ids", [])
    if wrong := [name for name, value in values.items() if type(value) not in (int, float) or not math.isfinite(value)]:
        return f"the value of {wrong[0]!r} is {values[wrong[0]]!r}, no number"
    if dials is not None and set(values) != set(dials):
        return f"it sets {', '.join(sorted(values)) or 'nothing'}; the space of its row is {', '.join(sorted(dials))}"
    if not isinstance(run_ids, list):
        return "its run_ids are no list"
    try:
        for run_id in run_ids:
            plain_name(run_id, "run id")
    except SuiteError as error:
        return str(error)
    return None


def whole_settings(directory: Path, dials: Iterable[str], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the settings of one row, in order, for a tune that goes on with them; a damaged one is set aside, and told of."""
    found = []
    for path in sorted(directory.glob("*.json")):
        try:
            found.append(read_asked(path, dials))
        except AskedError as error:
            say(f"{error} It is set aside as {set_aside(path)}; another setting takes its place.")
    return sorted(found, key=lambda asked: asked["index"])


def next_index(directory: Path) -> int:
    """Return the number of a row's next setting: above all that were given, also to those that were set aside."""
    names = [path.name for folder in (directory, directory / "set_aside") for path in folder.glob("*.json")]
    return max((int(number[1]) for name in names if (number := NUMBER.fullmatch(name))), default=-1) + 1
