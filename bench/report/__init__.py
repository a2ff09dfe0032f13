"""From records to what a reader sees: tables, figures and a summary, as often as wanted, without torch or ray.

`stats` turns records into numbers per table row, `tables` prints them, `footnotes` says what must be known beside them, `plots` draws them
in one `style`, `panels` reads the pictures that trials kept, `summary` joins it all as Markdown and `page` as one HTML file. Every number
traces to records; nothing is stored that they do not give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.record import RecordError, write_atomically
from bench.report.evidence import FILES as EVIDENCE
from bench.report.evidence import evidence_files
from bench.report.footnotes import footnotes, partial_mark, planned_records
from bench.report.lacking import schema_notes
from bench.report.latex import to_latex
from bench.report.loading import Results, load_results
from bench.report.page import PAGE, make_page
from bench.report.plots import figure_files, make_figures
from bench.report.published import against_published_reference, is_comparable
from bench.report.seeds import scored_seed_frame
from bench.report.stats import column_pairs, plan_tasks, row_frame
from bench.report.summary import findings, summary
from bench.report.tables import MainTable, main_table, to_csv, to_markdown

SHOWN_EVIDENCE = {
    "claims.md": "Claims of papers, asked of these records",
    "published.md": "Ours beside published",
    "audit.md": "Audit of the published tables",
    "pairs.md": "Tests between rows: every row against the best and the reference",
    "iso.md": "Methods at equal cost: equal parameters, equal memory",
    "fronts.md": "Pareto fronts: who is on them and how probably, knee, hypervolume; robust companions of Δm",
}
"""Files of the evidence that page and summary show, with their headings."""


FAILED_AT_MOST = 20
"""Failed trials that the terminal names one by one."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `make_report` made.

    Attributes:
        files: Path per file name.
        table: The main table, for `bench.report.tables.to_rich`.
        not_drawn: Figures that could not be drawn, each with the reason.
        complete: Whether every planned trial has a result.
        schemas: Sentences on records and plan of older schemas, and on what launches set aside.
        no_result: Where trials were run and none of them has a result, what happened to them; else None.
        damaged: Why, per file of the suite that could not be used.
    """

    files: dict[str, Path]
    table: MainTable
    not_drawn: tuple[str, ...]
    complete: bool
    no_result: str | None = None
    schemas: Sequence[str] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)


def make_report(suite_dir: Path, *, keep_current: bool = False, strict: bool = False, primary_only: bool = False) -> Report:
    """Make tables, figures and summary of a suite from `plan.json` and `records/`; files of an older report are replaced.

    Args:
        suite_dir: `results/<suite>`.
        keep_current: Draw nothing when the tables come out as they are and no record is younger than the summary, which is written last.
        strict: Refuse where a planned trial has no result.
        primary_only: Leave out published numbers that were only recalled.

    Raises:
        RecordError: Where the plan cannot be read, or no planned trial has a record yet: run the suite first. With `strict`, where any
            has none or ended badly, or a file is damaged; else damaged files are named and count as missing.
    """
    suite_dir = Path(suite_dir)
    results = load_results(suite_dir)
    plan, records, damaged = results.plan, results.records, results.damaged
    own, tasks, mark = planned_records(plan, records), plan_tasks(plan), partial_mark(plan, records)
    _demand_records(suite_dir, results, own, mark, strict=strict)
    said = {"no_result": _no_result(suite_dir, plan, own), "schemas": schema_notes(plan, own, results.set_aside), "damaged": damaged}
    published = against_published_reference if is_comparable(plan, records) else None
    pairs = column_pairs(plan, records, scored_seed_frame(plan, records, damaged), suite_dir / "records")
    rows = row_frame(plan, records, published=published, damaged=damaged, pairs=pairs)
    tuning = results.tuning if plan.get("tuned") else None
    notes = footnotes(plan, records, rows, tuning=tuning, damaged=damaged, set_aside=results.set_aside)
    table = main_table(rows, tasks=tasks, title=plan["title"] + mark, footnotes=notes)
    contents: dict[str, str | bytes] = {
        "table.csv": to_csv(rows),
        "table.md": to_markdown(table),
        "table.tex": to_latex(table, label=f"tab:{plan['suite']}"),
    }
    contents |= evidence_files(plan, records, rows, table, pairs, primary_only=primary_only)
    if keep_current and _is_current(suite_dir, contents):
        present = [name for name in (*contents, "summary.md", PAGE, *figure_files()) if (suite_dir / name).exists()]
        files = {name: suite_dir / name for name in present}
        return Report(files=files, table=table, not_drawn=(), complete=not mark, **said)
    tried = None if results.tuning is None else suite_dir / "tuning.json"
    drawn = make_figures(plan, own, rows, title=plan["title"] + mark, directory=suite_dir / "records", tuning=tried)
    contents |= drawn.files
    pictures = [f"{name}.png" for name in drawn.names]
    found = findings(rows, tasks)
    evidence = {heading: str(contents[name]) for name, heading in SHOWN_EVIDENCE.items() if name in contents}
    contents[PAGE] = make_page(plan, own, rows, table, drawn=drawn, contents=contents, findings=found, evidence=evidence, damaged=damaged)
    more = [text.replace("# ", "## ", 1) for text in evidence.values()]
    contents["summary.md"] = summary(plan, records, rows, table, figures=pictures, not_drawn=drawn.not_drawn, more=more)
    for name, content in contents.items():
        write_atomically(suite_dir / name, content)
    for name in {*figure_files(), *EVIDENCE} - set(contents):
        (suite_dir / name).unlink(missing_ok=True)
    files = {name: suite_dir / name for name in contents}
    return Report(files=files, table=table, not_drawn=tuple(drawn.not_drawn), complete=not mark, **said)


def _demand_records(suite_dir: Path, results: Results, own: Sequence[Mapping], mark: str, *, strict: bool) -> None:
    """Refuse where no trial has a record, or where --strict wants more than there is."""
    suite, broken = results.plan["suite"], "; ".join(f"damaged: {name}: {why}" for name, why in list(results.damaged.items())[:3])
    if not own:
        raise RecordError(
            f"{suite_dir}: no trial of the plan has a result (no records{', ' + broken if broken else ''}). "
            f"Run `run_suite.py run {suite}` first."
        )
    if strict and (mark or broken):
        said = f"{mark}{'; ' if mark and broken else ' '}{broken}".rstrip()
        raise RecordError(f"{suite_dir}:{said}. Run `run_suite.py run {suite}`, or report without --strict.")


def _no_result(suite_dir: Path, plan: Mapping, own: Sequence[Mapping]) -> str | None:
    """Say what happened where no trial has a result, None where one has."""
    if any(record["status"] == "ok" for record in own):
        return None
    failed = "; ".join(f"{record['run_id']}: {record['status']}: {_first_line(record['reason'])}" for record in own[:FAILED_AT_MOST])
    more = f"; and {len(own) - FAILED_AT_MOST} more" if len(own) > FAILED_AT_MOST else ""
    return (
        f"{suite_dir}: no trial of the plan has a result. Trials that did not end well: {failed}{more}. "
        f"Run `run_suite.py run {plan['suite']} --rerun failed` once the cause is mended."
    )


def _first_line(reason: str | None) -> str:
    lines = (reason or "").strip().splitlines()
    return lines[0].rstrip(".") if lines else "no reason recorded"


def is_reported(suite_dir: Path) -> bool:
    """Whether there is a report that was written after every record and profile."""
    if not all((suite_dir / name).exists() for name in ("summary.md", "table.csv", PAGE)):
        return False
    written = (suite_dir / "summary.md").stat().st_mtime
    made_from = [*(suite_dir / "records").glob("*.json"), *(suite_dir / "profiles").glob("*.json"), *suite_dir.glob("tuning.json")]
    return all(path.stat().st_mtime <= written for path in made_from)


def _is_current(suite_dir: Path, tables: Mapping[str, str | bytes]) -> bool:
    """Whether the tables on disk are these, and the summary was written after every record."""
    if not is_reported(suite_dir) or not all((suite_dir / name).exists() for name in tables):
        return False
    return all((suite_dir / name).read_text(encoding="utf-8") == text for name, text in tables.items())
