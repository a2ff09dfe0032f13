"""The command `tune`."""

from typing import Annotated, Any

import typer
from rich.console import Console

from bench.cli.options import OK, SOME_FAILED, Json, SuiteName, end_interrupted, load_suite, parse_seeds, show_rows
from bench.cli.running import Running, with_running
from bench.imports import imports_without


@with_running
def tune(
    suite: SuiteName,
    budget: Annotated[int, typer.Option(help="Settings that each row tries; a larger one extends what is there.", min=1)],
    seeds: Annotated[str, typer.Option(help="Seeds of each setting's trials; their scores are averaged.")] = "0",
    held_out: Annotated[float, typer.Option(help="Share of the training split to score on; val is never read.")] = 0.1,
    asha: Annotated[bool, typer.Option("--asha", help="Stop poor settings early, by ASHA within each row.")] = False,
    searcher: Annotated[
        str, typer.Option(help="halton: the same quasi-random points for every row; optuna: each row its own study.")
    ] = "halton",
    only: Annotated[str | None, typer.Option(help="Tune only rows whose label matches; the tune is then incomplete.")] = None,
    as_json: Json = False,
    *,
    running: Running,
) -> None:
    """Try the same number of settings for every row, scored on held-out training images; `run SUITE --tuned` then uses the best."""
    from bench.config import HeldOutConfig

    with imports_without("wandb"):
        from bench.tuning.launch import Options, tune_suite
    from bench.tuning.plan import Protocol

    protocol = Protocol(budget=budget, seeds=parse_seeds(seeds), held_out=HeldOutConfig(fraction=held_out), asha=asha, searcher=searcher)
    chosen, options = load_suite(suite, running.data_root, None, running.weights), Options(**running.settings())
    try:
        outcome = tune_suite(chosen, protocol, options, **running.places(), only=only)
    except KeyboardInterrupt:
        end_interrupted(running.quiet)
    show(outcome, as_json=as_json, verbose=running.verbose, quiet=running.quiet)
    raise typer.Exit(OK if all(row["complete"] for row in outcome["rows"]) else SOME_FAILED)


def show(outcome: dict[str, Any], *, as_json: bool, verbose: bool, quiet: bool) -> None:
    """Print each row's choice, and flag what lies at the edge of its space or is incomplete; `verbose` lists every setting first."""
    if verbose and not quiet and not as_json:
        show_rows([line for row in outcome["rows"] for line in setting_lines(row)], as_json)
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


def setting_lines(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a line of the terminal's table for each setting of a row."""
    return [
        {
            "row": row["label"],
            "values": ", ".join(f"{name} {value:g}" for name, value in setting["values"].items()),
            "status": setting["status"],
            "score": setting["score"],
        }
        for setting in row["settings"]
    ]


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
