"""From records to what a reader sees: tables, figures and a summary, as often as wanted, without torch or ray.

`stats` turns records into numbers per table row, `tables` prints them, `footnotes` says what must be known beside them, `plots` draws them
(`labels` finds room for the text) and `summary` joins it all. Every number traces to records; nothing is stored that they do not give.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.record import RecordError, load_records, read_plan, write_atomically
from bench.report import plots
from bench.report.curves import draw_training_curves, loss_numbers, seaborn_problem
from bench.report.footnotes import footnotes, partial_mark, planned_records
from bench.report.profiles import with_profiles
from bench.report.stats import plan_tasks, reference_position, row_frame
from bench.report.summary import summary
from bench.report.tables import MIB, MainTable, main_table, to_csv, to_latex, to_markdown

FIGURES = ("pareto_params", "pareto_memory", "rank_curves", "training_curves")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `make_report` made.

    Attributes:
        files: Path per file name.
        table: The main table, for `bench.report.tables.to_rich`.
        not_drawn: Figures that could not be drawn, each with the reason.
        complete: Whether every planned trial has a result.
    """

    files: dict[str, Path]
    table: MainTable
    not_drawn: tuple[str, ...]
    complete: bool


def make_report(suite_dir: Path, *, keep_current: bool = False) -> Report:
    """Make tables, figures and summary of a suite from `plan.json` and `records/`; files of an older report are replaced.

    Args:
        suite_dir: `results/<suite>`.
        keep_current: Draw nothing when the tables come out as they are and no record is younger than the summary, which is written last.

    Raises:
        RecordError: Where the plan or a record cannot be read, or no planned trial has a result yet: run the suite first.
    """
    suite_dir = Path(suite_dir)
    plan, records = read_plan(suite_dir / "plan.json"), load_records(suite_dir / "records")
    records = with_profiles(records, load_records(suite_dir / "profiles"))
    own = planned_records(plan, records)
    if not any(record["status"] == "ok" for record in own):
        reasons = "; ".join(f"{record['run_id']}: {record['status']}" for record in own[:3])
        raise RecordError(
            f"{suite_dir}: no trial of the plan has a result ({len(own)} records{', ' + reasons if reasons else ''}). "
            f"Run `run_suite.py run {plan['suite']}` first."
        )
    rows, tasks, mark = row_frame(plan, records), plan_tasks(plan), partial_mark(plan, records)
    table = main_table(rows, tasks=tasks, title=plan["title"] + mark, footnotes=footnotes(plan, records, rows))
    contents: dict[str, str | bytes] = {
        "table.csv": to_csv(rows),
        "table.md": to_markdown(table),
        "table.tex": to_latex(table, label=f"tab:{plan['suite']}"),
    }
    if keep_current and _is_current(suite_dir, contents):
        present = [name for name in (*contents, "summary.md", *_figure_files()) if (suite_dir / name).exists()]
        return Report(files={name: suite_dir / name for name in present}, table=table, not_drawn=(), complete=not mark)
    drawn, not_drawn = _figures(plan, own, rows, tasks, mark)
    contents |= drawn
    pictures = [f"{name}.png" for name in FIGURES if f"{name}.png" in drawn]
    contents["summary.md"] = summary(plan, records, rows, table, figures=pictures, not_drawn=not_drawn)
    for name in _figure_files():
        if name not in contents:
            (suite_dir / name).unlink(missing_ok=True)
    for name, content in contents.items():
        write_atomically(suite_dir / name, content)
    return Report(files={name: suite_dir / name for name in contents}, table=table, not_drawn=tuple(not_drawn), complete=not mark)


def _figure_files() -> list[str]:
    return [f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "pdf", "csv")]


def _is_current(suite_dir: Path, tables: Mapping[str, str | bytes]) -> bool:
    """Whether the tables on disk are these, and the summary was written after every record."""
    summary_file = suite_dir / "summary.md"
    if not summary_file.exists() or not all((suite_dir / name).exists() for name in tables):
        return False
    written = summary_file.stat().st_mtime
    older = all(path.stat().st_mtime <= written for path in (suite_dir / "records").glob("*.json"))
    return older and all((suite_dir / name).read_text(encoding="utf-8") == text for name, text in tables.items())


def _figures(plan: dict, records: list[dict], rows: pd.DataFrame, tasks: list[str], mark: str) -> tuple[dict[str, str | bytes], list[str]]:
    """Return the figures' files by name, and the reasons of those that cannot be drawn."""
    styles, files, not_drawn = plots.family_styles(rows), {}, []
    position = reference_position(plan)
    for name, cost, scale, cost_title in (
        ("pareto_params", "trainable_params", 1e6, "Trainable parameters with decoders (M, log) ↓"),
        ("pareto_memory", "step_memory_bytes", MIB, "Memory of a training step (MiB, log) ↓"),
    ):
        numbers = plots.pareto_numbers(rows, cost=cost, scale=scale)
        if numbers.empty:
            not_drawn.append(f"{name}: no row has a Δm, since the reference row has no complete seed.")
            continue
        label = plan["rows"][position]["label"]
        figure = plots.draw_pareto(numbers, styles, cost_title=cost_title, reference_label=label, title=plan["title"] + mark)
        files |= _files(name, figure, numbers)
    numbers = plots.curve_numbers(rows, tasks=tasks)
    if numbers.empty:
        not_drawn.append("rank_curves: no method has results at two values of its dial.")
    else:
        files |= _files("rank_curves", plots.draw_rank_curves(numbers, styles, title=plan["title"] + mark), numbers)
    numbers = loss_numbers(plan, records, rows)
    if numbers.empty:
        not_drawn.append("training_curves: no record holds a history of the loss.")
    elif (reason := seaborn_problem()) is not None:
        not_drawn.append(f"training_curves: seaborn cannot be imported: {reason}")
    else:
        files |= _files("training_curves", draw_training_curves(numbers, styles, title=plan["title"] + mark), numbers)
    return files, not_drawn


def _files(name: str, figure: plots.Figure, numbers: pd.DataFrame) -> dict[str, str | bytes]:
    """Return a figure's PNG and PDF, and its numbers as CSV."""
    return {f"{name}.{kind}": content for kind, content in plots.render(figure).items()} | {f"{name}.csv": to_csv(numbers)}
