"""What of a configuration enters its name: all fields, but for those that came later and have their default.

A run id is a hash of a configuration's plain form. A field that is added after runs were recorded would change the id of every one of
them; marked `LATER` it is left out while it has its default, which must then mean what the code did before the field was there.
"""

from dataclasses import fields, is_dataclass
from typing import Any

LATER = {"later": True}
"""Metadata of such a field: `field(default=None, metadata=LATER)`."""


def plain_fields(config: Any) -> dict[str, Any]:
    """Turn a dataclass, and those within it, into dicts, without fields marked LATER that have their default."""
    kept = [f for f in fields(config) if not (f.metadata.get("later") and getattr(config, f.name) == f.default)]
    return {f.name: _plain(getattr(config, f.name)) for f in kept}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return plain_fields(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
