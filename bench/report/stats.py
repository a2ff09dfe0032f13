"""From numbers per seed to the machine-readable table: mean, spread and 95 % interval over seeds, tied-best marks, ranks as intervals."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.busy import TIMES
from bench.record import RecordError
from bench.report.family import families
from bench.report.intervals import LEVEL, bounded_interval, delta_m_interval, positive_interval
from bench.report.paired import (
    Pairs,
    Replicates,
    compare_rows,
    delta_m_replicates,
    image_replicates,
    rank_intervals,
    tied_with_best,
    typical_detectable,
)
from bench.report.pareto import pareto_front
from bench.report.profiles import PROFILED
from bench.report.seeds import (
    EXACT_COSTS,
    HELD_OUT,
    MEASURED_COSTS,
    delta_m,
    metric_column,
    plan_tasks,
    reference_means,
    reference_position,
    scored_seed_frame,
    seed_frame,
    seed_matrix,
)
from bench.report.uncertainty import joint_ends, seed_costs
from bench.schema import RANGES
from bench.tasks import TASKS

__all__ = [
    "EXACT_COSTS", "HELD_OUT", "MEASURED_COSTS", "column_pairs", "delta_m", "metric_column", "pareto_front", "plan_tasks",
    "reference_position", "row_frame", "seed_frame",
]  # fmt: skip

ROUND_OFF = 1e-9
"""Relative changes in percent below this are rounding, as of the reference against its own mean."""

METRIC_RANGES = {metric_column(name): RANGES[task.unit] for name, task in TASKS.items()}
"""Values that a headline metric can take, per column."""


def row_frame(
    plan: Mapping,
    records: Sequence[Mapping],
    records_dir: Path | None = None,
    *,
    published: Callable | None = None,
    damaged: Mapping[str, str] | None = None,
    pairs: Mapping[str, Pairs] | None = None,
) -> pd.DataFrame:
    """Summarise each plan row over its complete seeds: the machine-readable table.

    Args:
        plan, records: As `bench.record.read_plan` and `load_records` return them.
        records_dir: Where the records' per-image sums lie, for paired tests over images too; None: tests over seeds alone.
        published: `bench.report.published.against_published_reference` where published references are comparable, for columns
            `delta_m_published_reference_...`.
        damaged: Why, per file of the suite that could not be used, to say so of seeds that do not count.
        pairs: What `column_pairs` returned for these records, where that is known already.

    Returns:
        One line a plan row, families kept together in the order of the plan. Columns label, method, title, kind, family, dial, dial_value,
        is_reference, seeds_planned, seeds_complete, missing (what keeps seeds from counting, or empty); for every headline metric, delta_m
        and measured cost `<quantity>_mean`, `_std` (sample, n - 1; missing for one seed), `_n`, `_low` and `_high` (95 % interval; of
        delta_m with the reference's spread in it, and missing for the reference itself, which is 0 by definition; of others
        missing where all seeds agree exactly; a time that was measured once for all seeds has that of its measurement,
        `bench.report.times`), for times `_joint_low` and `_joint_high` too (95 % for all rows at once); for metrics and delta_m
        `<quantity>_tied_best` (best, or not told apart from the best), `<quantity>_resampled`, and `<quantity>_detectable` (the difference
        that the tests of the column find with 80 % probability, median over its pairs); rank_low, rank_high by delta_m;
        delta_m_against_reference (what the test against the reference finds); `<quantity>_apart_from_single` (whether the test tells a
        multi-task row apart from its single-task counterpart, see `single_task_counterparts`; missing without a test);
        mean_rank (over tasks and the seeds that all rows share) and iqm_change (interquartile mean over tasks and seeds of the relative
        change against the reference, percent); one column for each count. `<quantity>_held_out_...` where every model of a row has them.

    Raises:
        ValueError: Where seeds of a row disagree on a parameter count.
    """
    seeds = scored_seed_frame(plan, records, damaged)
    shown = [metric_column(task) for task in plan_tasks(plan)] + ["delta_m"]
    more = [] if published is None else ["delta_m_published_reference"]
    for name in more:
        seeds[name] = published(seeds)
    held_out = [f"{name}{HELD_OUT}" for name in shown if f"{name}{HELD_OUT}" in seeds]
    lines = [
        {"family": family} | _row_line(plan, seeds, position, shown, held_out, more)
        for position, family in enumerate(families(plan["rows"]))
    ]
    frame = pd.DataFrame(lines).astype(dict.fromkeys(EXACT_COSTS, "Int64") | {"dial_value": "Float64"})
    pairs = column_pairs(plan, records, seeds, records_dir) if pairs is None else pairs
    compared = _comparisons(plan, frame, pairs) | _robust(plan, seeds) | _time_ends(seeds, frame)
    return _by_family(pd.concat([frame, pd.DataFrame(compared, index=frame.index)], axis=1))  # at once: there may be hundreds of columns


def _by_family(frame: pd.DataFrame) -> pd.DataFrame:
    """Bring the rows of a family together, at the place of its first."""
    order = {family: position for position, family in reversed(list(enumerate(frame["family"])))}
    return frame.sort_values("family", key=lambda families: families.map(order), kind="stable", ignore_index=True)


def _row_line(
    plan: Mapping, seeds: pd.DataFrame, position: int, shown: Sequence[str], held_out: Sequence[str], more: Sequence[str]
) -> dict[str, object]:
    """Summarise one row by itself: what it is, its seeds, and each quantity over its complete seeds."""
    row, planned = plan["rows"][position], seeds[seeds["row"] == position]
    own = planned[planned["complete"]]
    line = _row_identity(plan, position) | _row_state(row, planned) | _counts(row, own)
    for name in (*shown, *more, *held_out, *MEASURED_COSTS):
        values = own[name].dropna().astype(float).to_numpy()
        measured_once = name in PROFILED and len(own) and own["profiled"].all()
        line |= _summary_of(name, values[:1] if measured_once else values)
    for suffix in ("", HELD_OUT) if held_out else ("",):
        line |= _delta_m_ends(plan, seeds, position, suffix)
    if position == reference_position(plan):
        line |= {f"{name}_mean": 0.0 for name in (*shown, *held_out) if name.startswith("delta_m") and line[f"{name}_n"]}
    return line


def _counts(row: Mapping, own: pd.DataFrame) -> dict[str, int | None]:
    """Return the counts that a row's seeds must agree on."""
    found = {}
    for name in EXACT_COSTS:
        counts = own[name].unique()
        if len(counts) > 1:
            raise RecordError(
                f"row {row['label']!r}: seeds disagree on {name} ({sorted(counts)}); they were made by different code. Rerun the row."
            )
        found[name] = int(counts[0]) if len(counts) else None
    return found


def _summary_of(name: str, values: np.ndarray) -> dict[str, float | int]:
    """Return mean, sample standard deviation, n and interval of a quantity over seeds, see `bench.report.intervals`."""
    if name in MEASURED_COSTS:
        low, high = positive_interval(values)
    else:
        low, high = bounded_interval(values, *METRIC_RANGES.get(name.removesuffix(HELD_OUT), (-np.inf, np.inf)))
    if len(values) and np.ptp(values) == 0:  # a number that all seeds agree on has no spread to make an interval of
        low = high = np.nan
    mean = values.mean() if len(values) else np.nan
    std = values.std(ddof=1) if len(values) > 1 else np.nan
    return {f"{name}_mean": mean, f"{name}_std": std, f"{name}_n": len(values), f"{name}_low": low, f"{name}_high": high}


def _time_ends(seeds: pd.DataFrame, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the ends of the times' simultaneous intervals; times measured once get their own ends in the frame, in place."""
    found = {}
    for name in TIMES:
        cost = seed_costs(seeds, name, len(frame))
        for place, error in enumerate(cost.errors):
            if error is not None:
                frame.loc[place, [f"{name}_low", f"{name}_high"]] = error.ends(cost.values[place][0])
        found[f"{name}_joint_low"], found[f"{name}_joint_high"] = joint_ends(cost)
    return found


def _delta_m_ends(plan: Mapping, seeds: pd.DataFrame, position: int, suffix: str) -> dict[str, float]:
    """Return the interval of a row's delta_m, the reference's spread carried; missing for the reference itself."""
    name, reference = f"delta_m{suffix}", reference_position(plan)
    low = high = np.nan
    if reference is not None and position != reference:
        columns = [metric_column(task) + suffix for task in plan["rows"][reference]["tasks"]]
        values = [
            seeds.loc[(seeds["row"] == place) & seeds["complete"], columns].dropna().to_numpy(dtype=float)
            for place in (position, reference)
        ]
        if len(values[1]) and values[1].mean(axis=0).all():  # undefined against a reference of 0
            signs = np.array([1 if TASKS[task].higher_is_better else -1 for task in plan["rows"][reference]["tasks"]])
            low, high, _ = delta_m_interval(values[0], values[1], signs) if len(values[0]) else (np.nan, np.nan, np.nan)
    return {f"{name}_low": low, f"{name}_high": high}


def column_pairs(plan: Mapping, records: Sequence[Mapping], seeds: pd.DataFrame, records_dir: Path | None = None) -> dict[str, Pairs]:
    """Compare all rows of the plan in every headline metric and delta_m.

    Args:
        plan, records, records_dir: As `row_frame` takes them.
        seeds: As `bench.report.seeds.scored_seed_frame` returns it.

    Returns:
        Per quantity the pairs, rows in the order of the plan.
    """
    drawn = Replicates() if records_dir is None else image_replicates(plan, records, seeds, records_dir)
    rows = len(plan["rows"])
    replicates = {metric_column(task): drawn.scores.get(task) for task in plan_tasks(plan)}
    replicates["delta_m"] = delta_m_replicates(drawn.scores, reference_means(plan, seeds))
    return {name: compare_rows(seed_matrix(seeds, name, rows), own, drawn.images) for name, own in replicates.items()}


def _comparisons(plan: Mapping, frame: pd.DataFrame, compared: Mapping[str, Pairs]) -> dict[str, object]:
    """Return tied-best marks of the metrics and delta_m, and the ranks by delta_m."""
    directions = {metric_column(task): TASKS[task].higher_is_better for task in plan_tasks(plan)} | {"delta_m": True}
    found: dict[str, object] = {}
    counterparts = single_task_counterparts(plan)
    for name, pairs in compared.items():
        means, higher = frame[f"{name}_mean"].to_numpy(dtype=float), directions[name]
        found[f"{name}_tied_best"] = tied_with_best(pairs, means, higher_is_better=higher)
        found[f"{name}_resampled"] = pairs.resampled
        found[f"{name}_detectable"] = typical_detectable(pairs)
        found[f"{name}_apart_from_single"] = _told_apart(pairs, counterparts)
        if name == "delta_m":
            low, high = rank_intervals(pairs, means, higher_is_better=True)
            found |= {"rank_low": pd.array(low, dtype="Int64"), "rank_high": pd.array(high, dtype="Int64")}
            found["delta_m_against_reference"] = _against(pairs, reference_position(plan))
    return found


def single_task_counterparts(plan: Mapping) -> list[int | None]:
    """Return, per multi-task row of the plan, the row that trains one model a task: of its own configuration, else the reference."""
    rows, reference = plan["rows"], reference_position(plan)
    singles = {row["cell_id"]: position for position, row in enumerate(rows) if row["kind"] == "single_task"}
    fallback = reference if reference in singles.values() else None
    return [singles.get(row["cell_id"], fallback) if row["kind"] == "multi_task" else None for row in rows]


def _told_apart(pairs: Pairs, others: Sequence[int | None]) -> np.ndarray:
    """Say of each row whether the corrected test tells it apart from another one; None without a test."""
    adjusted = [np.nan if other is None else pairs.adjusted[position, other] for position, other in enumerate(others)]
    return np.array([None if np.isnan(p) else bool(p < 1 - LEVEL) for p in adjusted], dtype=object)


def _against(pairs: Pairs, reference: int | None) -> np.ndarray:
    """Say of each row what the corrected test against the reference finds: better, worse, "not told apart", "no test"; None for itself."""
    found = np.full(len(pairs.difference), None, dtype=object)
    if reference is None:
        return found
    better, known = pairs.better(higher_is_better=True), ~np.isnan(pairs.difference[:, reference])
    found[known] = np.where(np.isnan(pairs.adjusted[known, reference]), "no test", "not told apart")
    found[better[:, reference]], found[better[reference]] = "better", "worse"
    found[reference] = None
    return found


def _robust(plan: Mapping, seeds: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return mean ranks over tasks and the seeds that all rows with a result share (NaN where they share none), and interquartile means
    of the relative changes against the reference.
    """
    rows, reference = len(plan["rows"]), reference_means(plan, seeds)
    ranks, changes = [], []
    ranked = np.zeros(rows, dtype=bool)
    ranked[seeds.loc[seeds["complete"], "row"].unique()] = True
    for task in plan_tasks(plan):
        values = pd.DataFrame(seed_matrix(seeds, metric_column(task), rows))
        ranks.append(values.rank(ascending=not TASKS[task].higher_is_better).to_numpy())
        if reference.get(task):
            sign = 1 if TASKS[task].higher_is_better else -1
            changes.append(100 * sign * (values.to_numpy() / reference[task] - 1))
    stacked = np.concatenate(ranks, axis=1)
    shared = ~np.isnan(stacked[ranked]).any(axis=0)  # ranks among fewer rows are better by being fewer
    mean_rank = np.where(ranked & shared.any(), stacked[:, shared].sum(axis=1) / max(shared.sum(), 1), np.nan)
    iqm = np.full(rows, np.nan)
    if changes and len(changes) == len(reference):
        iqm = np.array([interquartile_mean(line[~np.isnan(line)]) for line in np.concatenate(changes, axis=1)])
        iqm = np.where(np.abs(iqm) < ROUND_OFF, 0.0, iqm)
    return {"mean_rank": mean_rank, "iqm_change": iqm}


def interquartile_mean(values: np.ndarray) -> float:
    """Return the mean of the middle half of the values, those on the quartiles counted in part; NaN for none."""
    values = np.sort(values)
    if not len(values):
        return np.nan
    edges = np.arange(len(values) + 1)
    inside = np.clip(np.minimum(edges[1:], 0.75 * len(values)) - np.maximum(edges[:-1], 0.25 * len(values)), 0, None)
    return float(values @ inside / inside.sum())


def _row_identity(plan: Mapping, position: int) -> dict:
    """Name a row by its plan."""
    row = plan["rows"][position]
    method = row["method"]
    return {
        "label": row["label"],
        "method": method["name"],
        "title": method["title"],
        "kind": row["kind"],
        "single_path": False if row["kind"] == "single_task" else method.get("single_path"),
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
