"""What the measurement of a time leaves open, within one session on the device and from session to session.

Of one session, records hold the 5, 50 and 95 % quantile of n single measurements, not these themselves. The interval is that of order
statistics: from the k-th smallest to the k-th largest measurement, k the largest rank that keeps 95 % for every distribution (binomial).
Where these two lie is read off the recorded 5 and 95 % quantiles, on the logarithm, along normal scores (Blom 1958): as a share of half
their distance, to both sides of the median alike. (Sides taken each for itself miss their level where one tail is long, by simulation.)
Measurements count as independent of each other; what changes from one session to the next is not in it.

Of several sessions, the time is the geometric mean of their medians, and its error is how far they lie apart (`bench.report.profiles`), or
what the single measurements leave open, whichever gives the wider interval.

Times are told apart where simultaneous intervals (Bonferroni over the rows) do not overlap: then all orders so claimed hold with 95 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import bdtr, ndtri

from bench.report.intervals import LEVEL, t_quantile, welch

FEWEST_MEASUREMENTS = 6
"""Of fewer, even the range from lowest to highest holds the median with less than 95 %."""

_TAIL = 0.05
"""Share of measurements below the lower, and above the upper of the recorded quantiles."""


@dataclass(frozen=True, kw_only=True)
class TimeError:
    """Standard error of the logarithm of a measured time: Student's t times it gives the interval.

    Attributes:
        log: The error.
        df: Degrees of freedom of the t.
    """

    log: float
    df: float

    def ends(self, time: float, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval around a time."""
        factor = float(np.exp(t_quantile(self.df, level) * self.log))
        return time / factor, time * factor


def time_error(measured: Mapping) -> TimeError | None:
    """Return what a measured time leaves open, see the module.

    Args:
        measured: As records hold it, or of several sessions as `bench.report.profiles.joined` returns it.

    Returns:
        The error; None of fewer single measurements than `FEWEST_MEASUREMENTS`, or where a time is not positive.
    """
    if "sessions" not in measured:
        return _session_error(measured)
    error = measured["session_log_error"]
    between = TimeError(log=error, df=measured["session_df"]) if error > 0 else None
    own = [_session_error(session) for session in measured["sessions"]]
    within = None if None in own else error_of_sum([1.0] * len(own), own)  # of the mean of the logarithms
    known = [found for found in (between, within) if found is not None]
    return max(known, key=lambda found: found.log * float(t_quantile(found.df)), default=None)


def _session_error(measured: Mapping) -> TimeError | None:
    """Return what the median of one session leaves open, so that its 95 % interval is that of order statistics.

    Args:
        measured: `p05` and `p95` (seconds) and `n`, as records hold them.

    Returns:
        The error, with n - 1 degrees of freedom for other levels than 95 %.
    """
    low, high, n = (measured.get(name) for name in ("p05", "p95", "n"))
    if None in (low, high, n) or n < FEWEST_MEASUREMENTS or low <= 0:
        return None
    return TimeError(log=_share(n) * float(np.log(high / low) / 2) / float(t_quantile(n - 1)), df=n - 1.0)


@cache
def interval_rank(n: int) -> int:
    """Return k: the median of any distribution lies between the k-th smallest and the k-th largest of n values with 95 % at least."""
    missed = 2 * bdtr(np.arange(n // 2), n, 0.5)  # by the k-th, k = 1, 2, ...
    return int((missed <= 1 - LEVEL).sum())


@cache
def _share(n: int) -> float:
    """Return how far from the median the interval ends, as a share of the way to a quantile that records keep."""

    def score(rank: float) -> float:
        return float(ndtri((rank - 0.375) / (n + 0.25)))

    return score(interval_rank(n)) / score(1 + _TAIL * (n - 1))


def error_of_sum(times: Sequence[float], errors: Sequence[TimeError | None]) -> TimeError | None:
    """Return what the sum of times measured independently leaves open; None where one's error is not known."""
    if not errors or any(error is None for error in errors):
        return None
    share = np.asarray(times, dtype=float) / np.sum(times)
    dfs = np.array([error.df for error in errors])
    variance, df = welch((share * [error.log for error in errors]) ** 2, dfs)
    return TimeError(log=float(np.sqrt(variance)), df=float(dfs.min() if np.isnan(df) else df))
