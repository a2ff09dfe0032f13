"""Pareto fronts of a cost against a score, with what few seeds leave open: who is on the front, how much it covers, where it bends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.busy import TIMES
from bench.report.intervals import LEVEL, moderated, t_quantile
from bench.report.profiles import PROFILED
from bench.report.seeds import EXACT_COSTS, reference_position, seed_matrix
from bench.report.times import TimeError

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
    """Return the rows' (R,) means, their moderated standard errors and degrees of freedom, borrowed by rows of one value."""
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
    """Draw the rows' true means, as few seeds leave them open, jointly: a bootstrap over seeds whose tails are Student's t.

    Each draw weighs every seed's deviations from the rows' means by one random number, the same for all rows: what seeds do to all rows
    alike does not blur their order, rows that agree in every seed stay tied, and one draw is above another as surely as the paired t test
    says. A single row is drawn as the posterior of a mean under flat priors is, with the ends of the t interval as its quantiles; resampled
    values of two seeds would be far too sure.

    Args:
        values: Per row its values over seeds, the same place for the same seed, NaN where a row lacks it; none gives NaN. A row of one
            value is drawn by itself with the mean variance of the rows of several and the fewest degrees of freedom among them; where
            there are none it stays as it is.
        generator: Source of chance.
        draws: D.

    Returns:
        (D, R) means.
    """
    table = np.full((len(values), max(map(len, values), default=0)), np.nan)
    for place, own in enumerate(values):
        table[place, : len(own)] = own
    n = (~np.isnan(table)).sum(axis=1)
    means = np.array([own[~np.isnan(own)].mean() if count else np.nan for own, count in zip(table, n, strict=True)])
    drawn, several = np.tile(means, (draws, 1)), np.flatnonzero(n > 1)
    if not len(several):
        return drawn
    away, freedom = np.nan_to_num(table - means[:, None])[several], n[several] - 1
    weights = generator.standard_normal((draws, table.shape[1]))
    chi_square = np.cumsum(generator.standard_normal((draws, freedom.max())) ** 2, axis=1)
    tails = np.sqrt(freedom / chi_square[:, freedom - 1])
    drawn[:, several] += weights @ (away / np.sqrt(freedom * (freedom + 1))[:, None]).T * tails
    single = np.flatnonzero(n == 1)
    borrowed = np.sqrt(((away**2).sum(axis=1) / freedom).mean())
    drawn[:, single] += generator.standard_t(freedom.min(), size=(draws, len(single))) * borrowed
    return drawn


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What records say of the rows' costs.

    Attributes:
        values: Per row its costs over seeds; one value where a single measurement serves all of them.
        errors: Per row what the measurement of a single value leaves open, None where that is not known; None: single values are exact, as
            counts are.
    """

    values: Sequence[np.ndarray]
    errors: Sequence[TimeError | None] | None = None

    @property
    def means(self) -> np.ndarray:
        """(R,) means over seeds, NaN for a row without any."""
        return np.array([own.mean() if len(own) else np.nan for own in self.values], dtype=float)


def log_errors(cost: Costs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows' costs as logarithms, their standard errors, and degrees of freedom, (R,) each.

    Costs that differ over seeds have the moderated error of their mean logarithm, as scores have; measured once, the error of that
    measurement, or, where it is not known, the largest one of the other rows; counts, and what all seeds agree on, none.
    """
    means, rows = cost.means, len(cost.values)
    with np.errstate(divide="ignore"):
        centre = np.log(means)
    error, df = np.zeros(rows), np.ones(rows)
    spread = [place for place, own in enumerate(cost.values) if len(own) > 1 and np.ptp(own) > 0 and np.min(own) > 0]
    if spread:
        centre[spread], error[spread], df[spread] = _means([np.log(cost.values[place]) for place in spread])
    for place, own in enumerate(cost.errors or ()):
        if own is not None and place not in spread:
            error[place], df[place] = own.log, own.df
    if cost.errors is not None and (error > 0).any():
        lacking = ~np.isnan(means) & np.array([own is None for own in cost.errors]) & (error == 0)
        error[lacking], df[lacking] = error.max(), df[error > 0].min()
    return centre, error, df


def joint_ends(cost: Costs, level: float = LEVEL, *, others: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (R,) lower and upper ends of intervals that hold all true costs at once (Bonferroni), the mean itself of exact costs.

    Args:
        cost: The costs.
        level: That all of them hold.
        others: How many intervals of other quantities must hold with them.
    """
    centre, error, df = log_errors(cost)
    spread = error > 0
    half = np.minimum(t_quantile(df, 1 - (1 - level) / max(int(spread.sum()) + others, 1)) * error, FARTHEST)
    low, high = np.exp(centre - half), np.exp(centre + half)
    means = cost.means
    return np.where(spread, np.fmin(low, means), means), np.where(spread, np.fmax(high, means), means)


def redraw_costs(cost: Costs, generator: np.random.Generator, draws: int) -> np.ndarray:
    """Draw true costs (D, R): Student's t of the logarithms, for costs are positive; exact ones stay."""
    centre, error, df = log_errors(cost)
    drawn, spread = np.tile(cost.means, (draws, 1)), error > 0
    if spread.any():
        away = generator.standard_t(df[spread], size=(draws, int(spread.sum()))) * error[spread]
        drawn[:, spread] = np.exp(centre[spread] + np.clip(away, -FARTHEST, FARTHEST))
    return drawn


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
    means, error, df = _means(score)
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


def seed_values(seeds: pd.DataFrame, quantity: str, rows: int) -> list[np.ndarray]:
    """Return a quantity's values over the complete seeds of each row of the plan; a count that seeds agree on once."""
    known = seeds.loc[seeds["complete"] & seeds[quantity].notna(), ["row", quantity]].astype({quantity: float})
    groups = {position: own.to_numpy() for position, own in known.groupby("row")[quantity]}
    found = [groups.get(position, np.empty(0)) for position in range(rows)]
    return [own[:1] for own in found] if quantity in EXACT_COSTS else found


def seed_costs(seeds: pd.DataFrame, quantity: str, rows: int) -> Costs:
    """Return what the records say of a cost of each row of the plan: of times with what their measurement leaves open.

    Where all models of a row have their times from a profile, or all seeds the very same one, that is one measurement and not one a seed.
    """
    values = seed_values(seeds, quantity, rows)
    if quantity not in TIMES:
        return Costs(values=values)
    known = seeds[seeds["complete"] & seeds[quantity].notna()].drop_duplicates("row").set_index("row")
    once = set(known.index[known["profiled"].astype(bool)]) if quantity in PROFILED else set()
    once |= {place for place, own in enumerate(values) if len(own) and np.ptp(own) == 0}
    errors = [known[f"{quantity}_error"].get(place) if place in once else None for place in range(rows)]
    return Costs(values=[own[:1] if place in once else own for place, own in enumerate(values)], errors=errors)


def separable_ends(seeds: pd.DataFrame, quantity: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return between which ends a cost of each row of the plan lies: times by `joint_ends`, what is counted at its mean."""
    cost = seed_costs(seeds, quantity, rows)
    return joint_ends(cost) if quantity in TIMES else (cost.means, cost.means)


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
    cost, score = seed_costs(seeds, chosen.cost, rows), seed_values(seeds, "delta_m", rows)
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
        cost = seed_costs(seeds, axis.cost, rows)
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
