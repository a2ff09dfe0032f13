"""Methods at equal cost: a swept family's delta_m at another row's cost, interpolated along the sweep and never beyond it."""

import itertools

import numpy as np
import pandas as pd

from bench.report.intervals import t_quantile, welch
from bench.report.pareto import AXES


def between(cost: np.ndarray, at: float) -> tuple[int, int, float] | None:
    """Find the two points of a sweep around a cost, and the second one's weight, linear in log(cost).

    Args:
        cost: (n,) positive, different costs.
        at: The cost asked for.

    Returns:
        Index of the point below, of the one above, weight of the latter; None outside of the swept range.
    """
    order = np.argsort(cost)
    if len(cost) < 2 or not cost[order[0]] <= at <= cost[order[-1]]:
        return None
    above = int(np.clip(np.searchsorted(cost[order], at), 1, len(cost) - 1))
    low, high = order[above - 1], order[above]
    return int(low), int(high), float(np.log(at / cost[low]) / np.log(cost[high] / cost[low]))


def iso_frame(rows: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Compare every row with every other family that was swept, at the row's own cost.

    Args:
        rows: As `bench.report.stats.row_frame` returns it.
        axis: A key of `bench.report.pareto.AXES`.

    Returns:
        One line a row and family: label, cost (in the axis' unit), family, between (the two labels interpolated), weight (of the dearer),
        family_delta_m, delta_m (the row's), difference (row minus family), low, high (95 %, spreads of the rows over seeds, Welch and
        Satterthwaite; what the common reference adds cancels to first order and is left out).
    """
    chosen, lines = AXES[axis], []
    column = chosen.column if chosen.column in rows else f"{chosen.column}_mean"
    known = rows[rows[column].notna() & rows["delta_m_mean"].notna()]
    known = known.assign(cost=known[column].astype(float) / chosen.scale)
    families = {name: own.drop_duplicates("cost") for name, own in known.groupby("family", sort=False) if own["dial_value"].notna().all()}
    for row, (family, sweep) in itertools.product(known.to_dict("records"), families.items()):
        place = None if row["family"] == family else between(sweep["cost"].to_numpy(), row["cost"])
        if place is None:
            continue
        low, high, weight = place
        ends = [sweep.iloc[low], sweep.iloc[high]]
        value = (1 - weight) * ends[0]["delta_m_mean"] + weight * ends[1]["delta_m_mean"]
        half = _half([(row, 1.0), (ends[0], 1 - weight), (ends[1], weight)])
        difference = row["delta_m_mean"] - value
        lines.append(
            {"label": row["label"], "cost": row["cost"], "family": family, "between": f"{ends[0]['label']}; {ends[1]['label']}"}
            | {"weight": weight, "family_delta_m": value, "delta_m": row["delta_m_mean"], "difference": difference}
            | {"low": difference - half, "high": difference + half}
        )
    return pd.DataFrame(lines)


def _half(parts: list) -> float:
    """Return half the interval of a weighted sum of rows' means; NaN where a row that counts has one seed."""
    used = [(row, weight) for row, weight in parts if weight > 0]
    if any(row["delta_m_n"] < 2 for row, _ in used):
        return np.nan
    variances = np.array([weight**2 * row["delta_m_std"] ** 2 / row["delta_m_n"] for row, weight in used])
    total, df = welch(variances, np.array([row["delta_m_n"] - 1.0 for row, _ in used]))
    return 0.0 if total == 0 else float(t_quantile(df) * np.sqrt(total))
