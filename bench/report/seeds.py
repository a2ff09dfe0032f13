"""From records to numbers per table row and seed: metrics, costs and delta_m.

delta_m is the multi-task score of Vandenhende et al. (arXiv 2004.13379), as MTLoRA (arXiv 2403.20320) prints it: the mean over tasks of the
relative change of the headline metric against single-task full fine-tuning, in percent, with the sign turned where lower is better.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bench.busy import TIMES
from bench.record import RecordError
from bench.report.times import error_of_sum, time_error
from bench.tasks import TASKS

EXACT_COSTS = ("trainable_params", "trainable_params_without_decoders")
"""Counts that every seed of a row must agree on."""

MEASURED_COSTS = (
    "flops_per_image",
    "merged_flops_per_image",
    "inference_seconds",
    "merged_inference_seconds",
    "stored_bytes",
    "step_memory_bytes",
    "step_seconds",
    "train_seconds",
)
"""Costs given as mean and spread over seeds."""

HELD_OUT = "_held_out"
"""Ends the columns of what the epoch best on a split held out from training scores on the validation split."""


def metric_column(task: str) -> str:
    """Return the column that holds a task's headline metric, such as `semseg_miou`."""
    return f"{task}_{TASKS[task].metric}"


def delta_m(values: Mapping[str, float], reference: Mapping[str, float]) -> float | None:
    """Return the mean relative change over tasks against a reference, in percent, higher is better.

    Args:
        values: Headline metric per task.
        reference: Headline metric per task of the reference; its tasks are the ones that are averaged.

    Returns:
        The mean, or None where a task of the reference has no value, there is no reference, or one is exactly 0, see `zero_references`.
    """
    if not reference or any(values.get(task) is None or not reference[task] for task in reference):
        return None
    changes = [(1 if TASKS[task].higher_is_better else -1) * (values[task] - reference[task]) / reference[task] for task in reference]
    return 100 * sum(changes) / len(changes)


def seed_frame(plan: Mapping, records: Sequence[Mapping], damaged: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Join plan rows and records: one line a table row and seed.

    A seed counts only when every task of its row has an "ok" record with a headline metric; else its line holds no numbers, and `problems`
    says why.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: As `bench.record.load_records` returns them; those that no row names are left out.
        damaged: Why, per file of the suite that could not be used (`bench.report.loading`): its trial was run.

    Returns:
        Columns row (position in the plan), seed, complete (bool), problems (list of str), `<task>_<metric>` (percent or
        degrees), and costs: over the models of the row, parameters, FLOPs, bytes stored, step seconds and train seconds are sums, step
        memory is the maximum.

    Raises:
        ValueError: Where a record contradicts the plan: launch the suite again, so that the plan is written anew.
    """
    by_id = {record["run_id"]: record for record in records}
    lines = []
    for position, row in enumerate(plan["rows"]):
        found = [by_id[run_id] for run_id in row["run_ids"] if run_id in by_id]
        for record in found:
            if record["cell_id"] != row["cell_id"] or record["seed"] not in row["seeds"]:
                raise RecordError(
                    f"record {record['run_id']}: cell_id {record['cell_id']}, seed {record['seed']}; its row {row['label']!r} in the plan: "
                    f"cell_id {row['cell_id']}, seeds {row['seeds']}. Launch the suite again: it writes the plan anew."
                )
        for seed in row["seeds"]:
            models = [record for record in found if record["seed"] == seed]
            lines.append({"row": position, "seed": seed} | _seed_line(row, models, _lost(row, seed, damaged or {})))
    return pd.DataFrame(lines)


def _lost(row: Mapping, seed: int, damaged: Mapping[str, str]) -> dict[str, str]:
    """Return, per task, what is wrong with the damaged record of a row's trial of a seed; a run id names tasks (or "all") and seed."""
    found = {}
    for run_id in row["run_ids"]:
        why = damaged.get(f"records/{run_id}.json")
        if why is not None and re.search(rf"-s{seed}(-|$)", run_id):
            own = [task for task in row["tasks"] if f"-{task}-s" in run_id] if row["kind"] == "single_task" else row["tasks"]
            no_number = re.search(r"(-?\w+) is no JSON", why)  # NaN or Infinity, which `bench.record` refuses
            found |= dict.fromkeys(own, f"{no_number[1]} in its record" if no_number else "damaged record")
    return found


def _seed_line(row: Mapping, models: Sequence[Mapping], lost: Mapping[str, str]) -> dict:
    """Return metrics and costs of one row and seed, or what is missing of them."""
    metrics: dict[str, float] = {}
    failed = [model for model in models if model["status"] != "ok"]
    problems = [_about(model["tasks"], row, model["status"]) for model in failed]
    covered = {task for model in models for task in model["tasks"]}
    absent = [(task, lost.get(task, "not run")) for task in row["tasks"] if task not in covered]
    problems += [_about([task for task, said in absent if said == what], row, what) for what in dict.fromkeys(said for _, said in absent)]
    usable = [model for model in models if model["status"] == "ok"]
    for model in usable:
        for task in model["tasks"]:
            if task in metrics:
                raise RecordError(
                    f"row {row['label']!r} names two records of {task} with seed {model['seed']}; one is the most. Correct the plan."
                )
            metrics[task] = model["metrics"][task][TASKS[task].metric]
    problems += [f"{task} {TASKS[task].metric} NaN" for task, value in metrics.items() if value is None]
    if problems:
        return {"complete": False, "problems": problems}
    line = {metric_column(task): metrics[task] for task in row["tasks"]} | _costs(usable) | _held_out(usable, row["tasks"])
    return {"complete": True, "problems": []} | line


def _held_out(models: Sequence[Mapping], tasks: Sequence[str]) -> dict[str, float]:
    """Return the metrics at the epoch that was best on the held-out split, or nothing unless every model of the row has them."""
    chosen = [model.get("best_on_held_out") for model in models]
    if not all(chosen):
        return {}
    found = {task: values.get(TASKS[task].metric) for block in chosen for task, values in block["metrics"].items()}
    return {metric_column(task) + HELD_OUT: found[task] for task in tasks} if all(found.get(t) is not None for t in tasks) else {}


def _about(tasks: Sequence[str], row: Mapping, what: str) -> str:
    """Name the tasks that something happened to, unless it is all of the row's."""
    return what if set(tasks) == set(row["tasks"]) else f"{', '.join(tasks)} {what}"


def _costs(models: Sequence[Mapping]) -> dict[str, object]:
    """Join the costs of the models that one row and seed consists of; a run of too few steps has no step time.

    With each time goes, as `<time>_error`, what its measurement leaves open (`bench.report.times.TimeError`, or None).
    """
    steps = [model["cost"]["step_seconds"]["median"] for model in models]
    return {
        "profiled": all("profile" in model["cost"] for model in models),
        "trainable_params": sum(model["params"]["trainable"] for model in models),
        "trainable_params_without_decoders": sum(model["params"]["trainable_without_decoders"] for model in models),
        "flops_per_image": sum(model["cost"]["flops_per_image"] for model in models),
        "merged_flops_per_image": sum(model["cost"]["merged_flops_per_image"] for model in models),
        "inference_seconds": sum(model["cost"]["inference_seconds"]["median"] for model in models),
        "merged_inference_seconds": sum(model["cost"]["merged_inference_seconds"]["median"] for model in models),
        "stored_bytes": sum(model["cost"]["stored_bytes"] for model in models),
        "step_memory_bytes": max(model["cost"]["step_memory_bytes"]["total"] for model in models),
        "step_seconds": None if None in steps else sum(steps),
        "train_seconds": sum(model["timing"]["train_seconds"] for model in models),
    } | {f"{name}_error": _time_error([model["cost"][name] for model in models]) for name in TIMES}


def _time_error(measured: Sequence[Mapping]) -> object:
    """Return what the measured times of the models of a row and seed leave open about their sum."""
    if any(time["median"] is None for time in measured):
        return None
    return error_of_sum([time["median"] for time in measured], [time_error(time) for time in measured])


def plan_tasks(plan: Mapping) -> list[str]:
    """Return the tasks of a plan's rows in the order of the task table."""
    return [task for task in TASKS if any(task in row["tasks"] for row in plan["rows"])]


def reference_position(plan: Mapping) -> int | None:
    """Return the position of the row that delta_m divides by, or None where the plan names none.

    A single-task and a multi-task row of one configuration share their cell id; then the single-task one is the reference.
    """
    matches = [position for position, row in enumerate(plan["rows"]) if row["cell_id"] == plan["reference_cell_id"]]
    single = [position for position in matches if plan["rows"][position]["kind"] == "single_task"]
    return next(iter(single or matches), None)


def scored_seed_frame(plan: Mapping, records: Sequence[Mapping], damaged: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return `seed_frame` with every metric and cost as a column and delta_m of every line against the reference's means over seeds.

    Where records hold them, the metrics at the epoch that was best on a split held out from training stand in columns
    `<quantity>_held_out` (measured on the validation split), delta_m among them, against the reference's own numbers so chosen.
    """
    seeds = seed_frame(plan, records, damaged)
    quantities = [metric_column(task) for task in plan_tasks(plan)]
    wanted = (*quantities, *EXACT_COSTS, *MEASURED_COSTS, "profiled", *(f"{name}_error" for name in TIMES))
    seeds = seeds.reindex(columns=[*seeds.columns, *(name for name in wanted if name not in seeds)])
    reference = reference_means(plan, seeds)
    seeds["delta_m"] = delta_m_column(seeds, reference)
    if any(name.endswith(HELD_OUT) for name in seeds):
        seeds = seeds.reindex(columns=[*seeds.columns, *(f"{name}{HELD_OUT}" for name in quantities if f"{name}{HELD_OUT}" not in seeds)])
        seeds[f"delta_m{HELD_OUT}"] = delta_m_column(seeds, reference_means(plan, seeds, suffix=HELD_OUT), suffix=HELD_OUT)
    return seeds


def reference_means(plan: Mapping, seeds: pd.DataFrame, *, suffix: str = "") -> dict[str, float]:
    """Return the reference row's headline metric per task, mean over its complete seeds; empty where it has none."""
    position = reference_position(plan)
    own = seeds[(seeds["row"] == position) & seeds["complete"]]
    tasks = plan["rows"][position]["tasks"] if position is not None and len(own) else []
    means = {task: own[metric_column(task) + suffix].astype(float).mean() for task in tasks}
    return {} if any(np.isnan(mean) for mean in means.values()) else means


def zero_references(reference: Mapping[str, float]) -> list[str]:
    """List the tasks whose reference is exactly 0: no change is relative to it, so that delta_m is undefined for every row."""
    return [task for task, mean in reference.items() if mean == 0]


def why_no_delta_m(rows: pd.DataFrame, *, suffix: str = "") -> str | None:
    """Say why no row of the machine-readable table has a delta_m, None where nothing forbids it."""
    reference = rows[rows["is_reference"]]
    if reference.empty:
        return "the plan names no reference row"
    reference = reference.iloc[0]
    if not reference["seeds_complete"]:
        return "its reference row has no complete seed"
    zero = [task for task in TASKS if reference.get(f"{metric_column(task)}{suffix}_mean") == 0]
    metrics = ", ".join(f"{TASKS[task].title} {TASKS[task].metric_title}" for task in zero)
    return f"undefined, for no change is relative to 0, which is {metrics} of the reference “{reference['label']}”" if zero else None


def delta_m_column(seeds: pd.DataFrame, reference: Mapping[str, float], *, suffix: str = "") -> pd.Series:
    """Return delta_m of every line against fixed reference means, NaN where something is missing or a reference is 0."""

    def of_line(line: pd.Series) -> float:
        values = {task: line[metric_column(task) + suffix] for task in reference if pd.notna(line[metric_column(task) + suffix])}
        result = delta_m(values, reference)
        return np.nan if result is None else result

    return seeds.apply(of_line, axis=1).astype(float)


def seed_matrix(seeds: pd.DataFrame, quantity: str, rows: int) -> np.ndarray:
    """Return a quantity as (R, S): a line a row of the plan, a column a seed, NaN where a seed does not count."""
    complete = seeds[seeds["complete"]]
    table = complete.pivot(index="row", columns="seed", values=quantity).reindex(index=range(rows))
    return table.to_numpy(dtype=float, na_value=np.nan)
