"""What a reader of the page must know first, by rule: what was compared, on what data, how sure one can be, how to run it again."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from bench.report.commands import row_command, suite_command, trial_command
from bench.report.footnotes import detectable_note, distinct, trial_counts
from bench.report.lacking import DAMAGED_AT_MOST, damage_notes
from bench.report.stats import plan_tasks, reference_position
from bench.tasks import TASKS

_VALUES_AT_MOST = 6
"""Values of a dial that are listed one by one."""


def facts(plan: Mapping, records: Sequence[Mapping], rows: pd.DataFrame, damaged: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Return the questions of a reader with their answers; an answer that starts with "$ " is a command.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: Records of the plan.
        rows: As `bench.report.stats.row_frame` returns it.
        damaged: Why, per file of the suite that could not be used.
    """
    return [
        ("What was compared", _compared(plan, rows)),
        ("On what data", _data(records)),
        ("How sure one can be", _certainty(plan, records, rows, damaged)),
        ("How to run it again", _again(plan)),
    ]


def _compared(plan: Mapping, rows: pd.DataFrame) -> list[str]:
    """Name families with their dials, tasks and the reference."""
    names = []
    for family, own in rows.groupby("family", sort=False):
        values = sorted(own["dial_value"].dropna().astype(float).unique())
        dial = own["dial"].iloc[0]
        listed = ", ".join(f"{value:g}" for value in values)
        if len(values) > _VALUES_AT_MOST:
            listed = f"{values[0]:g} to {values[-1]:g}, {len(values)} values"
        several = f" ({str(dial).replace('_', ' ')} {listed})" if len(values) > 1 else ""
        names.append(f"{family}{several}" if several or len(own) > 1 else own["label"].iloc[0])
    shown = [TASKS[name] for name in plan_tasks(plan)]
    tasks = ", ".join(
        f"{task.title} ({task.metric_title}, {task.unit}, {'higher' if task.higher_is_better else 'lower'} is better)" for task in shown
    )
    position = reference_position(plan)
    answers = [f"{len(rows)} settings: {'; '.join(names)}.", f"Tasks: {tasks}."]
    if position is not None:
        label = plan["rows"][position]["label"]
        answers.append(
            f"Δm is the mean over tasks of the relative change against “{label}”, trained by this suite, in percent; positive is better."
        )
    return answers


def _data(records: Sequence[Mapping]) -> list[str]:
    """Say what was trained on, with which backbone and recipe."""
    usable = [record for record in records if record["status"] == "ok"]

    def of(*path: str) -> str:
        def pick(record: Mapping) -> object:
            value: object = record["config"]
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            return value

        return ", ".join(distinct(usable, pick)) or "not recorded"

    synthetic = "synthetic" in of("data", "source")
    counts = distinct(usable, lambda record: f"{record['data']['n_train']} training and {record['data']['n_val']} validation images")
    answers = [
        f"Data set: {of('data', 'source')}; {'; '.join(counts) or 'no trial ended well'}; {of('recipe', 'image_size')} pixels a side."
    ]
    if synthetic:
        answers.append("Images and labels are rendered: this says how the pipeline works, and nothing about the methods on photographs.")
    answers.append(f"Backbone: {of('backbone', 'name')}, weights: {of('backbone', 'weights')}.")
    answers.append(
        f"Training: {of('recipe', 'epochs')} epochs, batch {of('recipe', 'batch_size')}, peak learning rate {of('recipe', 'peak_lr')}, "
        f"{of('recipe', 'precision')}. The result is the last epoch's."
    )
    return answers


def _certainty(plan: Mapping, records: Sequence[Mapping], rows: pd.DataFrame, damaged: Mapping[str, str]) -> list[str]:
    """Say how many seeds there are, what is missing, and where numbers beside each other were not made alike."""
    done, planned = trial_counts(plan, records)
    seeds = sorted({seed for row in plan["rows"] for seed in row["seeds"]})
    fewest, most = rows["seeds_complete"].min(), rows["seeds_complete"].max()
    number = f"{most} {'seed' if most == 1 else 'seeds'} a row" if fewest == most else f"{fewest} to {most} seeds a row"
    answers = [f"{done} of {planned} trials have a result; {number} (planned: {', '.join(map(str, seeds))})."]
    if most < 2:
        answers.append("One seed gives no interval: no order of rows can be claimed from it.")
    else:
        answers.append(
            "Intervals in table and plots are 95 % t intervals over seeds, for these validation images"
            f"{'; with so few seeds they are wide' if most < 5 else ''}. " + _tests(rows)
        )
        answers += detectable_note(rows)
    failed = [record for record in records if record["status"] != "ok"]
    if failed:
        named = "; ".join(f"{record['run_id']} ({record['status']})" for record in failed[:8])
        answers.append(f"{len(failed)} trials did not end well: {named}{'; …' if len(failed) > 8 else ''}. Their seeds do not count.")
    answers += damage_notes(damaged, DAMAGED_AT_MOST)
    aspects: dict[str, Callable[[Mapping], object]] = {
        "versions of the code": lambda record: record["code_id"],
        "devices": lambda record: record["env"].get("device"),
        "data sets": lambda record: (record["data"] or {}).get("fingerprint"),
    }
    mixed = [f"{len(values)} {name}" for name, pick in aspects.items() if len(values := distinct(records, pick)) > 1]
    if mixed:
        answers.append(f"Careful: the trials mix {', '.join(mixed)}.")
    devices = ", ".join(distinct(records, lambda record: record["env"].get("device"))) or "not recorded"
    return [*answers, f"Device: {devices}. Costs in seconds hold for it alone."]


def _tests(rows: pd.DataFrame) -> str:
    """Say by what rows are told apart, and what chance that counts."""
    kinds = set(rows.filter(regex="_resampled$").iloc[0]) - {"nothing"}
    if not kinds:
        return "No rows are tested against each other: no two share two seeds."
    counted = {"seeds and images": "seeds and validation images", "seeds": "seeds alone, for these images", "images": "images alone"}
    covers = " or, by column, ".join(said for kind, said in counted.items() if kind in kinds)
    return (
        f"Rows are told apart by paired tests, Holm-corrected within a column, not by whether intervals overlap; chance counted: {covers}. "
        "Ranks are given as intervals."
    )


def _again(plan: Mapping) -> list[str]:
    """Give the command of the whole, and say where those of rows and trials are."""
    return [
        "Everything, or what is missing of it:",
        f"$ {suite_command(plan)}",
        "One row, by its name in the column Method (on a screen, the row's number opens the command with the name in it):",
        f"$ {row_command(plan, 'METHOD')}",
        "One trial, from its record, and whether it comes out the same:",
        f"$ {trial_command(plan, 'RUN_ID')}",
    ]
