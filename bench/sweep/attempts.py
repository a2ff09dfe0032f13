"""How often a trial was started, how far it came and how it died, over all launches: one line each, beside its checkpoint.

    start 2026-01-01T00:00:00+00:00 host a launch 1f3c slot a:17 pid 4711
    epoch 3<tab>2026-01-01T00:05:00+00:00
    died of signal 9 (SIGKILL)<tab>2026-01-01T00:06:00+00:00

A trial whose record exists has no such file. It may die so often as the user says (`max_attempts`). What is no fault of its own is counted
apart: a start that was `lost` with its node or its supervisor (preempted, crashed, removed), `interrupted` with its launch or by the disk,
or `paused` in a tune. A start without an end is one whose supervisor could not write it: lost, or of an earlier launch, interrupted. A line
that a crash has torn is named once and skipped.
"""

import contextlib
import datetime
import itertools
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.storage import append_line

logger = logging.getLogger(__name__)

MAX_FRUITLESS_STARTS = 25
"""So often may a trial be started without finishing an epoch, whoever was to blame."""

MAX_LOSSES = 100
"""So often may a trial be lost with its node or supervisor, over all launches: a healthy one moves on each time."""

ENDS = ("died", "lost", "interrupted", "paused")
FORMS = re.compile(rf"start (?P<start>\S+)( .*)?|(epoch \d+|({'|'.join(ENDS)})\b[^\t]*)(\t(?P<stamp>.*))?")
"""A whole line, and the time stamp in it."""

_named: set[Path] = set()
"""Files whose torn lines this process has named."""


def times(count: int) -> str:
    """Say how often."""
    return "once" if count == 1 else f"{count} times"


@dataclass
class Attempts:
    """The attempts of one trial; a method that changes them writes its line at once."""

    path: Path
    lines: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Attempts":
        """Read what is there, without lines that are torn."""
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
        torn = [line for line in lines if line and not is_whole(line)]
        if torn and path not in _named:
            _named.add(path)
            logger.warning("%s: skipped what a crash or a full disk has torn: %s", path, ", ".join(map(repr, torn)))
        return cls(path, [line for line in lines if is_whole(line)])

    def add(self, line: str, *, at: str = "") -> None:
        """Append a line here and on disk; `at` says when it was, where that is known."""
        line = f"{line}\t{at}" if at else line
        append_line(self.path, line)
        self.lines.append(line)

    def close_open(self, launch: str) -> None:
        """Give a start without an end the end that it must have had."""
        if self.open:
            self.add("lost with its supervisor" if f" launch {launch} " in self.open else "interrupted with its launch")

    @property
    def open(self) -> str:
        """The start that has no end, "" where there is none."""
        last = next((line for line in reversed(self.lines) if line.startswith(("start", *ENDS))), "")
        return last if last.startswith("start") else ""

    @property
    def starts(self) -> int:
        """How often the trial was started."""
        return sum(line.startswith("start") for line in self.lines)

    @property
    def number(self) -> int:
        """The number of the last attempt: to go on after a pause is none."""
        return self.starts - sum(line.startswith("paused") for line in self.lines[:-1])

    @property
    def next_number(self) -> int:
        """The number of the attempt that the next start belongs to."""
        return self.starts + 1 - sum(line.startswith("paused") for line in self.lines)

    @property
    def seconds_before_pause(self) -> float:
        """What the attempt that is paused now has taken so far; 0 where none is."""
        parts = itertools.takewhile(lambda span: (span["ended"] or "").startswith("paused"), reversed(self.spans()))
        return sum(span["seconds"] for span in parts)

    @property
    def losses(self) -> int:
        """How often it was lost with its node or its supervisor."""
        return sum(line.startswith("lost") for line in self.lines)

    @property
    def deaths(self) -> list[str]:
        """How it died, without ends that were no fault of its own."""
        return [line.partition("\t")[0].removeprefix("died ") for line in self.lines if line.startswith("died")]

    @property
    def fruitless(self) -> int:
        """Starts since the last finished epoch."""
        epochs = [i for i, line in enumerate(self.lines) if line.startswith("epoch")]
        since = self.lines[epochs[-1] + 1 :] if epochs else self.lines
        return sum(line.startswith("start") for line in since)

    @property
    def epoch(self) -> int:
        """The last finished epoch; 0 before the first."""
        return max((int(line.split()[1]) for line in self.lines if line.startswith("epoch")), default=0)

    def spans(self) -> list[dict[str, Any]]:
        """Return per start when it was, how many seconds are known of it (to its end, else to its last epoch), its launch, slot and end."""
        found: list[dict[str, Any]] = []
        for line in self.lines:
            text, _, stamp = line.partition("\t")
            if text.startswith("start"):
                _, start, *pairs = text.split()
                of = dict(zip(pairs[::2], pairs[1::2], strict=False))
                found.append({"start": start, "seconds": 0.0, "launch": of.get("launch"), "slot": of.get("slot"), "ended": None})
            elif found:
                found[-1]["seconds"] = seconds_between(found[-1]["start"], stamp) if stamp else found[-1]["seconds"]
                found[-1]["ended"] = found[-1]["ended"] if text.startswith("epoch") else text
        return found

    def remove(self) -> None:
        """Forget all: the trial has a record."""
        self.path.unlink(missing_ok=True)


def is_whole(line: str) -> bool:
    """Whether a line can be understood; its time stamp, where it has one, says its zone."""
    if (found := FORMS.fullmatch(line)) is None:
        return False
    stamp = found["start"] or found["stamp"]
    with contextlib.suppress(ValueError):
        return stamp is None or datetime.datetime.fromisoformat(stamp).tzinfo is not None
    return False


def seconds_between(start: str, end: str) -> float:
    """Return the seconds from one time stamp to another, ISO 8601."""
    begun, over = (datetime.datetime.fromisoformat(stamp) for stamp in (start, end))
    return (over - begun).total_seconds()
