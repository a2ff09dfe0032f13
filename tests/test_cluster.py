"""Raylets on this machine: trials of a node that dies move and resume; a node that is not fit is named before the start."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_supervise import BASE, HERE, jobs_of, wait_for

from bench.data.cache import open_cache
from bench.data.cache_index import read_index
from bench.data.feed_modes import request_of
from bench.data.roots import ensure_synthetic
from bench.model.node_cache import sha256
from bench.progress import Board
from bench.record import load_records
from bench.sweep import on_ray, preflight
from bench.sweep.interrupt import Interrupt, descendants
from bench.sweep.room import RoomError


def assert_each_node_reads_once(suite_dir: Path, connection) -> None:
    """Run four trials on two nodes: each node copies weights and data cache once, whichever of its trials comes first."""
    data, cache, weights = BASE.data, suite_dir / "cache", suite_dir / "weights.pth"
    root, _ = ensure_synthetic(suite_dir.parent, data.synthetic)
    open_cache(request_of(data, root, "train"), BASE.tasks, cache)
    weights.write_bytes(b"weights")
    places = {"data": str(root), "cache": str(cache), "weights": str(weights), "digest": sha256(weights)}
    (suite_dir / "places.json").write_text(json.dumps(places))
    jobs = [job | {"entry": "stub_trials:read_caches"} for job in jobs_of(suite_dir, range(4))]
    with Board({job["run_id"]: ("stubs", job["epochs"]) for job in jobs}, quiet=True) as board, Interrupt(print) as interrupt:
        on_ray.run_ray(jobs, connection, board, interrupt, suite_dir)
    opened, copies = ((suite_dir / name).read_text().splitlines() for name in ("opened", "copies"))
    assert len(opened) == 4
    assert set(opened) == {"a", "b"}
    name = read_index(request_of(data, root, "train").place(cache)).directory
    assert sorted(copies) == sorted(f"{node} {file}" for node in "ab" for file in (weights.name, name))


def kill_the_first_node_amid_a_trial(suite_dir: Path, cluster, nodes: list) -> None:
    """Remove, as a crash would, the node `a` once a trial on it has written a checkpoint, behind which it waits."""

    def kill() -> None:
        wait_for((suite_dir / "waiting").exists)
        cluster.remove_node(nodes[0], allow_graceful=False)

    threading.Thread(target=kill, daemon=True).start()


def broken_by(what: str) -> dict[str, str]:
    """Return the environment of a node that is not like the others, see `broken_node/sitecustomize.py`."""
    return {"PYTHONPATH": f"{HERE}:{HERE / 'broken_node'}", "BROKEN": what}


@pytest.mark.slow
def test_nodes_with_other_code_or_packages_or_without_the_data_are_named_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(HERE))
    root, _ = ensure_synthetic(tmp_path, BASE.data.synthetic)
    (suite_dir := tmp_path / "stub").mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20})
    try:
        defects = ("code", str(root), "package")
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, env_vars=broken_by(what)) for what in defects]
        with on_ray.connected(cluster.address) as connection:
            expected = preflight.expectation(suite_dir, root, None)
            with pytest.raises(preflight.PreflightError, match="3 of 4 nodes are not fit") as refused:
                on_ray.check_nodes(connection, expected, gpus=0, leave_out=False)
            said = "\n".join(on_ray.check_nodes(connection, expected, gpus=0, leave_out=True))
            preflight.forget(expected)
    finally:
        cluster.shutdown()
    assert all(node.node_id[:8] in said for node in nodes)  # which are left out
    (of_other,), (of_blind,), (of_package,) = (
        [line for line in str(refused.value).splitlines() if node.node_id[:8] in line] for node in nodes
    )
    assert "numpy: 0.0.1, the driver has" in of_package
    assert f"code: 0ther0c0de00, the driver's is {expected['seen']['code_id']}; both must run the same checkout" in of_other
    assert "data or code: " in of_blind
    assert str(root) in of_blind


@pytest.mark.slow
def test_trials_of_a_dead_node_move_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(HERE))
    seeds = range(10, 15)
    monkeypatch.setenv("STUB", json.dumps({str(seed): ["wait on a", "end"] for seed in seeds}))
    monkeypatch.setenv("RAY_worker_niceness", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20})
    try:
        disks = [tmp_path / "a", tmp_path / "b"]  # each node's own
        for disk in disks:
            disk.mkdir()
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, env_vars={"TMPDIR": str(disk)}) for disk in disks]
        suite_dir = tmp_path / "stub"
        suite_dir.mkdir()
        with on_ray.connected(cluster.address) as connection:
            jobs = jobs_of(suite_dir, seeds)
            with pytest.raises(RoomError, match=r"asks for 7 CPUs, 0 GPUs .* 1 CPUs, 0 GPUs"):
                on_ray.require_fitting([jobs[0] | {"cpus": 7}], connection)
            with Board({job["run_id"]: ("stubs", job["epochs"]) for job in jobs}, quiet=True) as board, Interrupt(print) as interrupt:
                assert_each_node_reads_once(suite_dir.parent / "cached", connection)
                kill_the_first_node_amid_a_trial(suite_dir, cluster, nodes)
                on_ray.run_ray(jobs, connection, board, interrupt, suite_dir)
    finally:
        cluster.shutdown()
    records = load_records(suite_dir / "records")
    assert {record["status"] for record in records} == {"ok"}
    assert len(records) == 5
    (moved,) = (record for record in records if record["attempt"] > 1)  # a node has room for one
    assert moved["history"][0]["epoch"] == 2  # resumed from its own last epoch
    assert board.rows["stubs"].done == 5


def listening_addresses(pids: set[int]) -> set[str]:
    """Hexadecimal addresses that these processes listen on, from /proc."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                inodes |= {os.readlink(link).removeprefix("socket:[").removesuffix("]")}
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state, inode = (line.split()[i] for i in (1, 3, 9))
            found |= {local.partition(":")[0]} if state == "0A" and inode in inodes else set()
    return found


LISTEN = """
import sys
from bench.sweep import on_ray
with on_ray.connected(None):
    import ray
    ray.get(ray.remote(lambda: None).remote())
    print("up", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_a_cluster_that_is_started_here_listens_on_the_loopback_alone():
    environment = {key: value for key, value in os.environ.items() if key not in ("RAY_ADDRESS", *on_ray.LOOPBACK)}
    command, pipe = [sys.executable, "-c", LISTEN], subprocess.PIPE
    with subprocess.Popen(command, cwd=HERE.parent, env=environment, stdin=pipe, stdout=pipe, text=True) as driver:
        try:
            assert driver.stdout.readline() == "up\n"
            addresses = listening_addresses({driver.pid} | descendants(driver.pid))
        finally:
            driver.stdin.close()
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
