"""Dataclasses from plain types, with errors that say what is allowed; and the hash of plain types, which names what they describe."""

import dataclasses
import difflib
import hashlib
import json
from typing import Any, get_args

import dacite

from bench.errors import SuiteError


class ConfigError(SuiteError):
    """A configuration is wrong; the message says what is allowed."""


def parse(cls: type, plain: dict[str, Any], where: str = "") -> Any:
    """Build a dataclass from plain types; see `TrialConfig.from_dict`."""
    try:
        return dacite.from_dict(cls, tuples(plain), dacite.Config(strict=True, type_hooks={float: whole_to_float}))
    except dacite.UnexpectedDataError as error:
        hints = [f"{where}{key!r}{suggest(key, field_names(cls))}" for key in sorted(error.keys)]
        raise ConfigError(f"unknown configuration key {', '.join(hints)}") from None
    except dacite.DaciteError as error:
        raise ConfigError(f"configuration {where}{error}") from error


def field_names(cls: type) -> list[str]:
    """List the fields of a dataclass and of those within it."""
    names = [f.name for f in dataclasses.fields(cls)]
    inner = [kind for f in dataclasses.fields(cls) for kind in (f.type, *get_args(f.type)) if dataclasses.is_dataclass(kind)]
    return names + [name for kind in inner for name in field_names(kind)]


def whole_to_float(value: Any) -> Any:
    """Turn a whole number that stands for a float into one; leave all else, which the type check then refuses."""
    if isinstance(value, bool):
        raise dacite.WrongTypeError(field_type=float, value=value)
    return float(value) if type(value) is int else value


def tuples(value: Any) -> Any:
    """Turn lists into tuples, recursively: JSON has no tuples."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(tuples(item) for item in value) if isinstance(value, list | tuple) else value


def require(where: str, value: Any, allowed: Any) -> None:
    """Raise ConfigError, with the near name, when a value is not allowed."""
    if value not in allowed:
        raise ConfigError(f"{where}: {value!r} is not allowed{suggest(value, allowed)}; allowed: {', '.join(map(str, allowed))}")


def suggest(value: Any, known: Any) -> str:
    """Return "; did you mean ...?" when a known name is near, else nothing."""
    near = difflib.get_close_matches(str(value), known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def digest(plain: Any, length: int) -> str:
    """Return the first hex digits of the SHA-256 of the canonical JSON, in which 20.0 is 20."""
    return hashlib.sha256(json.dumps(canonical(plain), sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:length]


def canonical(value: Any) -> Any:
    """Turn floats of a whole value into integers, recursively: equal configurations shall have equal names."""
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
