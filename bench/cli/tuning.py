"""The command `tune`."""

import shlex
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli.options import (
    DEFAULT_RESULTS,
    OK,
    SOME_FAILED,
    Address,
    Attempts,
    CacheDir,
    CpusPerTrial,
    DataRoot,
    Executor,
    GpusPerTrial,
    HangLimit,
    Json,
    LeaveOut,
    MemoryPerTrial,
    Quiet,
    Results,
    SuiteName,
    TimeLimit,
    Track,
    Weights,
    end_interrupted,
    limits_of,
    load_suite,
    parse_seeds,
    show_rows,
    slots_of,
)


def tune(
    suite: SuiteName,
    budget: Annotated[int, typer.Option(help="Settings that each row tries; a larger one extends what is there.", min=1)],
    data_root: DataRoot = None,
    results: Results = DEFAULT_RESULTS,
    seeds: Annotated[str, typer.Option(help="Seeds of each setting's trials; their scores are averaged.")] = "0",
    held_out: Annotated[float, typer.Option(help="Share of the training split to score on; val is never read.")] = 0.1,
    asha: Annotated[bool, typer.Option("--asha", help="Stop poor settings early, by ASHA within each row.")] = False,
    searcher: Annotated[
        str, typer.Option(help="halton: the same quasi-random points for every row; optuna: each row its own study.")
    ] = "halton",
    only: Annotated[str | None, typer.Option(help="Tune only rows whose label matches; the tune is then incomplete.")] = None,
    weights: Weights = None,
    executor: Annotated[Executor, typer.Option(help="Ray Tune, or one trial after the other in this process.")] = Executor.ray,
    address: Address = None,
    gpus_per_trial: GpusPerTrial = None,
    cpus_per_trial: CpusPerTrial = None,
    memory_per_trial: MemoryPerTrial = None,
    time_limit: TimeLimit = None,
    hang_limit: HangLimit = None,
    attempts: Attempts = 3,
    leave_out_broken_nodes: LeaveOut = False,
    cache_dir: CacheDir = None,
    workers: Annotated[int | None, typer.Option(help="Loader threads a trial; see `run -h`.", min=0)] = None,
    rerun: Annotated[str, typer.Option(help="Make records again: failed, stale (made by other code), or failed,stale.")] = "",
    track: Track = "tensorboard",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try the same number of settings for every row, scored on held-out training images; `run SUITE --tuned` then uses the best."""
    from bench.config import HeldOutConfig
    from bench.tracking import parse_trackers
    from bench.tuning.launch import Options, tune_suite
    from bench.tuning.plan import Protocol

    protocol = Protocol(budget=budget, seeds=parse_seeds(seeds), held_out=HeldOutConfig(fraction=held_out), asha=asha, searcher=searcher)
    options = Options(
        executor=executor.value,
        slots=slots_of(address, gpus_per_trial, cpus_per_trial, leave_out_broken_nodes),
        limits=limits_of(time_limit, attempts, memory_per_trial, hang_limit),
        workers=workers,
        cache_dir=cache_dir,
        trackers=parse_trackers(track),
        rerun=frozenset(filter(None, rerun.split(","))),
        command=shlex.join(["python", "run_suite.py", *sys.argv[1:]]),
        quiet=quiet,
    )
    chosen = load_suite(suite, data_root, None, weights)
    try:
        outcome = tune_suite(chosen, protocol, options, results=results, data_root=data_root, weights_file=weights, only=only)
    except KeyboardInterrupt:
        end_interrupted(quiet)
    show(outcome, as_json=as_json, quiet=quiet)
    raise typer.Exit(OK if all(row["complete"] for row in outcome["rows"]) else SOME_FAILED)


def show(outcome: dict[str, Any], *, as_json: bool, quiet: bool) -> None:
    """Print each row's choice, and flag what lies at the edge of its space or is incomplete."""
    if not quiet or as_json:
        show_rows([line_of(row) for row in outcome["rows"]], as_json)
    err = Console(stderr=True, quiet=quiet)
    for row in outcome["rows"]:
        at_edge = ", ".join(f"{edge['dial']} {edge['value']:g} is the {edge['side']} tried" for edge in row["edge"])
        if at_edge:
            err.print(f"{row['label']}: at the edge of its space: {at_edge}", style="yellow", highlight=False, markup=False, soft_wrap=True)
        if not row["complete"]:
            err.print(f"{row['label']}: incomplete; `--tuned` refuses it", style="red", highlight=False, markup=False, soft_wrap=True)
    if not quiet and not as_json and outcome["complete"]:
        err.print(f"`run_suite.py run {outcome['suite']} --tuned` uses this; `report` draws the sensitivity curves", highlight=False)


def line_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the terminal's table."""
    statuses = [setting["status"] for setting in row["settings"]]
    chosen = row["chosen"] or {"values": {}, "score": None}
    return {
        "row": row["label"],
        "settings": len(statuses),
        "trained": statuses.count("ok"),
        "not_trained": ", ".join(f"{statuses.count(status)} {status}" for status in sorted(set(statuses) - {"ok"})),
        "chosen": ", ".join(f"{name} {value:g}" for name, value in chosen["values"].items()),
        "score": chosen["score"],
        "at_edge": ", ".join(edge["dial"] for edge in row["edge"]),
        "epochs": row["epochs"],
        "gpu_minutes": round(row["gpu_hours"] * 60, 2),
        "cpu_minutes": round(row["cpu_hours"] * 60, 2),
    }
