"""Pareto fronts of a cost against a score, with what few seeds leave open: who is on the front, how much it covers, where it bends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.report.intervals import LEVEL, moderated_means, t_quantile
from bench.report.seeds import reference_position, seed_matrix
from bench.report.uncertainty import Costs, joint_ends, log_errors, redraw, redraw_costs, seed_costs, seed_values

DRAWS = 2000
BOOTSTRAP_SEED = 0
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A cost axis.

    Attributes:
        column: Of the seed frame; in the row frame a count's column, or a measured cost without `_mean`.
        scale: What the number is divided by.
        title: Its label, with unit.
    """

    column: str
    scale: float
    title: str


AXES: Mapping[str, Axis] = {
    "params": Axis(column="trainable_params", scale=1e6, title="Trainable parameters with decoders (M)"),
    "stored": Axis(column="stored_bytes", scale=MIB, title="Stored beside the backbone (MiB)"),
    "memory": Axis(column="step_memory_bytes", scale=MIB, title="Memory of a training step (MiB)"),
    "step_time": Axis(column="step_seconds", scale=1e-3, title="Time of a training step (ms)"),
    "flops": Axis(column="flops_per_image", scale=1e9, title="Forward pass, unmerged (GFLOPs / image)"),
    "merged_flops": Axis(column="merged_flops_per_image", scale=1e9, title="Forward pass, merged (GFLOPs / image)"),
    "inference_time": Axis(column="inference_seconds", scale=1e-3, title="Inference, unmerged (ms / image)"),
    "merged_inference_time": Axis(column="merged_inference_seconds", scale=1e-3, title="Inference, merged (ms / image)"),
}
"""Axes by short name, which fronts are drawn over; no row costs nothing there."""


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
    order = known[np.lexsort((-score[known], cost[known]))]
    sorted_cost, sorted_score = cost[order], score[order]
    best_before = np.append(-np.inf, np.maximum.accumulate(sorted_score)[:-1])[: len(order)]
    better = (sorted_score > best_before) | (np.arange(len(order)) == 0)
    holder = np.maximum.accumulate(np.where(better, np.arange(len(order)), 0))  # who set the best score so far
    front[order] = better | ((sorted_score == best_before) & (sorted_cost == sorted_cost[holder]))
    return front


def front_probability(cost: Costs, score: Sequence[np.ndarray], *, draws: int = DRAWS) -> np.ndarray:
    """Return how probable each row is to be on the front, given seeds and measurements: how often it is when true means are drawn.

    Scores of a seed are drawn together (`redraw`), costs independently of each other (`redraw_costs`).

    Args:
        cost: The rows' costs.
        score: Per row its scores over seeds, aligned as `redraw` takes them.
        draws: How often.

    Returns:
        (R,) shares; NaN for a row without cost, or with fewer than two scores: its own spread is unknown.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    costs, scores = redraw_costs(cost, generator, draws), redraw(score, generator, draws)
    share = np.mean([pareto_front(c, s) for c, s in zip(costs, scores, strict=True)], axis=0) if len(score) else np.empty(0)
    unknown = np.isnan(costs[0]) | np.array([(~np.isnan(own)).sum() < 2 for own in score], dtype=bool)
    return np.where(unknown, np.nan, share)


def hypervolume(cost: Sequence[float], score: Sequence[float], *, reference: tuple[float, float]) -> float:
    """Return the area between the front and a reference point, cost counted in decades (log10).

    Args:
        cost: (n,) positive costs; NaN means unknown.
        score: (n,) scores; NaN means unknown.
        reference: Highest cost and lowest score that count; points beyond add nothing.
    """
    cost, score = np.asarray(cost, dtype=float), np.asarray(score, dtype=float)
    front = pareto_front(cost, score)
    front[front] = (cost[front] < reference[0]) & (score[front] > reference[1])
    order = np.argsort(cost[front])
    steps = np.log10(np.append(cost[front][order], reference[0]))
    best = np.maximum.accumulate(score[front][order]) if front.any() else np.empty(0)
    return float(np.diff(steps) @ (best - reference[1]))


def hypervolume_interval(
    cost: Costs, score: Sequence[np.ndarray], *, reference: tuple[float, float], level: float = LEVEL
) -> tuple[float, float]:
    """Return an interval that holds the hypervolume of the true means with at least `level`, NaN where every score has one seed.

    A front of noisy means covers too much, for the best of several flatters; quantiles of drawn fronts are biased the same way once more,
    and turned round (basic bootstrap) or shifted they still miss their level, by simulation. But the volume grows with every score and
    shrinks with every cost, so that its values at the lower and at the upper ends of simultaneous intervals (Bonferroni over all means)
    enclose the true one, whatever the rows are. That is sure and wide.

    Args:
        cost: The rows' costs.
        score: Per row its scores over seeds; one value borrows the spread of the others.
        reference: As `hypervolume` takes it; it may be chosen from the same numbers.
        level: Coverage.
    """
    if all(len(own) < 2 for own in score):
        return np.nan, np.nan
    scored = sum(len(own) > 0 for own in score)
    spread = int((log_errors(cost)[1] > 0).sum())
    means, error, df = moderated_means(score)
    half = t_quantile(df, 1 - (1 - level) / (scored + spread)) * error
    cheap, dear = joint_ends(cost, level, others=scored)
    return hypervolume(dear, means - half, reference=reference), hypervolume(cheap, means + half, reference=reference)


def knee(cost: Sequence[float], score: Sequence[float]) -> int | None:
    """Return the index of the front's knee: the point farthest above the chord from its cheapest to its dearest point.

    Cost is counted in decades, both axes are scaled to the front's extent. None where the front has fewer than three points or none lies
    above the chord.
    """
    cost, score = np.asarray(cost, dtype=float), np.asarray(score, dtype=float)
    front = np.flatnonzero(pareto_front(cost, score))
    front = front[np.argsort(cost[front], kind="stable")]
    if len(np.unique(cost[front])) < 3:
        return None
    x, y = np.log10(cost[front]), score[front]
    height = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    return int(front[height.argmax()]) if height.max() > 1e-9 else None


def front_frame(plan: Mapping, seeds: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return the front of delta_m over one axis.

    Args:
        plan: As `bench.record.read_plan` returns it.
        seeds: As `bench.report.seeds.scored_seed_frame` returns it.
        axis: A key of `AXES`.

    Returns:
        One line a row of the plan that has both, in its order: label, cost (divided by the axis' scale), delta_m, n, on_front (by the
        means), front_probability, knee.
    """
    rows, chosen = len(plan["rows"]), AXES[axis]
    cost, score = seed_costs(seeds, chosen.column, rows), seed_values(seeds, "delta_m", rows)
    reference = reference_position(plan)
    means = [cost.means, np.array([own.mean() if len(own) else np.nan for own in score])]
    if reference is not None and not np.isnan(means[1][reference]):
        means[1][reference] = 0.0  # its mean is 0 by definition, not up to rounding
    bend = knee(*means)
    frame = pd.DataFrame(
        {
            "label": [row["label"] for row in plan["rows"]],
            "cost": means[0] / chosen.scale,
            "delta_m": means[1],
            "n": [len(own) for own in score],
            "on_front": pareto_front(*means),
            "front_probability": front_probability(cost, list(seed_matrix(seeds, "delta_m", rows))),
            "knee": [position == bend for position in range(rows)],
        }
    )
    return frame.dropna(subset=["cost", "delta_m"]).reset_index(drop=True)


def front_summary(plan: Mapping, seeds: pd.DataFrame) -> pd.DataFrame:
    """Return, per axis, the hypervolume of the front with its interval and reference point, and the knee.

    Returns:
        Columns axis, title, hypervolume (percent of delta_m times decades of cost), low, high (at least 95 %), reference_cost (the
        dearest row, in the axis' unit), reference_delta_m (the worst row), knee (label or missing), on_front (labels from cheap to dear).
    """
    lines, rows = [], len(plan["rows"])
    for name, axis in AXES.items():
        front = front_frame(plan, seeds, name)
        if front.empty:
            continue
        corner = (float(front["cost"].max()), float(front["delta_m"].min()))
        cost = seed_costs(seeds, axis.column, rows)
        scaled = Costs(values=[own / axis.scale for own in cost.values], errors=cost.errors)
        low, high = hypervolume_interval(scaled, seed_values(seeds, "delta_m", rows), reference=corner)
        lines.append(
            {
                "axis": name,
                "title": axis.title,
                "hypervolume": hypervolume(front["cost"], front["delta_m"], reference=corner),
                "low": low,
                "high": high,
                "reference_cost": corner[0],
                "reference_delta_m": corner[1],
                "knee": next(iter(front.loc[front["knee"], "label"]), None),
                "on_front": "; ".join(front[front["on_front"]].sort_values("cost")["label"]),
            }
        )
    return pd.DataFrame(lines)
