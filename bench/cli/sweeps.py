"""Commands about a sweep: plan, run, status."""

import json
from typing import Annotated, Any

import typer

from bench.cli.options import (
    DEFAULT_RESULTS,
    OK,
    SOME_FAILED,
    Address,
    CacheDir,
    DataRoot,
    Executor,
    HangLimit,
    HeldOut,
    Json,
    Quiet,
    Rerun,
    Results,
    Seeds,
    SuiteName,
    TimeLimit,
    Tuned,
    Verbose,
    Weights,
    Where,
    end_interrupted,
    limits_of,
    load_suite,
    rerun_of,
    show_rows,
    slots_of,
    warn,
)
from bench.cli.reports import print_report
from bench.cli.running import Running, command_line, with_running
from bench.cli.steps import Steps
from bench.imports import imports_without
from bench.storage import plain_name


def plan(
    suite: SuiteName,
    data_root: DataRoot = None,
    results: Results = DEFAULT_RESULTS,
    seeds: Seeds = None,
    weights: Weights = None,
    tuned: Tuned = False,
    held_out: HeldOut = None,
    estimate: Annotated[
        bool, typer.Option(help="Measure a few steps of rows without record and profile, to estimate their time; else it is left open.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what would run: rows, trainable parameters, missing trials, and an estimate of the time from records, profiles or steps here."""
    from bench.estimate import plan_rows

    chosen = load_suite(suite, data_root, seeds, weights, results if tuned else None, held_out)
    with Steps("measures" if estimate else "counts", quiet=quiet) as steps:
        rows = plan_rows(chosen, results / suite, data_root=data_root, say=warn, estimate=estimate, progress=steps)
    if as_json:
        show_rows(rows, as_json)
        return
    if not quiet:
        show_rows([_planned(row) for row in rows], as_json)
    to_do, known = sum(row["missing"] for row in rows), [row for row in rows if row["seconds_per_trial"] is not None]
    timed = sum(row["missing"] for row in known)
    about = (
        f"about {duration(sum(row['missing'] * row['seconds_per_trial'] for row in known))} of one slot in all" if timed else "time unknown"
    )
    partial = f" for {timed} of them" if 0 < timed < to_do else ""
    sessions = sum(row["profile_sessions"] for row in rows)
    first = f" Before them {sessions} sessions of profiles, some seconds each." if sessions else ""
    print(f"{to_do} of {sum(row['trials'] for row in rows)} trials to run" + (f", {about}{partial}." if to_do else ".") + first)


def _planned(row: dict[str, Any]) -> dict[str, Any]:
    seconds = row["seconds_per_trial"]
    shown = {key: value for key, value in row.items() if key not in ("seconds_per_trial", "estimate_from", "profile_sessions")}
    return shown | {"time_a_trial": None if seconds is None else duration(seconds), "from": row["estimate_from"]}


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.{0 if seconds >= 100 * length else 1}f} {unit}"
    return f"{seconds:.0f} seconds"


@with_running
def run(
    suite: SuiteName,
    seeds: Seeds = None,
    only: Annotated[str | None, typer.Option(help="Run only rows or run ids that match, for instance 'LoRA*'.", metavar="PATTERN")] = None,
    profiles: Annotated[bool, typer.Option(help="Measure time and memory of the rows first, each alone on its device.")] = True,
    tuned: Tuned = False,
    held_out: HeldOut = None,
    report: Annotated[bool, typer.Option(help="Write tables and plots at the end; `report SUITE` does so at any time.")] = True,
    *,
    running: Running,
) -> None:
    """Run the trials that have no record yet; then write tables and plots. Ctrl-C lets what runs finish; twice stops at once."""
    with imports_without("wandb"):
        from bench.launch import launch_suite

    results = running.results
    chosen = load_suite(suite, running.data_root, seeds, running.weights, results if tuned else None, held_out)
    settings = running.places() | running.settings()
    try:
        outcome = launch_suite(chosen, **settings, only=only, profiles=profiles, verbose=running.verbose)
    except KeyboardInterrupt:
        end_interrupted(running.quiet)
    if report and (outcome.ok or any((results / suite / "records").glob("*.json"))):
        print_report(results / suite, quiet=running.quiet, keep_current=True)
    raise typer.Exit(OK if outcome.complete else SOME_FAILED)


def profile(
    suite: SuiteName,
    data_root: DataRoot = None,
    results: Results = DEFAULT_RESULTS,
    only: Annotated[
        str | None, typer.Option(help="Measure only rows or run ids that match, for instance 'LoRA*'.", metavar="PATTERN")
    ] = None,
    weights: Weights = None,
    executor: Where = Executor.ray,
    address: Address = None,
    time_limit: TimeLimit = None,
    hang_limit: HangLimit = None,
    cache_dir: CacheDir = None,
    rerun: Rerun = "",
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Measure time and memory of the rows that lack them, each alone on its device, in three sessions; nothing is trained to the end."""
    with imports_without("wandb"):
        from bench.launch import launch_suite

    try:
        outcome = launch_suite(
            load_suite(suite, data_root, None, weights),
            results=results,
            data_root=data_root,
            weights_file=weights,
            only=only,
            executor=executor.value,
            slots=slots_of(address, None, None, False),
            limits=limits_of(time_limit, 3, None, hang_limit),
            profiles=True,
            accuracy=False,
            cache_dir=cache_dir,
            workers=None,
            rerun=rerun_of(rerun),
            trackers=(),
            command=command_line(),
            verbose=verbose,
            quiet=quiet,
        )
    except KeyboardInterrupt:
        end_interrupted(quiet)
    raise typer.Exit(OK if outcome.complete else SOME_FAILED)


def status(
    suite: SuiteName,
    results: Results = DEFAULT_RESULTS,
    tail: Annotated[str | None, typer.Option(help="Show the end of a trial's log, also of a tune.", metavar="RUN_ID")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines of the log to show.", min=1)] = 30,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show which trials, also of a tune, have a record, which failed, run and are missing, and what slots did beside training."""
    from bench.status import DAMAGED, TUNING, log_tail, look_at, overhead, remarks, suite_status, tuning_status

    directory = results / plain_name(suite, "suite")
    if tail is not None:
        print(log_tail(directory, tail, lines))
        return
    shelf, of_tune = look_at(directory), look_at(directory / TUNING)
    tuning = tuning_status(of_tune)
    rows = [] if tuning and not (directory / "plan.json").exists() else suite_status(shelf)
    spent = {"slots": overhead(shelf), TUNING: overhead(of_tune) if tuning else None}
    remarked = remarks(shelf) + remarks(of_tune)
    if as_json:
        shown = {"rows": tuning, "slots": spent[TUNING]} if tuning else None
        print(json.dumps({"rows": rows, "slots": spent["slots"], TUNING: shown, "remarks": remarked}, indent=1, ensure_ascii=False))
    elif not quiet:
        show_status(rows, spent["slots"])
        if tuning:
            print("\nTuning:" if rows else "Tuning (the suite itself has not been run here):")
            show_status(tuning, spent[TUNING])
        print("\n".join(remarked), end="\n" if remarked else "")
    done = all(row["ok"] == row["trials"] for row in rows) if rows else not any(row["missing"] for row in tuning)
    broken = any(DAMAGED in row["not_ok"] for row in tuning) or bool(of_tune.torn)
    raise typer.Exit(OK if done and not broken else SOME_FAILED)


def show_status(rows: list[dict[str, Any]], spent: dict[str, Any]) -> None:
    """Print the rows of a suite, or of its tune, and what the slots did."""
    if not rows:
        return
    show_rows(rows, False)
    if spent["not_training_share"] is not None:
        print(
            f"{spent['slot_seconds'] / 3600:.2f} slot hours in {spent['slots']} slots: "
            f"{100 * spent['training_share']:.1f} % training, {100 * spent['evaluation_share']:.1f} % evaluation, "
            f"{100 * spent['overhead_share']:.1f} % start, measurement and waiting between trials."
        )
