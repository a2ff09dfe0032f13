"""Costs from profiles: time and memory that were measured while nothing else ran on the device stand in for a trial's own."""

from collections.abc import Mapping, Sequence

from bench.busy import TIMES, time_range

EXCLUSIVE = (
    "inference_seconds",
    "merged_inference_seconds",
    "step_memory_bytes",
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "step_seconds",
)
"""Costs that depend on what else runs on the device, or that a profile measures as well."""

PROFILED = ("inference_seconds", "merged_inference_seconds", "step_memory_bytes", "step_seconds")
"""Costs of a table row that, where all of its seeds have them from profiles, are one measurement and not one a seed."""


def with_profiles(records: Sequence[Mapping], profiles: Sequence[Mapping]) -> list[Mapping]:
    """Return the records with the costs of the profile of their setting and tasks, if there is a good one by the same code and device.

    Args:
        records: As `bench.record.load_records` returns them; profiles among them are left out, for they are no seeds.
        profiles: Records of kind "profile".

    Returns:
        New records; in those that a profile serves, `cost.profile` is its run id.
    """
    good = {key_of(profile): profile for profile in profiles if profile.get("kind") == "profile" and profile["status"] == "ok"}
    result = []
    for record in records:
        if record.get("kind") == "profile":
            continue
        profile = good.get(key_of(record))
        if record["status"] == "ok" and profile is not None:
            exclusive = {name: profile["cost"][name] for name in EXCLUSIVE}
            record = {**record, "cost": {**record["cost"], **exclusive, "profile": profile["run_id"]}}
        result.append(record)
    return result


def row_time_ranges(row: Mapping, records: Sequence[Mapping]) -> dict[str, tuple[float, float]]:
    """Return, per measured time of a plan's row, the 5 and 95 % quantile (seconds) of the single measurements that lie furthest apart.

    Args:
        row: As `bench.record.read_plan` returns it; of several models or seeds, one model's range stands.
        records: Records with the costs of their profiles.
    """
    costs = [record["cost"] for record in records if record["status"] == "ok" and record["run_id"] in row["run_ids"]]
    found = {name: [ends for cost in costs if (ends := time_range(cost, name))] for name in TIMES}
    return {name: max(ends, key=lambda pair: pair[1] / pair[0]) for name, ends in found.items() if ends}


def key_of(record: Mapping) -> tuple:
    """Return what a record and its profile share."""
    return record["cell_id"], tuple(record["tasks"]), record["code_id"], record["env"].get("device")
