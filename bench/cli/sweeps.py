"""Commands about a sweep: plan, run, status."""

import shlex
import sys
from typing import Annotated

import typer
from rich.console import Console

from bench.cli.options import (
    DEFAULT_RESULTS,
    INTERRUPTED,
    OK,
    SOME_FAILED,
    CacheDir,
    DataRoot,
    Executor,
    Json,
    Quiet,
    Results,
    Seeds,
    SuiteName,
    Track,
    Tuned,
    Verbose,
    Weights,
    load_suite,
    show_rows,
)
from bench.cli.reports import print_report


def plan(
    suite: SuiteName,
    data_root: DataRoot = None,
    results: Results = DEFAULT_RESULTS,
    seeds: Seeds = None,
    weights: Weights = None,
    tuned: Tuned = False,
    as_json: Json = False,
) -> None:
    """Show what would run: rows, trainable parameters, missing trials, and an estimate of the time from steps measured here."""
    from bench.launch import plan_rows

    chosen = load_suite(suite, data_root, seeds, weights, results if tuned else None)
    rows = plan_rows(chosen, results / suite, data_root=data_root)
    show_rows(rows, as_json)
    if not as_json:
        to_do = sum(row["missing"] for row in rows)
        seconds = sum(row["missing"] * row["seconds_per_trial"] for row in rows)
        print(f"{to_do} of {sum(row['trials'] for row in rows)} trials to run, about {seconds / 60:.0f} minutes of one slot in all.")


def run(
    suite: SuiteName,
    data_root: DataRoot = None,
    results: Results = DEFAULT_RESULTS,
    seeds: Seeds = None,
    only: Annotated[str | None, typer.Option(help="Run only rows or run ids that match, for instance 'LoRA*'.", metavar="PATTERN")] = None,
    weights: Weights = None,
    executor: Annotated[Executor, typer.Option(help="Ray Tune, or one trial after the other in this process.")] = Executor.ray,
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster; by default RAY_ADDRESS, else one is started here.")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="GPUs a trial; by default 1 where there are any.")] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(help="CPUs a trial; by default its threads and loader threads.", min=1)] = None,
    cache_dir: CacheDir = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads that prepare a trial's batches; by default 2 on a GPU, else 0.", min=0)
    ] = None,
    rerun: Annotated[str, typer.Option(help="Make records again: failed, stale (made by other code), or failed,stale.")] = "",
    tuned: Tuned = False,
    track: Track = "tensorboard",
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run the trials that have no record yet; then write tables and plots."""
    from bench.launch import launch_suite
    from bench.tracking import parse_trackers

    chosen = load_suite(suite, data_root, seeds, weights, results if tuned else None)
    try:
        outcome = launch_suite(
            chosen,
            results=results,
            data_root=data_root,
            weights_file=weights,
            only=only,
            executor=executor.value,
            address=address,
            gpus_per_trial=gpus_per_trial,
            cpus_per_trial=cpus_per_trial,
            cache_dir=cache_dir,
            workers=workers,
            rerun=frozenset(filter(None, rerun.split(","))),
            trackers=parse_trackers(track),
            command=shlex.join(["python", "run_suite.py", *sys.argv[1:]]),
            verbose=verbose,
            quiet=quiet,
        )
    except KeyboardInterrupt:
        Console(stderr=True, quiet=quiet).print("interrupted; run the same command again to go on")
        raise typer.Exit(INTERRUPTED) from None
    if outcome.ok and not quiet:
        print_report(results / suite, keep_current=True)
    raise typer.Exit(OK if outcome.complete else SOME_FAILED)


def status(suite: SuiteName, results: Results = DEFAULT_RESULTS, as_json: Json = False) -> None:
    """Show which trials of the last launch have a record, which failed and which are missing."""
    from bench.status import suite_status

    rows = suite_status(results / suite)
    show_rows(rows, as_json)
    raise typer.Exit(OK if all(row["ok"] == row["trials"] for row in rows) else SOME_FAILED)
