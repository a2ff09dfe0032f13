"""Commands that judge results: compare, claims, export."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.options import DEFAULT_RESULTS, OK, SOME_FAILED, Json, Quiet, Results, SuiteName, console, outside_of_data, show_rows
from bench.storage import plain_name

SuiteDir = Annotated[Path, typer.Argument(help="A suite's results: the folder with plan.json and records.")]
All = Annotated[bool, typer.Option("--all", help="List all rows and quantities, not only those that moved.")]


def compare(results_a: SuiteDir, results_b: SuiteDir, as_json: Json = False, everything: All = False, quiet: Quiet = False) -> None:
    """Say which rows of a suite moved beyond noise from A to B, lost their result or changed a count; exit code 1 where any did."""
    from bench.report.compare import compare_results, what_differs, what_was_tested

    lines, differs = compare_results(results_a, results_b), what_differs(results_a, results_b)
    stirred = lines["verdict"].isin(("moved", "counts differ")) | lines["verdict"].str.startswith("lost")
    if as_json:
        _print_json(lines)
    elif not quiet:
        if len(differs):
            console.print("Made differently:")
            show_rows(differs.to_dict("records"), as_json=False)
        shown = lines if everything else lines[stirred | lines["verdict"].str.startswith("no ")]
        if len(shown):
            show_rows([{key: _short(value) for key, value in line.items()} for line in shown.to_dict("records")], as_json=False)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in lines["verdict"].value_counts().items())
        console.print(f"{counts} (rows times quantities; --all lists them).", highlight=False)
        if (said := what_was_tested(lines)) is not None:
            console.print(said, style="yellow", highlight=False, soft_wrap=True)
    raise typer.Exit(SOME_FAILED if stirred.any() else OK)


def claims(suite: SuiteName, results: Results = DEFAULT_RESULTS, as_json: Json = False) -> None:
    """Ask the records what papers claim, and show our audit of the published tables."""
    from bench.report.audit import audit
    from bench.report.claims import answer_claims
    from bench.report.lacking import damage_notes
    from bench.report.loading import load_results

    directory = results / plain_name(suite, "suite")
    results = load_results(directory)
    answers = answer_claims(results.plan, results.records, directory / "records")
    if as_json:
        print(json.dumps({"claims": _plain(answers), "audit": _plain(audit()), "damaged": results.damaged}, indent=1, ensure_ascii=False))
        return
    for note in damage_notes(results.damaged):
        console.print(note, style="red", markup=False, highlight=False, soft_wrap=True)
    columns = ["claim", "answer", "effect", "low", "high", "note"]
    show_rows([{key: _short(line[key]) for key in columns} for line in answers.to_dict("records")], as_json=False)
    show_rows(audit().drop(columns="evidence").to_dict("records"), as_json=False)


def export(
    suite: SuiteName,
    results: Results = DEFAULT_RESULTS,
    out: Annotated[Path | None, typer.Option(help="The zip file; else DIR/SUITE.zip.", metavar="FILE", callback=outside_of_data)] = None,
    quiet: Quiet = False,
) -> None:
    """Pack records, tables, figures, page and what is needed to read and cite them into one zip; damaged files go under `damaged/`.

    Where there is no report, or one that is older than a record, it is made first.
    """
    from bench.report import is_reported, make_report
    from bench.report.export import export as pack
    from bench.report.lacking import damage_notes

    directory, target = results / plain_name(suite, "suite"), out or results / f"{suite}.zip"
    if not is_reported(directory):
        if not quiet:
            console.print(f"{directory}: no report of all these records, it is made first", highlight=False, soft_wrap=True)
        make_report(directory)
    made = pack(directory, target)
    for note in damage_notes(made.damaged):
        console.print(f"{note} In the zip it lies under damaged/.", style="red", markup=False, highlight=False, soft_wrap=True)
    if not quiet:
        console.print(f"{target}: {len(made.names)} files, {target.stat().st_size / 2**20:.1f} MiB", highlight=False, soft_wrap=True)


def _plain(frame: Any) -> list[dict[str, Any]]:
    return json.loads(frame.to_json(orient="records"))


def _print_json(frame: Any) -> None:
    print(json.dumps(_plain(frame), indent=1, ensure_ascii=False))


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return value
