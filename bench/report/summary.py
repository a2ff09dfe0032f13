"""The summary page: what was run, the table, the figures, what the numbers carry, what failed, and how to run it again.

Findings are sentences chosen by rule from the numbers. Two rows are told apart only where their intervals mean ± std over seeds do not
touch, and no order is claimed where a row has one seed.
"""

import datetime
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from bench.report.footnotes import distinct, planned_records, trial_counts
from bench.report.plots import pareto_numbers
from bench.report.stats import metric_column
from bench.report.tables import MainTable, to_markdown
from bench.tasks import TASKS


def summary(
    plan: Mapping, records: Sequence[Mapping], rows: pd.DataFrame, table: MainTable, *, figures: Sequence[str], not_drawn: Sequence[str]
) -> str:
    """Return the summary as Markdown.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: As `bench.record.load_records` returns them.
        rows: As `bench.report.stats.row_frame` returns it.
        table: As `bench.report.tables.main_table` returns it.
        figures: Names of the PNG files beside the summary.
        not_drawn: Figures that could not be drawn, each with the reason.
    """
    own = planned_records(plan, records)
    images = "\n".join(f"![{name.removesuffix('.png').replace('_', ' ')}]({name})\n" for name in figures)
    parts = [
        to_markdown(table),
        "## What was run\n\n" + _bullets(_run_facts(plan, own)),
        "## What the numbers say\n\n"
        + "Intervals are mean ± sample standard deviation over seeds; with few seeds they are a rough guide, no test.\n\n"
        + _bullets(findings(rows, [task for task in TASKS if metric_column(task) + "_mean" in rows])),
        "## Figures\n\n" + images + _bullets([f"Not drawn: {reason}" for reason in not_drawn]) + "\n"
        "Each figure is there as PDF too, its numbers as CSV of the same name; `table.csv` holds the raw numbers of the table.\n",
        _failures(own),
        "## Commands\n\n" + _commands(plan, own),
    ]
    return "\n".join(part for part in parts if part)


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _run_facts(plan: Mapping, own: Sequence[Mapping]) -> list[str]:
    """Say what was run, where and for how long."""
    done, planned = trial_counts(plan, own)
    facts = [f"Suite `{plan['suite']}`: {' '.join(str(plan.get('description', '')).split()) or plan['title']}"]
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


def _times(own: Sequence[Mapping], key: str) -> list[datetime.datetime]:
    """Return the sorted times of one kind that the records hold."""
    return sorted(datetime.datetime.fromisoformat(record["timing"][key]) for record in own if record["timing"].get(key))


def findings(rows: pd.DataFrame, tasks: Sequence[str]) -> list[str]:
    """Return what the table says, by rule.

    Args:
        rows: As `bench.report.stats.row_frame` returns it.
        tasks: Tasks whose best rows are named.
    """
    others = rows[rows["delta_m_mean"].notna() & ~rows["is_reference"]].sort_values("delta_m_mean", ascending=False, kind="stable")
    lines = []
    if len(others) > 1:
        lines += _best(others)
    if len(others):
        lines += _against_reference(others)
    for task in tasks:
        lines += _best_of_task(rows, task)
    for title, cost in (("trainable parameters", "trainable_params"), ("step memory", "step_memory_bytes")):
        front = pareto_numbers(rows, cost=cost, scale=1).query("on_front").sort_values("cost")
        if len(front):
            lines.append(f"On the Pareto front of Δm over {title}, by mean, from cheap to dear: {', '.join(front['label'])}.")
    return lines or ["No row has a result that can be compared."]


def _interval(row: pd.Series, quantity: str) -> tuple[float, float] | None:
    """Return mean - std and mean + std, or None where fewer than two seeds give no spread."""
    mean, std = row[f"{quantity}_mean"], row[f"{quantity}_std"]
    return None if pd.isna(std) else (mean - std, mean + std)


def _said(row: pd.Series, quantity: str, sign: str = "+") -> str:
    """Name a row with its value and spread, such as "LoRA r=4 (+1.20 ± 0.31, n = 2)"."""
    std = row[f"{quantity}_std"]
    spread = "" if pd.isna(std) else f" ± {std:.2f}"
    return f"{row['label']} ({row[f'{quantity}_mean']:{sign}.2f}{spread}, n = {row[f'{quantity}_n']})"


def _separable(one: pd.Series, other: pd.Series, quantity: str) -> bool | None:
    """Return whether the intervals of two rows do not touch; None where one of them has no spread."""
    first, second = _interval(one, quantity), _interval(other, quantity)
    if first is None or second is None:
        return None
    return first[0] > second[1] or second[0] > first[1]


def _best(ranked: pd.DataFrame) -> list[str]:
    """Say which row but the reference has the highest delta_m, and which others it cannot be told apart from."""
    best, *others = (row for _, row in ranked.iterrows())
    line = f"Highest mean Δm but for the reference: {_said(best, 'delta_m')}; next: {_said(others[0], 'delta_m')}."
    if _interval(best, "delta_m") is None:
        return [line + " One seed gives no spread, so no order is claimed."]
    close = [row["label"] for row in others if not _separable(best, row, "delta_m")]
    if close:
        return [line + f" By mean ± std over seeds it is not separated from: {', '.join(close)}."]
    return [line + " Its interval mean ± std over seeds touches no other row's."]


def _against_reference(known: pd.DataFrame) -> list[str]:
    """Group rows by where their interval lies against zero, the reference."""
    groups: dict[str, list[str]] = {"above": [], "below": [], "around": []}
    for _, row in known.iterrows():
        interval = _interval(row, "delta_m")
        if interval is not None:
            groups["above" if interval[0] > 0 else "below" if interval[1] < 0 else "around"].append(row["label"])
    texts = {"above": "wholly above 0 (the reference's mean)", "below": "wholly below 0 (the reference's mean)", "around": "includes 0"}
    lines = [f"Interval mean ± std of Δm {texts[place]}: {', '.join(labels)}." for place, labels in groups.items() if labels]
    alone = [row["label"] for _, row in known.iterrows() if _interval(row, "delta_m") is None]
    return lines + ([f"One seed only, no interval: {', '.join(alone)}."] if alone else [])


def _best_of_task(rows: pd.DataFrame, task: str) -> list[str]:
    """Name the row with the best mean of one task's headline metric, and how many rows are not separated from it."""
    quantity = metric_column(task)
    ranked = rows.dropna(subset=[f"{quantity}_mean"])
    ranked = ranked.sort_values(f"{quantity}_mean", ascending=not TASKS[task].higher_is_better, kind="stable")
    if len(ranked) < 2:
        return []
    best = ranked.iloc[0]
    line = f"Best mean {TASKS[task].title} {TASKS[task].metric_title}: {_said(best, quantity, sign='')}"
    if _interval(best, quantity) is None:
        return [line + "."]
    close = sum(not _separable(best, row, quantity) for _, row in ranked.iloc[1:].iterrows())
    said = f"{close} of the other {len(ranked) - 1} rows are not separated from it" if close else "no other row's interval touches its"
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
    again = [f"{plan['command'] or 'python run_suite.py run ' + plan['suite']}   # runs what has no record yet"]
    results = re.search(r" --results[ =]\S+", str(plan["command"] or ""))
    again += [f"python run_suite.py report {plan['suite']}{results[0] if results else ''}   # remakes this page"]
    block = "\n".join(["# made by", *filter(None, made), "# again", *again])
    return f"```\n{block}\n```\n"
