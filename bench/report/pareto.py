"""Pareto fronts of a cost against a score, with what few seeds leave open: who is on the front, how much it covers, where it bends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.report.intervals import LEVEL, moderated, t_quantile
from bench.report.seeds import EXACT_COSTS, reference_position

DRAWS = 2000
BOOTSTRAP_SEED = 0
MIB = 2**20
FARTHEST = np.log(1000)
"""A drawn cost lies within this factor of the mean (as a logarithm): the tails of t with one degree of freedom would overflow."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A cost that a front can be drawn over: its column of the seed frame, what it is divided by, and its title with unit."""

    cost: str
    scale: float
    title: str


AXES: Mapping[str, Axis] = {
    "params": Axis(cost="trainable_params", scale=1e6, title="Trainable parameters with decoders (M)"),
    "stored": Axis(cost="stored_bytes", scale=MIB, title="Stored beside the backbone (MiB)"),
    "memory": Axis(cost="step_memory_bytes", scale=MIB, title="Memory of a training step (MiB)"),
    "step_time": Axis(cost="step_seconds", scale=1e-3, title="Training step (ms)"),
    "flops": Axis(cost="flops_per_image", scale=1e9, title="Forward pass of one image, unmerged (GFLOPs)"),
    "merged_flops": Axis(cost="merged_flops_per_image", scale=1e9, title="Forward pass of one image, merged (GFLOPs)"),
    "inference_time": Axis(cost="inference_seconds", scale=1e-3, title="Inference of one image, unmerged (ms)"),
    "merged_inference_time": Axis(cost="merged_inference_seconds", scale=1e-3, title="Inference of one image, merged (ms)"),
}
"""Axes by short name."""


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


def _means(values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows' (R,) means, their moderated standard errors and degrees of freedom, borrowed by rows of one value (see `redraw`)."""
    n = np.array([len(own) for own in values])
    means = np.array([np.mean(own) if len(own) else np.nan for own in values])
    variance = np.array([np.var(own, ddof=1) if len(own) > 1 else np.nan for own in values])
    variance, df = moderated(variance, np.maximum(n - 1.0, 0.0))
    several = n > 1
    if several.any():
        variance, df = np.where(several, variance, variance[several].mean()), np.where(several, df, df[several].min())
    else:
        variance, df = np.zeros(len(n)), np.ones(len(n))
    return means, np.sqrt(variance / np.maximum(n, 1)), df


def redraw(values: Sequence[np.ndarray], generator: np.random.Generator, draws: int) -> np.ndarray:
    """Draw the rows' true means, as few seeds leave them open: Student's t around each mean, with its moderated standard error.

    That is the posterior of the means under flat priors, and its quantiles are the ends of the t interval; resampled values of two seeds
    would be far too sure. Variances are moderated over rows as for the tests (`bench.report.intervals.moderated`).

    Args:
        values: Per row its values over seeds; none gives NaN. A row of one seed borrows the mean variance of the rows of several, with the
            fewest degrees of freedom among them; where there are none it stays as it is.
        generator: Source of chance.
        draws: D.

    Returns:
        (D, R) means.
    """
    means, error, df = _means(values)
    return means + generator.standard_t(df, size=(draws, len(means))) * error


def _settled(cost: np.ndarray) -> bool:
    """Whether nothing is open about a row's cost: known once, or all seeds agree on it, or it has no logarithm."""
    return len(cost) < 2 or np.ptp(cost) == 0 or np.min(cost) <= 0


def redraw_costs(cost: Sequence[np.ndarray], generator: np.random.Generator, draws: int) -> np.ndarray:
    """Draw true costs (D, R): `redraw` of the logarithms, for costs are positive; a cost known once, or on which all seeds agree, stays."""
    drawn = np.tile([own[0] if len(own) and _settled(own) else np.nan for own in cost], (draws, 1)).astype(float)
    spread = [position for position, own in enumerate(cost) if not _settled(own)]
    if spread:
        centre = np.array([np.log(cost[position]).mean() for position in spread])
        logs = redraw([np.log(cost[position]) for position in spread], generator, draws)
        drawn[:, spread] = np.exp(np.clip(logs, centre - FARTHEST, centre + FARTHEST))
    return drawn


def front_probability(cost: Sequence[np.ndarray], score: Sequence[np.ndarray], *, draws: int = DRAWS) -> np.ndarray:
    """Return how probable each row is to be on the front, given the seeds: how often it is when true means are drawn (`redraw`).

    Rows are drawn independently of each other.

    Args:
        cost: Per row its costs over seeds (one value where all seeds agree).
        score: Per row its scores over seeds.
        draws: How often.

    Returns:
        (R,) shares; NaN for a row without cost, or with fewer than two scores: its own spread is unknown.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    costs, scores = redraw_costs(cost, generator, draws), redraw(score, generator, draws)
    share = np.mean([pareto_front(c, s) for c, s in zip(costs, scores, strict=True)], axis=0) if len(cost) else np.empty(0)
    unknown = np.isnan(costs[0]) | np.array([len(own) < 2 for own in score], dtype=bool)
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
    cost: Sequence[np.ndarray], score: Sequence[np.ndarray], *, reference: tuple[float, float], level: float = LEVEL
) -> tuple[float, float]:
    """Return an interval that holds the hypervolume of the true means with at least `level`, NaN where every score has one seed.

    A front of noisy means covers too much, for the best of several flatters; quantiles of drawn fronts are biased the same way once more,
    and turned round (basic bootstrap) or shifted they still miss their level, by simulation. But the volume grows with every score and
    shrinks with every cost, so that its values at the lower and at the upper ends of simultaneous intervals (Bonferroni over all means)
    enclose the true one, whatever the rows are. That is sure and wide.

    Args:
        cost: Per row its costs over seeds.
        score: Per row its scores over seeds; one value borrows its spread, as in `redraw`.
        reference: As `hypervolume` takes it; it may be chosen from the same numbers.
        level: Coverage.
    """
    if all(len(own) < 2 for own in score):
        return np.nan, np.nan
    spread = [position for position, own in enumerate(cost) if not _settled(own)]
    each = 1 - (1 - level) / (sum(len(own) > 0 for own in score) + len(spread))
    means, error, df = _means(score)
    half = t_quantile(df, each) * error
    cheap = np.array([own.mean() if len(own) else np.nan for own in cost])
    dear = cheap.copy()
    if spread:
        logs, error, df = _means([np.log(cost[position]) for position in spread])
        factor = np.exp(np.minimum(t_quantile(df, each) * error, FARTHEST))
        cheap[spread], dear[spread] = np.minimum(cheap[spread], np.exp(logs) / factor), np.maximum(dear[spread], np.exp(logs) * factor)
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


def seed_values(seeds: pd.DataFrame, quantity: str, rows: int) -> list[np.ndarray]:
    """Return a quantity's values over the complete seeds of each row of the plan; a count that seeds agree on once."""
    known = seeds.loc[seeds["complete"] & seeds[quantity].notna(), ["row", quantity]].astype({quantity: float})
    groups = {position: own.to_numpy() for position, own in known.groupby("row")[quantity]}
    found = [groups.get(position, np.empty(0)) for position in range(rows)]
    return [own[:1] for own in found] if quantity in EXACT_COSTS else found


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
    cost, score = seed_values(seeds, chosen.cost, rows), seed_values(seeds, "delta_m", rows)
    reference = reference_position(plan)
    means = [np.array([own.mean() if len(own) else np.nan for own in values]) for values in (cost, score)]
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
            "front_probability": front_probability(cost, score),
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
        cost = [own / axis.scale for own in seed_values(seeds, axis.cost, rows)]
        low, high = hypervolume_interval(cost, seed_values(seeds, "delta_m", rows), reference=corner)
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
