"""Commands about what came out: report."""

from pathlib import Path

from bench.cli.options import DEFAULT_RESULTS, Quiet, Results, SuiteName, console


def report(suite: SuiteName, results: Results = DEFAULT_RESULTS, quiet: Quiet = False) -> None:
    """Write tables and plots again, from the records alone."""
    print_report(results / suite, quiet=quiet)


def print_report(suite_dir: Path, quiet: bool = False, keep_current: bool = False) -> None:
    """Make the report and print its table; with `keep_current`, a report that is up to date stays as it is."""
    from bench.report import make_report
    from bench.report.tables import to_rich

    made = make_report(suite_dir, keep_current=keep_current)
    if not quiet:
        console.print(to_rich(made.table, width=console.width))
        console.print(f"Written to {suite_dir}: {', '.join(sorted(made.files))}", highlight=False, soft_wrap=True)
        for reason in made.not_drawn:
            console.print(f"not drawn: {reason}", style="yellow", markup=False, highlight=False, soft_wrap=True)
