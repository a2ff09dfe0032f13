"""Progress of a sweep, row by row: trials done and running, epoch, loss, images a second, time left, failures. A table that is drawn again
and again on a terminal, else one plain line an event."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

REDRAWS_PER_SECOND = 4


@dataclass
class RowProgress:
    """What is known of one row.

    Attributes:
        trials, done, failed: Numbers of trials; the failed ones are done.
        running: Per run id the last finished epoch.
        epochs, epochs_done: Sum over the row's trials; 0 of a row of profiles, whose parts are its trials.
        seconds, seconds_parts: Seconds of the epochs that were seen, or else of the trials, and how many they are.
        expected: Seconds an epoch, estimated before any was seen.
        loss, images_per_second: The latest.
    """

    trials: int = 0
    done: int = 0
    failed: int = 0
    running: dict[str, int] = field(default_factory=dict)
    epochs: int = 0
    epochs_done: int = 0
    seconds: float = 0.0
    seconds_parts: int = 0
    expected: float | None = None
    loss: float | None = None
    images_per_second: float | None = None

    @property
    def seconds_each(self) -> float | None:
        """Seconds of one part: seen, or else expected; None where nothing is known."""
        return self.seconds / self.seconds_parts if self.seconds_parts else self.expected

    def seconds_left(self, otherwise: float | None) -> float | None:
        """Return the slot seconds that what is left will take, by its own parts or else `otherwise` seconds each."""
        left = max(self.epochs - self.epochs_done, 0) if self.epochs else self.trials - self.done
        each = otherwise if self.seconds_each is None else self.seconds_each
        return 0.0 if left == 0 else None if each is None else left * each


class Board:
    """Shows a sweep. `with Board(trials) as board:` then `started`, `epoch`, `finished` as the trials report.

    Args:
        trials: Per run id the label of its row and its epochs, 0 of a profile, in the order of the rows.
        quiet: Show nothing.
        console: Where to; standard error by default.
        expected: Asked at the start with None, and with its run id whenever a profile has ended: seconds by run id that trials will take,
            as far as they are known by then.
    """

    def __init__(
        self,
        trials: Mapping[str, tuple[str, int]],
        quiet: bool = False,
        console: Console | None = None,
        expected: Callable[[str | None], Mapping[str, float]] = lambda run_id: {},
    ) -> None:
        self.trials, self.expected = dict(trials), expected
        self.rows: dict[str, RowProgress] = {}
        for label, epochs in self.trials.values():
            row = self.rows.setdefault(label, RowProgress())
            row.trials += 1
            row.epochs += epochs
        self.console = console or Console(stderr=True, quiet=quiet)
        self.live: Live | None = None
        self.line, self.most_running, self.begun = "", 1, time.monotonic()
        self.starts: dict[str, float] = {}
        self.expect(None)

    def __enter__(self) -> "Board":
        self.begun = time.monotonic()
        if self.console.is_terminal and not self.console.quiet:
            self.live = Live(console=self.console, get_renderable=self.render, refresh_per_second=REDRAWS_PER_SECOND, transient=False)
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def expect(self, run_id: str | None) -> None:
        """Ask what trials will take, at the start or when a profile has ended."""
        for name, seconds in self.expected(run_id).items():
            self.row(name).expected = seconds / self.trials[name][1]

    def row(self, run_id: str) -> RowProgress:
        """Return the row of a trial."""
        return self.rows[self.trials[run_id][0]]

    def started(self, run_id: str) -> None:
        """A trial has begun."""
        self.row(run_id).running.setdefault(run_id, 0)
        self.starts.setdefault(run_id, time.monotonic())
        self.most_running = max(self.most_running, sum(len(row.running) for row in self.rows.values()))

    def epoch(self, run_id: str, line: Mapping[str, Any]) -> None:
        """A trial has finished an epoch; `line` has `epoch` (1 first) and `loss`, and may have `seconds` and `images_per_second`."""
        self.started(run_id)
        row, epochs = self.row(run_id), self.trials[run_id][1]
        row.epochs_done += line["epoch"] - row.running[run_id]
        row.running[run_id] = line["epoch"]
        row.loss, row.images_per_second = line["loss"], line.get("images_per_second", row.images_per_second)
        if line.get("seconds"):
            row.seconds, row.seconds_parts = row.seconds + line["seconds"], row.seconds_parts + 1
        self.line = f"{run_id} epoch {line['epoch']}/{epochs} loss {line['loss']:.3f}"

    def finished(self, run_id: str, status: str) -> None:
        """A trial has a record, or has died without one."""
        row, begun = self.row(run_id), self.starts.pop(run_id, None)
        if not self.trials[run_id][1] and begun is not None:
            row.seconds, row.seconds_parts = row.seconds + time.monotonic() - begun, row.seconds_parts + 1
            self.expect(run_id)
        row.epochs_done += self.trials[run_id][1] - row.running.pop(run_id, 0)
        row.done += 1
        row.failed += status != "ok"
        self.say(f"{run_id}: {status}" if self.live is not None and status != "ok" else f"{run_id}: {status} · {self.text()}", status)

    def say(self, event: str, status: str = "") -> None:
        """Print a line; above the table on a terminal, where trials that end well need none."""
        if self.live is None or status != "ok":
            self.console.print(event, highlight=False, soft_wrap=True, markup=False)

    def text(self) -> str:
        """Return the one-line summary."""
        done, failed, running = (
            sum(counts) for counts in zip(*((r.done, r.failed, len(r.running)) for r in self.rows.values()), strict=True)
        )
        left = len(self.trials) - done - running
        failures = f", {failed} failed" if failed else ""
        return f"{done} done{failures}, {running} running, {left} left · {self.time_left()} · {self.line}"

    def time_left(self) -> str:
        """Return the time left, from the seconds of the epochs so far and the largest number of trials that ran at once.

        A row of which nothing is known is taken for the mean of the others.
        """
        known = [row.seconds_each for row in self.rows.values() if row.epochs and row.seconds_each is not None]
        mean = statistics.fmean(known) if known else None
        lefts = [row.seconds_left(mean) for row in self.rows.values()]
        return "time left unknown" if None in lefts else f"{clock(sum(lefts) / self.most_running)} left"

    def render(self) -> Group:
        """Return the table of the terminal: running rows first, as many as fit, and the summary."""
        table = Table(box=None, pad_edge=False)
        table.add_column("row", no_wrap=True, overflow="ellipsis")
        for title in ("done", "running", "epoch", "loss", "images/s", "left", "failed"):
            table.add_column(title, justify="right", no_wrap=True)
        rows = sorted(self.rows.items(), key=lambda item: (not item[1].running, item[1].done == item[1].trials, not item[1].failed))
        fitting = max(1, self.console.size.height - 5)
        for label, row in rows[:fitting]:
            table.add_row(*cells(label, row), style="red" if row.failed else "dim" if row.done == row.trials else None)
        more = [Text(f"and {len(rows) - fitting} more rows", style="dim")] if len(rows) > fitting else []
        return Group(table, *more, Text(f"{self.text()} · {clock(time.monotonic() - self.begun)} gone", no_wrap=True, overflow="ellipsis"))


def epoch_text(line: Mapping[str, Any], epochs: int) -> str:
    """Return what the log of a trial says of an epoch; `line` as of `Board.epoch`, with `lr`."""
    speed = f"lr {line['lr']:.3g}, {line['images_per_second']:.1f} images/s, {line['seconds']:.1f} s"
    return f"epoch {line['epoch']} of {epochs}: loss {line['loss']:.4f}, {speed}"


def cells(label: str, row: RowProgress) -> list[str]:
    """Return a row of the terminal's table."""
    seconds = row.seconds_left(None)
    return [
        label,
        f"{row.done}/{row.trials}",
        str(len(row.running) or ""),
        f"{row.epochs_done}/{row.epochs}" if row.epochs else "",
        "" if row.loss is None else f"{row.loss:.3f}",
        "" if row.images_per_second is None else f"{row.images_per_second:.1f}",
        "" if seconds is None else clock(seconds),
        str(row.failed or ""),
    ]


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds."""
    whole = math.ceil(seconds)
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes.removeprefix("0")


CURRENT: Board | None = None
"""The display of the running sweep. Tune pickles its callbacks, so that they may refer to it only through this module."""
