"""Progress of a command that goes through rows, on standard error: a bar on a terminal, else a plain line a row; nothing with --quiet."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Steps:
    """`with Steps("measures") as steps:` then `steps(done, total, label)` before each row.

    Args:
        verb: What is done with a row.
        quiet: Show nothing.
        console: Where to; standard error by default.
    """

    def __init__(self, verb: str, *, quiet: bool = False, console: Console | None = None) -> None:
        self.verb = verb
        self.console = console or Console(stderr=True, quiet=quiet)
        columns = (
            MofNCompleteColumn(),
            BarColumn(20),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self.bar = Progress(*columns, console=self.console, transient=True) if self.console.is_terminal and not quiet else None
        self.task = None

    def __enter__(self) -> "Steps":
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(self.verb, total=None)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, done: int, total: int, label: str) -> None:
        """Tell that `done` rows of `total` are done and `label` is next."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, description=f"{self.verb} {label}")
        else:
            self.console.print(f"{done + 1}/{total} {self.verb} {label}", markup=False, highlight=False, soft_wrap=True)
