"""Costs from profiles: time and memory that were measured while nothing else ran on the device stand in for a trial's own."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from bench.busy import TIMES, time_range
from bench.report.intervals import moderated_means

PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes")
EXCLUSIVE = ("step_memory_bytes", *PEAKS, *TIMES)
"""Costs that depend on what else runs on the device, or that a profile measures as well."""

PROFILED = ("step_memory_bytes", *TIMES)
"""Costs of a table row that, where all of its seeds have them from profiles, are one measurement and not one a seed."""


def with_profiles(records: Sequence[Mapping], profiles: Sequence[Mapping]) -> list[Mapping]:
    """Return the records with the costs of the profile of their setting and tasks, if there is a good one by the same code and device.

    Args:
        records: As `bench.record.load_records` returns them; profiles among them are left out, for they are no seeds.
        profiles: Records of kind "profile", one a session.

    Returns:
        New records; in those that a profile serves, the costs are `joined`, `cost.profile` is the run id of its first session, and
        `cost.sessions_interleaved` says whether between its sessions others were measured.
    """
    sessions: dict[tuple, list[Mapping]] = {}
    for profile in sorted(profiles, key=lambda profile: profile.get("session", 1)):
        if profile.get("kind") == "profile" and profile["status"] == "ok":
            sessions.setdefault(key_of(profile), []).append(profile)
    costs = joined({key: [profile["cost"] for profile in found] for key, found in sessions.items()})
    for key, cost in costs.items():
        cost["sessions_interleaved"] = _interleaved(key, sessions)
    result = []
    for record in records:
        if record.get("kind") == "profile":
            continue
        key = key_of(record)
        if record["status"] == "ok" and key in costs:
            record = {**record, "cost": {**record["cost"], **costs[key], "profile": sessions[key][0]["run_id"]}}
        result.append(record)
    return result


def _interleaved(key: tuple, sessions: Mapping[tuple, Sequence[Mapping]]) -> bool:
    """Whether, between any two sessions of a profile, another profile of the same code and device was measured."""
    own = sorted(_start(profile) for profile in sessions[key])
    others = [_start(profile) for other, found in sessions.items() if _place(other) == _place(key) and other != key for profile in found]
    return all(any(before < start < after for start in others) for before, after in itertools.pairwise(own))


def _start(profile: Mapping) -> str:
    """Return when a session began, as records write it (UTC, ISO 8601), which sorts as time does."""
    return profile["timing"].get("trial_start") or ""


def joined(costs: Mapping[tuple, Sequence[Mapping]]) -> dict[tuple, dict]:
    """Join what the sessions of each profile measured.

    Args:
        costs: `cost` of the records of each profile's sessions, by `key_of`.

    Returns:
        `EXCLUSIVE` costs by key. Memory is that of the first session, peaks the highest. A time of several sessions has as `median` the
        geometric mean of their medians; as `p05`, `p95` the ends of `bench.busy.time_range`; `n`, all single measurements; `sessions`,
        theirs one by one; and as `session_log_error` and `session_df` the standard error of its logarithm by how far sessions lie apart,
        and degrees of freedom, with variances moderated over the profiles of the same code and device.
    """
    result = {}
    for key, own in costs.items():
        result[key] = {name: own[0][name] for name in EXCLUSIVE}
        result[key] |= {name: max((cost[name] for cost in own if cost[name] is not None), default=None) for name in PEAKS}
    for name in TIMES:
        places: dict[tuple, list[tuple]] = {}
        for key, own in costs.items():
            if all(cost[name]["median"] for cost in own):
                places.setdefault(_place(key), []).append(key)
        for keys in places.values():
            logs = [np.log([cost[name]["median"] for cost in costs[key]]) for key in keys]
            if max(map(len, logs)) > 1:
                for key, mean, error, df in zip(keys, *moderated_means(logs), strict=True):
                    result[key][name] = _joined_time(costs[key], name, float(np.exp(mean)), float(error), float(df))
    return result


def _joined_time(costs: Sequence[Mapping], name: str, median: float, error: float, df: float) -> dict:
    low, high = time_range(costs, name) or (None, None)
    sessions = [cost[name] for cost in costs]
    known = {"median": median, "p05": low, "p95": high, "n": sum(session["n"] for session in sessions)}
    return known | {"sessions": sessions, "session_log_error": error, "session_df": df}


def row_time_ranges(row: Mapping, records: Sequence[Mapping]) -> dict[str, tuple[float, float]]:
    """Return, per measured time of a plan's row, between which seconds the single measurements lie (`bench.busy.time_range`).

    Args:
        row: As `bench.record.read_plan` returns it; of several models or seeds, the range of the one stands that is widest.
        records: Records with the costs of their profiles.
    """
    costs = [record["cost"] for record in records if record["status"] == "ok" and record["run_id"] in row["run_ids"]]
    found = {name: [ends for cost in costs if (ends := time_range([cost], name))] for name in TIMES}
    return {name: max(ends, key=lambda pair: pair[1] / pair[0]) for name, ends in found.items() if ends}


def key_of(record: Mapping) -> tuple:
    """Return what a record and its profile share."""
    return record["cell_id"], tuple(record["tasks"]), record["code_id"], record["env"].get("device")


def _place(key: tuple) -> tuple:
    """Return the code and the device of a profile."""
    return key[2:]
