"""What fits where: the largest node, the share of a GPU that a trial's memory asks for, and the order in which trials start."""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.errors import SuiteError

MEMORY_MARGIN = 1.25
CONTEXT_BYTES = 600 * 2**20
"""What CUDA and its libraries take for every process, beside the allocator's memory."""

SHARES = 20
"""A GPU is shared in twentieths: rounding up keeps the sum of the shares at most one."""


class RoomError(SuiteError):
    """A trial asks for more than any node has; the message holds the numbers."""


def require_room(jobs: Iterable[Mapping[str, Any]], nodes: Iterable[Mapping[str, float]]) -> None:
    """Check that every job fits on some node.

    Args:
        jobs: With `run_id`, `cpus`, `gpus` and `memory_bytes`.
        nodes: Per living node its resources, as Ray names them.

    Raises:
        RoomError: A job fits nowhere; it would wait for ever.
    """
    nodes, seen = list(nodes), set()
    for job in jobs:
        asked = (job["cpus"], job["gpus"], job["memory_bytes"] or 0)
        if asked in seen:
            continue
        seen.add(asked)
        if not any(
            all(node.get(name, 0) >= amount for name, amount in zip(("CPU", "GPU", "memory"), asked, strict=True)) for node in nodes
        ):
            have = "; ".join(described(node.get("CPU", 0), node.get("GPU", 0), node.get("memory", 0)) for node in nodes)
            raise RoomError(
                f"{job['run_id']} asks for {described(*asked)}, but the nodes have {have or 'nothing: there is none'}; "
                "lower --cpus-per-trial, --gpus-per-trial or --memory-per-trial, or add a node"
            )


def require_memory(memory_bytes: int | None, there: int | None) -> None:
    """Check that this machine, which has `there` bytes of memory as far as that is known, can hold a trial.

    Raises:
        RoomError: It can not: the trial's limit would be none.
    """
    if memory_bytes is not None and there is not None and memory_bytes > there:
        asked, has = (f"{amount / 2**30:,.2f} GiB" for amount in (memory_bytes, there))
        raise RoomError(f"--memory-per-trial asks for {asked}, but this machine has {has} of memory; give at most that, or leave it out")


def described(cpus: float, gpus: float, memory_bytes: float) -> str:
    """Say what a job asks for, or a node has."""
    return f"{cpus:g} CPUs, {gpus:g} GPUs and {memory_bytes / 2**30:.1f} GiB of memory"


def gpu_share(peak_bytes: int, device_bytes: int) -> float:
    """Return the part of a GPU that a trial of this peak memory is given, with a margin; 1 where it takes more than half."""
    need = (peak_bytes * MEMORY_MARGIN + CONTEXT_BYTES) / device_bytes
    share = math.ceil(need * SHARES - 1e-9) / SHARES
    return 1.0 if share > 0.5 else share


def learned_share(profiles: Iterable[Path]) -> float:
    """Return the share of a GPU that the sessions of a row's profile teach, the largest; a whole one where none was measured on a GPU."""
    shares = []
    for path in profiles:
        with contextlib.suppress(FileNotFoundError, ValueError):
            cost = json.loads(path.read_text(encoding="utf-8")).get("cost") or {}
            if cost.get("peak_reserved_bytes") and cost.get("device_memory_bytes"):
                shares.append(gpu_share(cost["peak_reserved_bytes"], cost["device_memory_bytes"]))
    return max(shares, default=1.0)


def longest_first(jobs: Iterable[dict[str, Any]], seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """Order jobs so that the longest starts first, equal ones by name: the same order on any cluster.

    Args:
        jobs: With `run_id` and `config`.
        seconds: Per run id an estimate of the trial's duration; where one is missing, epochs times tasks stand for it, after the others.
    """

    def key(job: Mapping[str, Any]) -> tuple:
        known = seconds.get(job["run_id"])
        work = job["config"]["recipe"]["epochs"] * len(job["config"]["tasks"])
        return (known is None, -known if known is not None else -work, job["run_id"])

    return sorted(jobs, key=key)
