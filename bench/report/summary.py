"""The summary page: what was run, the table, the figures, what the numbers carry, what failed, and how to run it again.

Findings are sentences chosen by rule from the numbers. Two rows are told apart only by the tests of `bench.report.paired`, and no order is
claimed where there is no test.
"""

import datetime
from collections.abc import Mapping, Sequence

import pandas as pd

from bench.report.commands import report_command, suite_command
from bench.report.footnotes import distinct, planned_records, trial_counts
from bench.report.plots import pareto_numbers
from bench.report.stats import metric_column
from bench.report.tables import MainTable, to_markdown, with_sign
from bench.tasks import TASKS


def summary(
    plan: Mapping,
    records: Sequence[Mapping],
    rows: pd.DataFrame,
    table: MainTable,
    *,
    figures: Sequence[str],
    not_drawn: Sequence[str],
    more: Sequence[str] = (),
) -> str:
    """Return the summary as Markdown.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: As `bench.record.load_records` returns them.
        rows: As `bench.report.stats.row_frame` returns it.
        table: As `bench.report.tables.main_table` returns it.
        figures: Names of the PNG files beside the summary.
        not_drawn: Figures that could not be drawn, each with the reason.
        more: Sections to put after the figures, as Markdown.
    """
    own = planned_records(plan, records)
    images = "\n".join(f"![{name.removesuffix('.png').replace('_', ' ')}]({name})\n" for name in figures)
    parts = [
        to_markdown(table),
        "## What was run\n\n" + _bullets(_run_facts(plan, own)),
        "## What the numbers say\n\n"
        + _how_told_apart(rows)
        + "\n\n"
        + _bullets(findings(rows, [task for task in TASKS if metric_column(task) + "_mean" in rows])),
        "## Figures\n\n" + images + _bullets([f"Not drawn: {reason}" for reason in not_drawn]) + "\n"
        "Each figure is there as PDF too, its numbers as CSV of the same name; `table.csv` holds the raw numbers of the table.\n",
        *more,
        _failures(own),
        "## Commands\n\n" + _commands(plan, own),
    ]
    return "\n".join(part for part in parts if part)


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _how_told_apart(rows: pd.DataFrame) -> str:
    """Say what the intervals are of, and by what rows are told apart, where anything tells them apart."""
    intervals = (rows["seeds_complete"] > 1).any()
    said = "Intervals cover 95 % over seeds, for these validation images" if intervals else "One seed: there are no intervals"
    tested = (rows.filter(regex="_resampled$") != "nothing").to_numpy().any()
    by = "rows are told apart by paired tests, corrected for the number of pairs" if tested else "no rows are tested or told apart"
    return f"{said}; {by}."


def _run_facts(plan: Mapping, own: Sequence[Mapping]) -> list[str]:
    """Say what was run, where and for how long."""
    done, planned = trial_counts(plan, own)
    said = [f"`{part['text']}`." if part["kind"] == "code" else part["text"] for part in paragraphs(plan.get("description") or "")]
    facts = [f"Suite `{plan['suite']}`: {' '.join(said) or plan['title']}"]
    facts.append(f"{done} of {planned} trials have a result; a trial is one training run of one method setting, seed and set of tasks.")
    starts, ends = (_times(own, key) for key in ("trial_start", "end"))
    if starts and ends:
        trials, span = sum(record["timing"].get("total_seconds", 0) for record in own) / 60, (ends[-1] - starts[0]).total_seconds() / 60
        facts.append(
            f"From {starts[0]:%Y-%m-%d %H:%M} to {ends[-1]:%Y-%m-%d %H:%M}: {span:.1f} minutes, holding {trials:.1f} minutes of trials."
        )
    aspects = {
        "Data fingerprint": lambda record: record["data"] and record["data"].get("fingerprint"),
        "Code (hash)": lambda r: r["code_id"],
    }
    keys = {"Device": "device", "Processor": "cpu", "Platform": "platform", "Python": "python", "torch": "torch", "timm": "timm"}
    aspects |= {title: lambda record, key=key: record["env"].get(key) for title, key in keys.items()}
    return facts + [f"{title}: {', '.join(values)}." for title, pick in aspects.items() if (values := distinct(own, pick))]


def paragraphs(text: str) -> list[dict[str, str]]:
    """Split a docstring into paragraphs, each with its `text` on one line and its `kind`: "code" for indented commands, else "text"."""
    parts = [part for part in text.strip("\n").split("\n\n") if part.strip()]
    return [{"text": " ".join(part.split()), "kind": "code" if part.startswith("    ") else "text"} for part in parts]


def _times(own: Sequence[Mapping], key: str) -> list[datetime.datetime]:
    """Return the sorted times of one kind that the records hold."""
    return sorted(datetime.datetime.fromisoformat(record["timing"][key]) for record in own if record["timing"].get(key))


def findings(rows: pd.DataFrame, tasks: Sequence[str]) -> list[str]:
    """Return what the table says, by rule.

    Args:
        rows: As `bench.report.stats.row_frame` returns it.
        tasks: Tasks whose best rows are named.
    """
    ranked = rows[rows["delta_m_mean"].notna()].sort_values("delta_m_mean", ascending=False, kind="stable")
    lines = []
    if len(ranked) > 1:
        lines += _best(ranked)
    lines += _against_reference(ranked[~ranked["is_reference"]])
    for task in tasks:
        lines += _best_of_task(rows, task)
    for title, cost in (("trainable parameters", "trainable_params"), ("step memory", "step_memory_bytes")):
        front = pareto_numbers(rows, cost=cost, scale=1).query("on_front").sort_values("cost")
        if len(front):
            lines.append(f"On the Pareto front of Δm over {title}, by mean, from cheap to dear: {', '.join(front['label'])}.")
    return lines or ["No row has a result that can be compared."]


def _said(row: pd.Series, quantity: str, sign: str = "+") -> str:
    """Name a row with its value and interval, such as "LoRA r=4 (+1.20 [+0.89, +1.51] over seeds, n = 2)"."""
    low, high = row[f"{quantity}_low"], row[f"{quantity}_high"]
    mean, *ends = (with_sign(value, 2, plus=bool(sign)) for value in (row[f"{quantity}_mean"], low, high))
    interval = "" if pd.isna(low) else f" [{', '.join(ends)}]"
    return f"{row['label']} ({mean}{interval}{' over seeds' if interval else ''}, n = {row[f'{quantity}_n']})"


def _best(ranked: pd.DataFrame) -> list[str]:
    """Say which row has the highest delta_m, and which others it cannot be told apart from."""
    best, second = ranked.iloc[0], ranked.iloc[1]
    line = f"Highest mean Δm: {_said(best, 'delta_m')}; next: {_said(second, 'delta_m')}."
    covers = best["delta_m_resampled"]
    if covers == "nothing":
        return [line + " One seed and no per-image sums: no order is claimed."]
    close = [row["label"] for _, row in ranked.iloc[1:].iterrows() if row["delta_m_tied_best"]]
    said = f" Not told apart from it: {', '.join(close)}." if close else " Every other row is told apart from it."
    return [line + said + (" Only images were resampled; another seed may order the rows otherwise." if covers == "images" else "")]


def _against_reference(known: pd.DataFrame) -> list[str]:
    """Group rows by what the corrected test against the reference finds, never by whether an interval of seeds alone holds zero."""
    groups = {
        "better": "Told apart from the reference by the test, better",
        "worse": "Told apart from the reference by the test, worse",
        "not told apart": "Not told apart from the reference by the test",
        "no test": "No test against the reference",
    }
    found = {said: known["label"][known["delta_m_against_reference"] == kind] for kind, said in groups.items()}
    return [f"{said}: {', '.join(labels)}." for said, labels in found.items() if len(labels)]


def _best_of_task(rows: pd.DataFrame, task: str) -> list[str]:
    """Name the row with the best mean of one task's headline metric, and how many rows are not told apart from it."""
    quantity = metric_column(task)
    ranked = rows.dropna(subset=[f"{quantity}_mean"])
    ranked = ranked.sort_values(f"{quantity}_mean", ascending=not TASKS[task].higher_is_better, kind="stable")
    if len(ranked) < 2:
        return []
    best = ranked.iloc[0]
    line = f"Best mean {TASKS[task].title} {TASKS[task].metric_title}: {_said(best, quantity, sign='')}"
    if best[f"{quantity}_resampled"] == "nothing":
        return [line + "."]
    close = int(ranked[f"{quantity}_tied_best"].iloc[1:].sum())
    said = f"{close} of the other {len(ranked) - 1} rows are not told apart from it" if close else "every other row is told apart from it"
    return [f"{line}; {said}."]


def _failures(own: Sequence[Mapping]) -> str:
    """Return the section on trials that did not end well, or nothing."""
    failed = [record for record in own if record["status"] != "ok"]
    if not failed:
        return ""
    lines = [f"`{record['run_id']}`: {record['status']}: {record['reason'].strip().splitlines()[0]}" for record in failed]
    return (
        "## Trials that did not end well\n\n"
        + _bullets(lines)
        + "\nThe records hold the full reasons. `--rerun failed` runs these trials again.\n"
    )


def _commands(plan: Mapping, own: Sequence[Mapping]) -> str:
    """Return the commands that made the records, and those that make everything again."""
    made = list(dict.fromkeys([str(plan.get("command") or ""), *(record["command"] for record in own)]))
    again = [f"{suite_command(plan)}   # runs what has no record yet", f"{report_command(plan)}   # remakes this page"]
    block = "\n".join(["# made by", *filter(None, made), "# again", *again])
    return f"```\n{block}\n```\n"
