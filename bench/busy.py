"""When a measured time says more about what else ran on the device than about the row: its single measurements lie far apart."""

import statistics
from collections.abc import Mapping, Sequence

BUSY_RATIO = 1.5
"""Where the upper end of a time's range is more than this times the lower one, the device was busy."""

TIMES = ("step_seconds", "inference_seconds", "merged_inference_seconds")
"""Costs of a record that hold `p05`, `median` and `p95` of single measurements."""


def time_range(costs: Sequence[Mapping], name: str) -> tuple[float, float] | None:
    """Return between which seconds the single measurements of one of `TIMES` lie.

    Args:
        costs: `cost` of the records of a row's sessions, or of one record.
        name: Of the time.

    Returns:
        The 5 and 95 % quantile of a typical session (medians over sessions, which one odd session does not move), or the lowest and highest
        of the sessions' medians where these lie further out; None where it was not measured.
    """
    known = [time for cost in costs if None not in ((time := cost.get(name, {})).get("p05"), time.get("p95"), time.get("median"))]
    if not known:
        return None
    medians = [time["median"] for time in known]
    low, high = (statistics.median(time[end] for time in known) for end in ("p05", "p95"))
    return min(low, *medians), max(high, *medians)


def is_busy(low: float, high: float) -> bool:
    """Whether single measurements from `low` to `high` lie too far apart for a quiet device."""
    return high > BUSY_RATIO * low


def busy_times(costs: Sequence[Mapping]) -> dict[str, tuple[float, float]]:
    """Return those of `TIMES` that were measured on a busy device, with their ranges; `costs` as of `time_range`."""
    found = {name: time_range(costs, name) for name in TIMES}
    return {name: ends for name, ends in found.items() if ends is not None and is_busy(*ends)}
