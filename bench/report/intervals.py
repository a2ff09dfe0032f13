"""Intervals and variances from few seeds.

- A mean over seeds gets a t interval, cut at the values that a metric can take: a cut takes nothing away from its coverage.
- A time or an amount of memory, which is positive and spreads by factors, gets a t interval of its logarithm.
- delta_m is a ratio to a reference that was trained as often: both spreads are carried by linearisation (delta method), degrees of freedom
  by Welch and Satterthwaite.
- A difference whose chance has two sources of unlike degrees of freedom, seeds and images, gets Banerjee's interval (Sankhya 23,
  1961; Hajek 1962): each source's variance times its own quantile squared, added. It keeps its level whatever the true variances are.
- Comparisons of rows use moderated variances (Smyth 2004, doi 10.2202/1544-6115.1027): two or three seeds tell little about a row's
  spread, the other rows of the column tell more, and an empirical Bayes prior weighs the two as the data ask for.

`scipy.special` alone is used: `scipy.stats` would import torch where it is installed.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import digamma, gammaln, polygamma, stdtr, stdtrit

LEVEL = 0.95
FEWEST_ROWS_TO_POOL = 8
"""Below this many rows there is no telling how much their variances differ, and each row stands alone."""


def t_quantile(df: float | np.ndarray, level: float = LEVEL) -> float | np.ndarray:
    """Return the two-sided quantile of Student's t; NaN where there are no degrees of freedom."""
    df = np.asarray(df, dtype=float)
    return np.where(df > 0, stdtrit(np.where(df > 0, df, 1.0), 0.5 + level / 2), np.nan)[()]


def two_sided_p(t: float | np.ndarray, df: float | np.ndarray) -> float | np.ndarray:
    """Return the two-sided p-value of a t statistic; infinite df give the normal's."""
    df = np.asarray(df, dtype=float)
    return 2 * stdtr(np.where(np.isinf(df), 1e9, df), -np.abs(t))


def mean_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return the t interval of a mean over seeds; NaN for fewer than two values."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return np.nan, np.nan
    half = t_quantile(len(values) - 1, level) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def half_width(std: float, n: int, level: float = LEVEL) -> float:
    """Return half the t interval of a mean over n seeds with a sample standard deviation; NaN for fewer than two seeds."""
    return float(t_quantile(n - 1, level) * std / np.sqrt(n)) if n > 1 else np.nan


def bounded_interval(values: np.ndarray, low: float, high: float, level: float = LEVEL) -> tuple[float, float]:
    """Return the t interval of a mean over seeds within the range of the quantity; NaN for fewer than two values."""
    ends = np.clip(mean_interval(values, level), low, high)
    return float(ends[0]), float(ends[1])


def positive_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Return the t interval of the logarithm, carried back: around the geometric mean, never below zero.

    NaN for fewer than two values; where one is zero, which has no logarithm, the plain t interval cut at zero.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2 or values.min() <= 0:
        return bounded_interval(values, 0.0, np.inf, level)
    if values.min() == values.max():
        return float(values[0]), float(values[0])
    low, high = mean_interval(np.log(values), level)
    return float(np.exp(low)), float(np.exp(high))


def welch(variances: np.ndarray, dfs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add independent variances of means, and find the degrees of freedom of the sum (Satterthwaite).

    Args:
        variances: (k, ...) variances of means.
        dfs: (k, ...) their degrees of freedom; parts of zero variance do not count.

    Returns:
        The sum, and its degrees of freedom, NaN where the sum is zero.
    """
    total = variances.sum(axis=0)
    used = np.where(variances > 0, variances**2 / np.maximum(dfs, 1e-9), 0).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return total, np.where(total > 0, total**2 / used, np.nan)


_SMALLEST_LOG_P = -60.0
"""Smaller p-values are not told apart."""


def joint_half_width(variances: np.ndarray, dfs: np.ndarray, level: float | np.ndarray = LEVEL) -> np.ndarray:
    """Return half the interval of a normal estimate whose variance is a sum of parts, each estimated with degrees of freedom of its own.

    Banerjee's: the root of the sum over parts of t(df)^2 times variance. Its coverage is at least `level` whatever the true parts are: the
    chi-square distribution function F of one degree of freedom is concave, so that F of the weighted mean of the parts' limits is at least
    the weighted mean of F of each. Parts need not be independent of each other, only of the estimate.

    Args:
        variances: (k, ...) estimated parts of the variance of the estimate.
        dfs: (k, ...) their degrees of freedom; infinite where a part is known.
        level: Coverage, one for all or (...).
    """
    return np.sqrt(_joint_square(variances, dfs, np.log1p(-np.asarray(level, dtype=float)))[0])


def _joint_square(variances: np.ndarray, dfs: np.ndarray, log_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the square of half the interval with log error probability `log_p`, and its derivative by the latter."""
    df = np.where(np.isinf(dfs), 1e9, np.maximum(dfs, 1e-3))
    t = -stdtrit(df, np.exp(log_p) / 2)
    density = np.exp(gammaln((df + 1) / 2) - gammaln(df / 2) - (df + 1) / 2 * np.log1p(t**2 / df)) / np.sqrt(df * np.pi)
    return (variances * t**2).sum(axis=0), (-variances * t * np.exp(log_p) / density).sum(axis=0)


def joint_p(difference: np.ndarray, variances: np.ndarray, dfs: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value that belongs to `joint_half_width`: one less the level whose interval just touches zero.

    Args:
        difference: (...) estimates.
        variances: (k, ...) parts of their variance; NaN, or a sum of zero, gives NaN.
        dfs: (k, ...) degrees of freedom of the parts.
    """
    variances, dfs = np.broadcast_arrays(variances, dfs)
    square, total = np.asarray(difference, dtype=float) ** 2, variances.sum(axis=0)
    p = np.where((total > 0) & (square == 0), 1.0, np.nan)
    open_ = (total > 0) & (square > 0)
    p[open_] = np.exp(_log_p(square[open_], variances[:, open_], dfs[:, open_]))
    return p


def _log_p(square: np.ndarray, variances: np.ndarray, dfs: np.ndarray) -> np.ndarray:
    """Solve `_joint_square` = square > 0 for the logarithm of p (n,): Newton's method, halving where it leaves the bracket."""
    low, high, left = np.full(len(square), _SMALLEST_LOG_P), np.zeros(len(square)), np.arange(len(square))
    bound = two_sided_p(np.sqrt(square / variances.sum(axis=0)), np.where(variances > 0, dfs, np.inf).min(axis=0, initial=np.inf))
    log_p = np.log(np.clip(bound, np.exp(_SMALLEST_LOG_P), 1 - 1e-9))
    for _ in range(100):
        now = log_p[left]
        reached, slope = _joint_square(variances[:, left], dfs[:, left], now)
        low[left], high[left] = np.where(reached > square[left], now, low[left]), np.where(reached > square[left], high[left], now)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = now - np.log(reached / square[left]) * reached / slope
        step = np.where((step >= low[left]) & (step <= high[left]), step, (low[left] + high[left]) / 2)
        log_p[left] = step
        left = left[np.abs(step - now) > 1e-9]
        if not len(left):
            break
    return log_p


def delta_m_interval(row: np.ndarray, reference: np.ndarray, signs: np.ndarray, level: float = LEVEL) -> tuple[float, float, float]:
    """Return the interval of delta_m, spreads of the row and of the reference both carried.

    Args:
        row: (n, T) headline metrics of the row, a line a seed.
        reference: (m, T) those of the reference.
        signs: (T,) 1 where higher is better, else -1.
        level: Coverage.

    Returns:
        Lower end, upper end, degrees of freedom; NaN where the row has one seed. A reference of one seed adds no spread.
    """
    base = reference.mean(axis=0)
    tasks = row.shape[1]
    own = 100 / tasks * (row / base) @ signs
    centre = own.mean() - 100 / tasks * signs.sum()
    if len(row) < 2:
        return np.nan, np.nan, np.nan
    variances, dfs = [own.var(ddof=1) / len(row)], [len(row) - 1]
    if len(reference) > 1:  # to first order the reference moves delta_m by -mean / base^2 a task
        moved = -100 / tasks * (reference * row.mean(axis=0) / base**2) @ signs
        variances, dfs = [*variances, moved.var(ddof=1) / len(reference)], [*dfs, len(reference) - 1]
    variance, df = welch(np.array(variances), np.array(dfs, dtype=float))
    if variance == 0:
        return float(centre), float(centre), float(len(row) - 1)
    half = t_quantile(df, level) * np.sqrt(variance)
    return float(centre - half), float(centre + half), float(df)


def residual_variances(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's variance over seeds once what a seed does to all rows is taken out: that is the pairing by seed.

    Args:
        values: (R, S) a line a row, a column a seed; NaN where a seed is missing.

    Returns:
        (R,) variances of one seed's value and (R,) degrees of freedom, (n - 1) (R' - 1) / R' with R' rows of two seeds or more; NaN and 0
        for other rows. With two rows their sum is the variance of the paired differences, with its n - 1 degrees of freedom.
    """
    counts = (~np.isnan(values)).sum(axis=1)
    used = counts > 1
    rows = int(used.sum())
    variance, df = np.full(len(values), np.nan), np.zeros(len(values))
    if rows < 2:
        variance[used] = np.nanvar(values[used], axis=1, ddof=1)
        df[used] = counts[used] - 1
        return variance, df
    part = values[used]
    part = part[:, (~np.isnan(part)).any(axis=0)]
    effect = np.zeros(part.shape[1])
    for _ in range(20):  # backfitting of row + seed; exact in one step where no seed is missing
        level = np.nanmean(part - effect, axis=1)
        effect = np.nanmean(part - level[:, None], axis=0)
        effect -= effect.mean()
    residual = part - np.nanmean(part - effect, axis=1)[:, None] - effect
    df[used] = (counts[used] - 1) * (rows - 1) / rows
    variance[used] = np.nansum(residual**2, axis=1) / df[used]
    return variance, df


def moderated(variance: np.ndarray, df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shrink variances towards a common one, as far as their scatter says that they are alike (Smyth 2004, section 6).

    To the scatter its own standard error is added: a dozen rows of two seeds cannot show that they are alike, and simulation shows that the
    plain estimate then finds differences where there are none.

    Args:
        variance: (R,) variances; NaN where unknown.
        df: (R,) their degrees of freedom.

    Returns:
        (R,) moderated variances and (R,) their degrees of freedom, at most those of all rows pooled. As given where fewer than
        `FEWEST_ROWS_TO_POOL` rows have a positive variance.
    """
    known = (df > 0) & (np.nan_to_num(variance) > 0)
    if known.sum() < FEWEST_ROWS_TO_POOL:
        return variance, df
    own, own_df = variance[known], df[known]
    logs = np.log(own) - digamma(own_df / 2) + np.log(own_df / 2)
    chance = polygamma(1, own_df / 2).mean()  # scatter of the logs that equal variances would show
    tails = polygamma(3, own_df / 2).mean() / chance**2
    error = chance * np.sqrt(tails / len(own) + 2 / (len(own) - 1))
    scatter = max(logs.var(ddof=1) - chance, 0.0) + error
    prior_df = 2 * _trigamma_inverse(scatter)
    prior = np.exp(logs.mean() + digamma(prior_df / 2) - np.log(prior_df / 2))
    shrunk, total = (prior_df * prior + own_df * own) / (prior_df + own_df), own_df + prior_df
    variance, df = variance.copy(), df.copy()
    variance[known], df[known] = shrunk, np.minimum(total, own_df.sum())
    return variance, df


def moderated_means(values: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _trigamma_inverse(target: float) -> float:
    """Solve trigamma(x) = target > 0 by Newton's method on 1 / trigamma, which is nearly linear."""
    x = 0.5 + 1 / target
    for _ in range(50):
        value = polygamma(1, x)
        step = value * (1 - value / target) / polygamma(2, x)
        x += step
        if abs(step) < 1e-10 * x:
            break
    return float(x)


def holm(p: np.ndarray) -> np.ndarray:
    """Return Holm's adjusted p-values; NaN stay NaN and do not count as comparisons.

    Args:
        p: (k,) p-values.
    """
    p = np.asarray(p, dtype=float)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted
