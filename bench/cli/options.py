"""What the commands share: options, exit codes, the console, and how rows are printed."""

import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from bench.cli.tables import plain

HELP = {"help_option_names": ["-h", "--help"]}
OK, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Executor(StrEnum):
    """Where trials run."""

    ray = "ray"
    serial = "serial"


SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="Name of a suite; see `list suites`.")]


def outside_of_data(parameter: typer.CallbackParam, path: Path | None) -> Path | None:
    """Refuse a place of output inside of a data set, before the command does anything."""
    from bench.data.untouched import refuse_inside

    return None if path is None else refuse_inside(path, option=parameter.opts[0])


Results = Annotated[
    Path, typer.Option(help="Directory of the results; a suite's own are in DIR/SUITE.", metavar="DIR", callback=outside_of_data)
]
DataRoot = Annotated[Path | None, typer.Option(help="A PASCAL_MT directory instead of the suite's synthetic data.", metavar="DIR")]
Weights = Annotated[
    Path | None, typer.Option(help="Weights of the backbone (.safetensors or .pth) instead of the suite's.", metavar="FILE")
]
CacheDir = Annotated[
    Path | None,
    typer.Option(help="Directory of the prepared caches; by default `cache` in the results.", metavar="DIR", callback=outside_of_data),
]
Seeds = Annotated[str | None, typer.Option(help="Seeds instead of the suite's, for instance 0,1,2.")]
Tuned = Annotated[bool, typer.Option("--tuned", help="Use the settings that `tune SUITE` chose; needs a complete tune.")]
HeldOut = Annotated[
    str | None,
    typer.Option(
        help="Keep this share of the training split out, such as 0.1, or 0.1:SEED of the draw; a second column then shows the epoch that "
        "is best on it.",
        metavar="SHARE",
    ),
]
Track = Annotated[
    str, typer.Option(help="What watches each trial: tensorboard, mlflow, wandb (separated by commas), or none.", metavar="NAMES")
]
Where = Annotated[Executor, typer.Option("--executor", help="Ray Tune, or one trial after the other on this machine.")]
Rerun = Annotated[
    str,
    typer.Option(
        help="Make records again: failed, stale (made by other code), busy (profiles of a busy device), or several: failed,stale."
    ),
]
Address = Annotated[str | None, typer.Option(help="Address of a Ray cluster; by default RAY_ADDRESS, else one is started here.")]
GpusPerTrial = Annotated[
    str | None,
    typer.Option(help="GPUs a trial: a number such as 0.25, or auto (by the memory of its profile); by default 1 where there are any."),
]
CpusPerTrial = Annotated[int | None, typer.Option(help="CPUs a trial; by default its threads and loader processes.", min=1)]
MemoryPerTrial = Annotated[
    float | None, typer.Option(help="GiB that a trial may allocate (enforced without a GPU) and that Ray sets aside for it.", min=0.01)
]
TimeLimit = Annotated[float | None, typer.Option(help="Seconds after which a trial is killed and recorded as timeout.", min=1)]
HangLimit = Annotated[
    float | None,
    typer.Option(help="Seconds without a step or an evaluated batch until a trial is killed and goes on; by default 1800, 0 waits.", min=0),
]
Attempts = Annotated[int, typer.Option(help="How often a trial's process may die, over all launches.", min=1)]
LeaveOut = Annotated[bool, typer.Option("--leave-out-broken-nodes", help="Run without nodes that are not fit, instead of not at all.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more: whole reasons of failures, every setting of a tune.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors, and data that was asked for, only.")]
MOST = 1e9
"""Seconds, or GiB, beyond which a limit is none."""

DEFAULT_RESULTS = Path("results")
FILE_WIDTH = 200
"""Characters of a line where standard output is no terminal and COLUMNS does not say."""
console = Console(width=None if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit() else FILE_WIDTH)


def load_suite(
    name: str,
    data_root: Path | None,
    seeds: str | None,
    weights: Path | None,
    tuned_in: Path | None = None,
    held_out: str | None = None,
) -> Any:
    """Build a suite with the command line's data, seeds, weights and held-out part, and the settings that were chosen in `tuned_in`."""
    from bench.launch import data_config, weights_name
    from bench.suites import load, with_held_out

    values = None if seeds is None else parse_seeds(seeds)
    kept = None if held_out is None else parse_held_out(held_out)
    data = None if data_root is None else data_config(data_root)
    suite = load(name, data=data, seeds=values, weights=None if weights is None else weights_name(weights))
    if tuned_in is not None:
        from bench.provenance import code_id
        from bench.status import TUNING
        from bench.tuning.outcome import read_outcome, tuned_suite
        from bench.tuning.soundness import doubts

        suite = tuned_suite(suite, outcome := read_outcome(tuned_in / name))
        for doubt in doubts(outcome, tuned_in / name / TUNING, code_id()):
            warn(doubt)
    return suite if kept is None else with_held_out(suite, kept)


def parse_held_out(text: str) -> Any:
    """Return what to hold out, from a share such as "0.1", or "0.1:3" with the seed of the draw."""
    from bench.config import HeldOutConfig

    share, _, seed = text.partition(":")
    try:
        return HeldOutConfig(fraction=float(share), seed=int(seed or 0))
    except ValueError:
        raise typer.BadParameter(f"--held-out takes a share such as 0.1, or with the seed of the draw 0.1:3; got {text!r}") from None


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a list such as "0,1,2"."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise typer.BadParameter(f"--seeds takes whole numbers from 0 on, separated by commas, for instance 0,1,2; got {text!r}")
    seeds = tuple(map(int, parts))
    if len(set(seeds)) < len(seeds):
        raise typer.BadParameter(f"--seeds names a seed twice: {text}; name each once")
    return seeds


def slots_of(address: str | None, gpus: str | None, cpus: int | None, leave_out: bool) -> Any:
    """Return what a trial gets on Ray, from the command line's words."""
    from bench.sweep.place import AUTO, Slots

    try:
        share = gpus if gpus in (None, AUTO) else float(gpus)
        fits = share in (None, AUTO) or (share >= 0 and (share <= 1 or share == int(share)))
    except (ValueError, OverflowError):
        fits = False
    if not fits:
        raise typer.BadParameter(f"--gpus-per-trial takes a share such as 0.25, a whole number, or auto; got {gpus!r}")
    return Slots(address=address, gpus=share, cpus=cpus, leave_out_broken_nodes=leave_out)


def rerun_of(text: str) -> frozenset[str]:
    """Return which records are made again, from a list such as "failed,stale"; the launch knows which words there are."""
    return frozenset(filter(None, text.split(",")))


def limits_of(time_limit: float | None, attempts: int, memory_gib: float | None, hang_limit: float | None = None) -> Any:
    """Return what bounds a trial, from the command line's words."""
    from bench.sweep.jobs import Limits

    given = {"--time-limit": time_limit, "--hang-limit": hang_limit, "--memory-per-trial": memory_gib}
    for option, value in given.items():
        if value is not None and not abs(value) <= MOST:  # not a number is not
            unit = "GiB" if option == "--memory-per-trial" else "seconds"
            raise typer.BadParameter(
                f"{option} takes a number of {unit}, at most {MOST:g}; got {value:g}. Leave it out for no limit of yours"
            )
    memory = None if memory_gib is None else int(memory_gib * 2**30)
    hangs = {} if hang_limit is None else {"hang_seconds": hang_limit or None}
    return Limits(time_limit_seconds=time_limit, max_attempts=attempts, memory_bytes=memory, **hangs)


def warn(text: str) -> None:
    """Print a line about something that the user should know, also where all else is quiet."""
    Console(stderr=True).print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def end_interrupted(quiet: bool) -> NoReturn:
    """End this process now: all that was to be written is on disk, and tearing down torch and Ray takes seconds."""
    Console(stderr=True, quiet=quiet).print("interrupted; run the same command again to go on")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def show_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as JSON, or as a table."""
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    console.print(plain(rows))
