"""Before any trial starts, one look from every node at what its trials will need: data, results, code, packages, GPU, room on the disks.

`examine` runs on the node. `defects` compares what it saw with what the driver has; what differs is named with the node.
"""

import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import SuiteError
from bench.storage import write_atomically
from bench.sweep.supervise import NO_GPU

NEEDED_BYTES = 2**30
PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "ray")
ANSWER_SECONDS = 180.0
LOOKS, SECONDS_BETWEEN_LOOKS = 3, 2.0


class PreflightError(SuiteError):
    """A node is not fit for the sweep; the message names it and what is wrong."""


def expectation(suite_dir: Path, data_root: Path | None, weights_file: Path | None) -> dict[str, Any]:
    """Return what every node must see, as plain JSON types, and leave a token in the results that only the same directory holds."""
    token = suite_dir / f".preflight-{uuid.uuid4().hex[:12]}"
    write_atomically(token, token.name)
    places = {"data_root": data_root, "weights_file": weights_file, "token": token}
    plain = {name: None if place is None else str(place) for name, place in places.items()}
    return plain | {"seen": identity(data_root)}


def forget(expected: Mapping[str, Any]) -> None:
    """Remove the token."""
    Path(expected["token"]).unlink(missing_ok=True)


def identity(data_root: Path | None) -> dict[str, Any]:
    """Return what must be the same on every node."""
    from bench.data.layout import fingerprint
    from bench.provenance import code_id, installed

    versions = {"python": platform.python_version()} | {package: installed(package) for package in PACKAGES}
    return {"code_id": code_id(), "versions": versions, "fingerprint": None if data_root is None else fingerprint(data_root)}


def examine(expected: Mapping[str, Any], gpus: float) -> dict[str, Any]:
    """Look at this node; returns plain JSON types, `problems` among them.

    Args:
        expected: As `expectation` returns it.
        gpus: Whether the node's trials get a GPU: then one must answer.
    """
    problems = []
    data_root = None if expected["data_root"] is None else Path(expected["data_root"])
    seen: dict[str, Any] = {}
    for tries_left in reversed(range(LOOKS)):  # raylets of one machine unpack the code into one folder: another may be at it still
        try:
            seen = identity(data_root)
            break
        except (SuiteError, OSError) as error:
            if not tries_left:
                problems.append(f"data or code: {error}")
            time.sleep(SECONDS_BETWEEN_LOOKS if tries_left else 0)
    token = Path(expected["token"])
    if not token.exists():
        problems.append(f"results: {token.parent} is not the driver's directory here; it must be one that all nodes share")
    else:
        problems += writable(token.parent, "results")
    if expected["weights_file"] is not None:
        problems += writable(Path(tempfile.gettempdir()), "copies of the weights")
        if not Path(expected["weights_file"]).is_file():
            problems.append(f"weights: no file {expected['weights_file']}")
    return {"host": platform.node(), "seen": seen, "problems": problems + (gpu_problems() if gpus else [])}


def writable(directory: Path, what: str) -> list[str]:
    """Return what keeps this node from writing to a directory, or from writing enough."""
    probe = directory / f".probe-{platform.node()}-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
        free = shutil.disk_usage(directory).free
    except OSError as error:
        return [f"{what}: {directory} cannot be written: {error.strerror}"]
    return (
        []
        if free >= NEEDED_BYTES
        else [f"{what}: {directory} has {free / 2**20:.0f} MiB free, at least {NEEDED_BYTES / 2**20:.0f} are asked"]
    )


def gpu_problems() -> list[str]:
    """Return what is wrong with the GPUs that torch sees in a process of its own, where the trials' are not yet."""
    import subprocess
    import sys

    script = "import torch; print(torch.cuda.device_count()); torch.zeros(1, device='cuda')"
    environment = {name: value for name, value in os.environ.items() if name not in NO_GPU}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS
    )
    return [] if run.returncode == 0 else [f"GPU: torch cannot use one: {run.stderr.strip().splitlines()[-1:]}"]


def defects(expected: Mapping[str, Any], answer: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a node, from its answer to `examine`."""
    found, mine, its = list(answer["problems"]), expected["seen"], answer["seen"]
    if its and its["code_id"] != mine["code_id"]:
        found.append(f"code: {its['code_id']}, the driver's is {mine['code_id']}; both must run the same checkout")
    if its and its["fingerprint"] != mine["fingerprint"]:
        found.append(f"data: another data set ({str(its['fingerprint'])[:12]}) than the driver's ({str(mine['fingerprint'])[:12]})")
    for package, version in mine["versions"].items():
        if its and its["versions"].get(package) != version:
            found.append(f"{package}: {its['versions'].get(package)}, the driver has {version}")
    return found


def examine_cluster(ray: Any, nodes: Sequence[Mapping[str, Any]], expected: Mapping[str, Any], gpus: float) -> dict[str, list[str]]:
    """Examine every node of a cluster at once.

    Args:
        ray: The module, connected.
        nodes: As `ray.nodes()` lists them.
        expected: As `expectation` returns it.
        gpus: A trial's.

    Returns:
        Per id of a node that is not fit its name and what is wrong.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(examine)
    waiting = {}
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        with_gpu = gpus if node["Resources"].get("GPU") else 0
        waiting[node["NodeID"]] = task.options(scheduling_strategy=place).remote(expected, with_gpu)
    deadline, broken = time.monotonic() + ANSWER_SECONDS, {}
    for node in nodes:
        name = f"{node['NodeName']} ({node['NodeManagerAddress']}, {node['NodeID'][:8]})"
        try:
            answer = ray.get(waiting[node["NodeID"]], timeout=max(1.0, deadline - time.monotonic()))
            problems = defects(expected, answer)
        except ray.exceptions.GetTimeoutError:
            problems = [f"no answer within {ANSWER_SECONDS:g} s"]
        except ray.exceptions.RayError as error:
            problems = [f"the look at it failed: {str(error).strip().splitlines()[-1]}"]
        if problems:
            broken[node["NodeID"]] = [name, *problems]
    return broken


def require_fit(broken: Mapping[str, Sequence[str]], *, nodes: int, leave_out: bool) -> None:
    """Refuse to start on a cluster with broken nodes, unless they are to be left out and others remain.

    Raises:
        PreflightError: Naming every broken node and what is wrong.
    """
    if broken and (not leave_out or len(broken) == nodes):
        said = "\n".join(f"  node {name}: {'; '.join(problems)}" for name, *problems in broken.values())
        remedy = "repair them" if len(broken) == nodes else "repair them, or run without them by --leave-out-broken-nodes"
        raise PreflightError(f"{len(broken)} of {nodes} nodes are not fit for this sweep; {remedy}:\n{said}")
