"""From records to numbers: a seed's metrics and costs per table row, their mean and spread over seeds, delta_m, Pareto fronts.

delta_m is the multi-task score of Vandenhende et al. (arXiv 2004.13379), as MTLoRA (arXiv 2403.20320) prints it: the mean over tasks of the
relative change of the headline metric against single-task full fine-tuning, in percent, with the sign turned where lower is better.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # scipy.stats would need a sound torch wherever one is installed

from bench.record import RecordError
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


def metric_column(task: str) -> str:
    """Return the column that holds a task's headline metric, such as `semseg_miou`."""
    return f"{task}_{TASKS[task].metric}"


def delta_m(values: Mapping[str, float], reference: Mapping[str, float]) -> float | None:
    """Return the mean relative change over tasks against a reference, in percent, higher is better.

    Args:
        values: Headline metric per task.
        reference: Headline metric per task of the reference; its tasks are the ones that are averaged.

    Returns:
        The mean, or None where a task of the reference has no value, a reference is zero, or there is no reference.
    """
    if not reference or any(values.get(task) is None or not reference[task] for task in reference):
        return None
    changes = [(1 if TASKS[task].higher_is_better else -1) * (values[task] - reference[task]) / reference[task] for task in reference]
    return 100 * sum(changes) / len(changes)


def pareto_front(cost: Sequence[float], score: Sequence[float]) -> np.ndarray:
    """Mark the points that no other point dominates, cost to be low and score to be high, in O(n log n).

    A point is dominated where another one is no worse in both and better in one; equal points stand or fall together.

    Args:
        cost: (n,) costs; NaN means unknown.
        score: (n,) scores; NaN means unknown.

    Returns:
        (n,) bool, False where cost or score is unknown.
    """
    cost, score = np.asarray(cost, dtype=np.float64), np.asarray(score, dtype=np.float64)
    front = np.zeros(len(cost), dtype=bool)
    known = np.flatnonzero(~(np.isnan(cost) | np.isnan(score)))
    best, best_cost = -np.inf, np.nan
    for index in known[np.lexsort((-score[known], cost[known]))]:
        if score[index] > best or (score[index] == best and cost[index] == best_cost):
            front[index], best, best_cost = True, score[index], cost[index]
    return front


def seed_frame(plan: Mapping, records: Sequence[Mapping]) -> pd.DataFrame:
    """Join plan rows and records: one line a table row and seed.

    A seed counts only when every task of its row has an "ok" record with a headline metric; else its line holds no numbers, and `problems`
    says why.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: As `bench.record.load_records` returns them; those that no row names are left out.

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
            lines.append({"row": position, "seed": seed} | _seed_line(row, models))
    return pd.DataFrame(lines)


def _seed_line(row: Mapping, models: Sequence[Mapping]) -> dict:
    """Return metrics and costs of one row and seed, or what is missing of them."""
    metrics: dict[str, float] = {}
    failed = [model for model in models if model["status"] != "ok"]
    problems = [_about(model["tasks"], row, model["status"]) for model in failed]
    covered = {task for model in models for task in model["tasks"]}
    absent = [task for task in row["tasks"] if task not in covered]
    problems += [_about(absent, row, "not run")] if absent else []
    usable = [model for model in models if model["status"] == "ok"]
    for model in usable:
        for task in model["tasks"]:
            if task in metrics:
                raise RecordError(
                    f"row {row['label']!r} names two records of {task} with seed {model['seed']}; one is the most. Correct the plan."
                )
            metrics[task] = model["metrics"][task][TASKS[task].metric]
    problems += [f"{task} without {TASKS[task].metric}" for task, value in metrics.items() if value is None]
    if problems:
        return {"complete": False, "problems": problems}
    return {"complete": True, "problems": []} | {metric_column(task): metrics[task] for task in row["tasks"]} | _costs(usable)


def _about(tasks: Sequence[str], row: Mapping, what: str) -> str:
    """Name the tasks that something happened to, unless it is all of the row's."""
    return what if set(tasks) == set(row["tasks"]) else f"{', '.join(tasks)} {what}"


def _costs(models: Sequence[Mapping]) -> dict[str, float | None]:
    """Join the costs of the models that one row and seed consists of; a run of too few steps has no step time."""
    steps = [model["cost"]["step_seconds"]["median"] for model in models]
    return {
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
    }


def row_frame(plan: Mapping, records: Sequence[Mapping]) -> pd.DataFrame:
    """Summarise each plan row over its complete seeds: the machine-readable table.

    Args:
        plan: As `bench.record.read_plan` returns it.
        records: As `bench.record.load_records` returns them.

    Returns:
        One line a plan row, families kept together in the order of the plan. Columns label, method, title, kind, family, dial, dial_value,
        is_reference, seeds_planned, seeds_complete, missing (what keeps seeds from counting, or empty); for every headline metric, delta_m
        and measured cost `<quantity>_mean`, `_std` (sample, n - 1; missing for one seed), `_n`, and `_low` and `_high`, the 95 % interval
        of the mean (Student's t over seeds; missing for one seed); one column for each count.

    Raises:
        ValueError: Where seeds of a row disagree on a parameter count.
    """
    seeds = seed_frame(plan, records)
    quantities = [metric_column(task) for task in plan_tasks(plan)]
    seeds = seeds.reindex(columns=[*seeds.columns, *(name for name in (*quantities, *EXACT_COSTS, *MEASURED_COSTS) if name not in seeds)])
    seeds["delta_m"] = _delta_m_column(plan, seeds)
    lines = []
    for position, row in enumerate(plan["rows"]):
        own = seeds[(seeds["row"] == position) & seeds["complete"]]
        line = _row_identity(plan, position) | _row_state(row, seeds[seeds["row"] == position])
        for name in EXACT_COSTS:
            counts = own[name].unique()
            if len(counts) > 1:
                raise RecordError(
                    f"row {row['label']!r}: seeds disagree on {name} ({sorted(counts)}); they were made by different code. Rerun the row."
                )
            line[name] = int(counts[0]) if len(counts) else None
        for name in (*quantities, "delta_m", *MEASURED_COSTS):
            values = own[name].dropna().astype(float)
            low, high = t_interval(values)
            line |= {f"{name}_mean": values.mean(), f"{name}_std": values.std(ddof=1), f"{name}_n": len(values)}
            line |= {f"{name}_low": low, f"{name}_high": high}
        lines.append(line)
    frame = pd.DataFrame(lines).astype(dict.fromkeys(EXACT_COSTS, "Int64") | {"dial_value": "Float64"})
    order = {family: position for position, family in reversed(list(enumerate(frame["family"])))}
    return frame.sort_values("family", key=lambda families: families.map(order), kind="stable", ignore_index=True)


def t_interval(values: pd.Series, level: float = 0.95) -> tuple[float, float]:
    """Return Student's interval of the mean of values that are drawn alike, NaN with fewer than two."""
    if len(values) < 2:
        return np.nan, np.nan
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


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


def _delta_m_column(plan: Mapping, seeds: pd.DataFrame) -> pd.Series:
    """Return delta_m of every line against the means over seeds of the reference row."""
    position = reference_position(plan)
    own = seeds[(seeds["row"] == position) & seeds["complete"]]
    tasks = plan["rows"][position]["tasks"] if position is not None and len(own) else []
    reference = {task: float(own[metric_column(task)].mean()) for task in tasks}

    def of_line(line: pd.Series) -> float:
        values = {task: line[metric_column(task)] for task in reference if pd.notna(line[metric_column(task)])}
        result = delta_m(values, reference)
        return np.nan if result is None else result

    return seeds.apply(of_line, axis=1).astype(float)


def _row_identity(plan: Mapping, position: int) -> dict:
    """Name a row; a family is a method in one training mode, so that LoRA per task and shared LoRA are two."""
    row = plan["rows"][position]
    method = row["method"]
    modes = {other["kind"] for other in plan["rows"] if other["method"]["name"] == method["name"]}
    mode = "" if len(modes) == 1 else (", single-task" if row["kind"] == "single_task" else ", multi-task")
    return {
        "label": row["label"],
        "method": method["name"],
        "title": method["title"],
        "kind": row["kind"],
        "family": method["title"] + mode,
        "dial": method["dial"],
        "dial_value": method["dial_value"],
        "is_reference": position == reference_position(plan),
    }


def _row_state(row: Mapping, lines: pd.DataFrame) -> dict:
    """Say how many seeds of a row count, and what the others lack (each reason once, with the seeds that it touches)."""
    reasons: dict[str, list[str]] = {}
    for line in lines.itertuples():
        for problem in line.problems:
            reasons.setdefault(problem, []).append(str(line.seed))
    missing = "; ".join(f"{problem} (seed {', '.join(where)})" for problem, where in reasons.items())
    return {"seeds_planned": len(row["seeds"]), "seeds_complete": int(lines["complete"].sum()), "missing": missing}
