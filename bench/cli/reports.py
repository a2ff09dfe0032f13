"""Commands about what came out: report, reproduce."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli.options import (
    DEFAULT_RESULTS,
    OK,
    SOME_FAILED,
    DataRoot,
    Json,
    Quiet,
    Results,
    SuiteName,
    Weights,
    console,
    outside_of_data,
    show_rows,
)
from bench.storage import plain_name


def report(
    suite: SuiteName,
    results: Results = DEFAULT_RESULTS,
    strict: Annotated[bool, typer.Option(help="Refuse where a planned trial has no result.")] = False,
    primary_only: Annotated[bool, typer.Option(help="Leave out published numbers that were only recalled.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write tables and plots again, from the records alone; exit code 1 where every trial that ran has failed."""
    if not print_report(results / plain_name(suite, "suite"), quiet=quiet, strict=strict, primary_only=primary_only):
        raise typer.Exit(SOME_FAILED)


def print_report(suite_dir: Path, quiet: bool = False, keep_current: bool = False, **options: bool) -> bool:
    """Make the report, print its table, and return whether any trial has a result; with `keep_current`, one that is up to date stays."""
    from bench.report import make_report
    from bench.report.lacking import damage_notes
    from bench.report.tables import to_rich

    made = make_report(suite_dir, keep_current=keep_current, **options)
    for note in damage_notes(made.damaged):
        console.print(note, style="red", markup=False, highlight=False, soft_wrap=True)
    for note in made.schemas:
        console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if not quiet:
        console.print(to_rich(made.table, width=console.width))
        console.print(f"Written to {suite_dir}: {', '.join(sorted(made.files))}", highlight=False, soft_wrap=True)
        for reason in made.not_drawn:
            console.print(f"not drawn: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if made.no_result is not None:
        Console(stderr=True).print(f"Error: {made.no_result}", style="red", markup=False, highlight=False, soft_wrap=True)
    return made.no_result is None


def reproduce(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="Name of a trial, as records and the report's page give it.")],
    results: Results = DEFAULT_RESULTS,
    suite: Annotated[str | None, typer.Option(help="The suite, where several hold the trial.", metavar="NAME")] = None,
    data_root: DataRoot = None,
    weights: Weights = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the new record in this directory.", metavar="DIR", callback=outside_of_data)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a trial again from its record alone, and compare every metric; exit code 0: identical or inside the interval, 1: not.

    In the interval around the recorded value fall 95 % of trials that differ as seeds do, by the spread of the suite's other trials of the
    same tasks. The verdict follows the metrics of the table.
    """
    from bench.reproduce import find_record
    from bench.reproduce import reproduce as run_again

    path = find_record(run_id, results, suite)

    def show(line: dict[str, Any]) -> None:
        if not (quiet or as_json):
            console.print(f"epoch {line['epoch']}: loss {line['loss']:.4f}", highlight=False)

    outcome = run_again(path, data_root=data_root, weights_file=weights, keep=keep, on_epoch=show)
    if as_json:
        print(json.dumps(outcome.to_dict(), indent=1, ensure_ascii=False))
    else:
        _print_reproduction(outcome, quiet)
    raise typer.Exit(OK if outcome.verdict in ("identical", "inside") else SOME_FAILED)


def _print_reproduction(outcome: Any, quiet: bool) -> None:
    """Print the verdict, and unless quiet the metrics of the table, what the others say in sum, and what differs."""
    headline = [metric for metric in outcome.metrics if metric.headline]
    others = [metric for metric in outcome.metrics if not metric.headline]
    if not quiet:
        show_rows([_metric_line(metric) for metric in headline], as_json=False)
        counts = {verdict: sum(metric.verdict == verdict for metric in others) for verdict in ("identical", "inside", "outside", "unknown")}
        console.print(
            "Other metrics: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) + " (--json lists them)."
        )
        for line in outcome.differences:
            meaning = line["meaning"] or "cannot change a result"
            then, now = ("none" if line[when] is None else line[when] for when in ("recorded", "now"))
            text = f"differs: {line['what']}: recorded {then}, now {now}: {meaning}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        if not outcome.differences:
            console.print("Nothing differs in code, versions, data and device.")
    if outcome.reason:
        console.print(f"the new run is {outcome.status_now}: {outcome.reason}", style="red", markup=False, highlight=False, soft_wrap=True)
    for name, why in outcome.damaged.items():
        console.print(f"left out of the spread: {name}: {why}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    spread = f" (spread over seeds: {outcome.seeds} other trials)" if outcome.seeds else ""
    note = {"unknown": " (not identical, and no row has two other seeds, from which an interval could come)"}.get(outcome.verdict, spread)
    console.print(f"{outcome.run_id}: {outcome.verdict}{note}", highlight=False, soft_wrap=True)


def _metric_line(metric: Any) -> dict[str, Any]:
    interval = "" if metric.low is None else f"{metric.low:.3f} to {metric.high:.3f}"
    values = {
        name: "undefined" if value is None else f"{value:.6g}" for name, value in (("recorded", metric.recorded), ("now", metric.now))
    }
    return {"task": metric.task, "metric": metric.metric} | values | {"interval": interval, "verdict": metric.verdict}
