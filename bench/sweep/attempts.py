"""How often a trial was started, how far it came and how it died, over all launches: one line each, beside its checkpoint.

    start 2026-01-01T00:00:00+00:00 host a launch 1f3c pid 4711
    epoch 3
    died signal 9

A trial whose record exists has no such file. A start without an end is one whose supervisor died with it: within the launch that goes on,
that is a death (its node died); of an earlier launch, it is no fault of the trial.
"""

from dataclasses import dataclass, field
from pathlib import Path

from bench.storage import append_line

MAX_FRUITLESS_STARTS = 25
"""So often may a trial be started without finishing an epoch, whoever was to blame."""


@dataclass
class Attempts:
    """The attempts of one trial; a method that changes them writes its line at once."""

    path: Path
    lines: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Attempts":
        """Read what is there."""
        return cls(path, path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else [])

    def add(self, line: str) -> None:
        """Append a line here and on disk."""
        append_line(self.path, line)
        self.lines.append(line)

    def close_open(self, launch: str) -> None:
        """Give a start without an end the end that it must have had."""
        opened = next((line for line in reversed(self.lines) if line.startswith(("start", "died", "interrupted"))), "")
        if opened.startswith("start"):
            self.add("died with its supervisor" if f" launch {launch} " in opened else "interrupted with its launch")

    @property
    def starts(self) -> int:
        """How often the trial was started."""
        return sum(line.startswith("start") for line in self.lines)

    @property
    def deaths(self) -> list[str]:
        """How it died, without ends that were no fault of its own."""
        return [line.removeprefix("died ") for line in self.lines if line.startswith("died")]

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

    def remove(self) -> None:
        """Forget all: the trial has a record."""
        self.path.unlink(missing_ok=True)
