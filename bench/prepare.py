"""Prepare the caches of a launch before its trials start, with what a user wants to see: size, progress, and why one is built again."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.config import TrialConfig
from bench.data.cache import Request, open_cache
from bench.data.feed_modes import request_of
from bench.data.roots import data_root_of
from bench.data.store import CachedStore


def prepare_trials(trials: Iterable[TrialConfig], cache_dir: Path, *, results: Path, data_root: Path | None, console: Console) -> None:
    """Build what the trials will read; data of the same kind once, for all tasks that there are."""
    tasks_of: dict = {}
    for trial in trials:
        tasks_of.setdefault((trial.data, trial.splits), {}).update(dict.fromkeys(trial.tasks))
    for (data, splits), tasks in tasks_of.items():
        root = data_root_of(data.source, data.synthetic, data.fingerprint, results=results, data_root=data_root)
        for split in splits:
            prepare(request_of(data, root, split, results / "data"), tuple(tasks), cache_dir, console=console)


def prepare(
    request: Request,
    tasks: tuple[str, ...] | None,
    cache_dir: Path,
    *,
    console: Console,
    processes: int | None = None,
    verify: bool = False,
) -> CachedStore:
    """Build the cache of a split where there is none that can be used, and show it; `tasks` and `verify` as of `open_cache`."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(f"{request.split} cache", total=None, visible=False)

        def show(done: int, total: int) -> None:
            progress.update(bar, completed=done, total=total, visible=True)

        def say(text: str) -> None:
            console.print(text, highlight=False, markup=False, soft_wrap=True)

        return open_cache(request, tasks, cache_dir, verify=verify, processes=processes, say=say, progress=show)
