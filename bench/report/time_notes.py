"""Footnotes about measured times: where they come from, what their intervals are, and which were measured on a busy device."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from bench.busy import BUSY_RATIO, TIMES, is_busy
from bench.report.profiles import row_time_ranges

TITLES = {"step_seconds": "step", "inference_seconds": "inference", "merged_inference_seconds": "inference, merged"}
ORDER_STATISTICS = (
    "that of the median of its single runs by order statistics (95 %, binomial), its ends read off their recorded 5 and 95 % quantiles "
    "along normal scores"
)


def time_notes(plan: Mapping, usable: Sequence[Mapping], rows: pd.DataFrame) -> list[str]:
    """Say what the intervals of times are, and when times are told apart.

    Args:
        plan: As `bench.record.read_plan` returns it.
        usable: The plan's good records, with the costs of their profiles.
        rows: As `bench.report.stats.row_frame` returns it.
    """
    shown = [name for name in TIMES if rows[f"{name}_mean"].notna().any()]
    if not any(rows[f"{name}_low"].notna().any() for name in shown):
        return ["Times have no interval: they were measured too few times for one."] if shown else []
    costs = {row["label"]: [record["cost"] for record in usable if record["run_id"] in row["run_ids"]] for row in plan["rows"]}
    sessions = {label: _sessions(own) for label, own in costs.items() if own}
    return [
        f"Times: {_sources(costs, sessions)} Two times are told apart where 95 % intervals for all rows at once (Bonferroni) do not "
        "overlap; bold: all that are not told apart from the lowest; Pareto fronts go by the means, and `fronts.md` says how sure they are."
    ]


def _sources(costs: Mapping[str, Sequence[Mapping]], sessions: Mapping[str, int]) -> str:
    """Say where the times of the rows come from, and what their intervals are, from the rows' costs and numbers of sessions by label."""
    most = max(sessions.values())
    if most <= 1:
        said = "where one measurement serves all seeds of a row (a profile, or one seed), the interval is "
        said += f"{ORDER_STATISTICS}; it says how well this session measured, not what another session or device would."
        return said + _fewer(sessions, most)
    said = f"measured in {most} sessions (processes that have the device for themselves){_order(costs, sessions)}. A time is the geometric "
    said += "mean of its sessions' medians; its 95 % interval is Student's t of their logarithms"
    said += ", with variances moderated over the rows (Smyth 2004)" if _moderated(costs) else ""
    said += f", or, where that is wider, {ORDER_STATISTICS}. It says what another session on this device would find, not another device."
    return said + _fewer(sessions, most)


def _order(costs: Mapping[str, Sequence[Mapping]], sessions: Mapping[str, int]) -> str:
    """Say whether other rows were measured between the sessions of a row, naming those of which that does not hold."""
    several = [label for label, count in sessions.items() if count > 1]
    together = [label for label in several if not all(cost["sessions_interleaved"] for cost in costs[label])]
    if len(together) == len(several):
        return ", those of a row one after the other"
    but = f" (those of {', '.join(together)} one after the other)" if together else ""
    return f", other rows between one of a row and its next{but}"


def _moderated(costs: Mapping[str, Sequence[Mapping]]) -> bool:
    """Whether any time of several sessions has its variance from other rows too."""
    times = [cost[name] for own in costs.values() for cost in own for name in TIMES if len(cost[name].get("sessions", ())) > 1]
    return any(time["session_df"] != len(time["sessions"]) - 1 for time in times)


def _sessions(costs: Sequence[Mapping]) -> int:
    """Return in how many sessions the times of a row's models were measured at least, 0 where one has them from its trial."""
    counts = [max(len(cost[name].get("sessions", ())) for name in TIMES) or 1 if "profile" in cost else 0 for cost in costs]
    return min(counts)


def _fewer(sessions: Mapping[str, int], most: int) -> str:
    """Name the rows that were measured in fewer sessions than most are, or in none."""
    fewer = [f"{label} ({count})" for label, count in sessions.items() if 0 < count < most]
    none = [label for label, count in sessions.items() if count == 0] if most else []
    said = f" Fewer sessions so far: {', '.join(fewer)}." if fewer else ""
    said += f" Without a profile, so that times are those of trials, which may have shared the device: {', '.join(none)}." if none else ""
    return said


def busy_notes(plan: Mapping, usable: Sequence[Mapping]) -> list[str]:
    """Name the rows whose times were measured while something else ran on the device, and the command that measures them again."""
    said = []
    for row in plan["rows"]:
        found = {name: ends for name, ends in row_time_ranges(row, usable).items() if is_busy(*ends)}
        one = " of one model" if row["kind"] == "single_task" else ""
        times = ", ".join(f"{TITLES[name]} {1e3 * low:.3g}-{1e3 * high:.3g} ms" for name, (low, high) in found.items())
        said += [f"{row['label']} ({times}{one})"] if found else []
    if not said:
        return []
    results = re.search(r" --results[ =]\S+", str(plan.get("command") or ""))
    again = f"run_suite.py profile {plan['suite']} --rerun busy,stale{results[0] if results else ''}"
    return [
        f"Measured on a busy device: the 5-95 % range of single measurements spans more than {BUSY_RATIO:g} times its lower end for "
        f"{'; '.join(said)}. Measure again on an idle device with `{again}`."
    ]
