"""Progress of a sweep: trials done, running and left, the current loss, the time left. A live display on a terminal, else plain lines."""

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Board:
    """Shows a sweep. `with Board(total, epochs) as board:` then `started`, `epoch`, `finished` as the trials report.

    Args:
        trials: Number of trials to run.
        epochs: Sum of their epochs, the unit of the time left.
        quiet: Show nothing.
    """

    def __init__(self, trials: int, epochs: int, quiet: bool = False) -> None:
        self.trials, self.epochs = trials, epochs
        self.done, self.failed, self.epochs_done = 0, 0, 0
        self.running: dict[str, int] = {}
        self.line = ""
        self.console = Console(stderr=True, quiet=quiet)
        self.live = None

    def __enter__(self) -> "Board":
        self.begun = time.monotonic()
        if self.console.is_terminal and not self.console.quiet:
            columns = (BarColumn(bar_width=30), TextColumn("{task.description}"), TimeElapsedColumn())
            self.live = Progress(*columns, console=self.console)
            self.task = self.live.add_task(self.text(), total=self.epochs)
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live is not None:
            self.live.stop()

    def started(self, run_id: str) -> None:
        """A trial has begun."""
        self.running.setdefault(run_id, 0)
        self.refresh(None)

    def epoch(self, run_id: str, epochs: int, line: dict[str, Any]) -> None:
        """A trial of `epochs` epochs has finished one; `line` has `epoch` (1 first) and `loss`."""
        self.epochs_done += line["epoch"] - self.running.get(run_id, 0)
        self.running[run_id] = line["epoch"]
        self.line = f"{run_id} epoch {line['epoch']}/{epochs} loss {line['loss']:.3f}"
        self.refresh(None)

    def finished(self, run_id: str, epochs: int, status: str) -> None:
        """A trial has a record, or has died without one."""
        self.epochs_done += epochs - self.running.pop(run_id, 0)
        self.done += 1
        self.failed += status != "ok"
        self.refresh(f"{run_id}: {status}")

    def text(self) -> str:
        """Return the one-line summary."""
        left = self.trials - self.done - len(self.running)
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} done{failed}, {len(self.running)} running, {left} left · {self.time_left()} · {self.line}"

    def time_left(self) -> str:
        """Return the time left, from the rate of epochs so far."""
        if not self.epochs_done:
            return "time left unknown"
        seconds = (time.monotonic() - self.begun) / self.epochs_done * max(self.epochs - self.epochs_done, 0)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d} left"

    def refresh(self, event: str | None) -> None:
        """Redraw; without a terminal print a line an event."""
        if self.live is not None:
            self.live.update(self.task, description=self.text(), completed=self.epochs_done)
        elif event is not None:
            self.console.print(f"{event} · {self.text()}", highlight=False, soft_wrap=True)


CURRENT: Board | None = None
"""The display of the running sweep. Tune pickles its callbacks, so that they may refer to it only through this module."""
