"""What few seeds and single measurements leave open of the rows' true means: standard errors, joint intervals, and draws of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.busy import TIMES
from bench.report.intervals import LEVEL, moderated_means, t_quantile
from bench.report.profiles import PROFILED
from bench.report.seeds import EXACT_COSTS
from bench.report.times import TimeError

FARTHEST = np.log(1000)
"""A drawn cost lies within this factor of the mean (as a logarithm): the tails of t with one degree of freedom would overflow."""


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
        centre[spread], error[spread], df[spread] = moderated_means([np.log(cost.values[place]) for place in spread])
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
