"""When a measured time says more about what else ran on the device than about the row: its single measurements lie far apart."""

from collections.abc import Mapping

BUSY_RATIO = 1.5
"""Where the 95 % quantile of single measurements is more than this times the 5 % one, the device was busy."""

TIMES = ("step_seconds", "inference_seconds", "merged_inference_seconds")
"""Costs of a record that hold `p05`, `median` and `p95` of single measurements."""


def time_range(cost: Mapping, name: str) -> tuple[float, float] | None:
    """Return the 5 and 95 % quantile (seconds) of one of `TIMES` in a record's `cost`, None where it was not measured."""
    low, high = (cost.get(name, {}).get(end) for end in ("p05", "p95"))
    return None if low is None or high is None else (low, high)


def is_busy(low: float, high: float) -> bool:
    """Whether single measurements from `low` to `high` lie too far apart for a quiet device."""
    return high > BUSY_RATIO * low


def busy_times(cost: Mapping | None) -> dict[str, tuple[float, float]]:
    """Return those of `TIMES` that were measured on a busy device, with their ranges."""
    found = {name: time_range(cost or {}, name) for name in TIMES}
    return {name: ends for name, ends in found.items() if ends is not None and is_busy(*ends)}
