"""What a check says."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """One thing looked at: `remedy` says what to do, None where nothing needs doing."""

    subject: str
    status: Literal["ok", "warn", "fail"]
    message: str
    remedy: str | None = None
