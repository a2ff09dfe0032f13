"""When a measured time says more about what else ran on the device than about the row: its single measurements lie far apart."""

from collections.abc import Mapping, Sequence

BUSY_RATIO = 1.5
"""Where the 95 % quantile of single measurements is more than this times the 5 % one, the device was busy."""

TIMES = ("step_seconds", "inference_seconds", "merged_inference_seconds")
"""Costs of a record that hold `p05`, `median` and `p95` of single measurements."""


def time_range(costs: Sequence[Mapping], name: str) -> tuple[float, float] | None:
    """Return between which seconds the single measurements of one of `TIMES` lie.

    Args:
        costs: `cost` of the records of a row's sessions, or of one record.
        name: Of the time.

    Returns:
        The lowest 5 and the highest 95 % quantile, None where it was not measured.
    """
    ends = [(cost.get(name, {}).get("p05"), cost.get(name, {}).get("p95")) for cost in costs]
    known = [pair for pair in ends if None not in pair]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def is_busy(low: float, high: float) -> bool:
    """Whether single measurements from `low` to `high` lie too far apart for a quiet device."""
    return high > BUSY_RATIO * low


def busy_times(costs: Sequence[Mapping]) -> dict[str, tuple[float, float]]:
    """Return those of `TIMES` that were measured on a busy device, with their ranges; `costs` as of `time_range`."""
    found = {name: time_range(costs, name) for name in TIMES}
    return {name: ends for name, ends in found.items() if ends is not None and is_busy(*ends)}
