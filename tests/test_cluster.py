"""Three raylets on this machine: trials of a node that dies move and resume; a node that is not fit is named before the start."""

import threading
import time
from pathlib import Path

import pytest
from test_supervise import HERE, jobs_of, wait_for

from bench.progress import Board
from bench.record import load_records
from bench.sweep import on_ray, preflight
from bench.sweep.interrupt import Interrupt
from bench.sweep.room import RoomError


def kill_a_node_soon(suite_dir: Path, cluster, nodes: list) -> None:
    """Remove, as a crash would, the node that runs the first trial which has finished an epoch."""

    def kill() -> None:
        wait_for(lambda: any("epoch 1" in path.read_text() for path in (suite_dir / "checkpoints").glob("*.attempts")))
        time.sleep(0.2)
        cluster.remove_node(nodes[0], allow_graceful=False)

    threading.Thread(target=kill, daemon=True).start()


@pytest.mark.slow
def test_trials_of_a_dead_node_move_and_resume_and_a_broken_node_is_named_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("STUB_SECONDS", "0.5")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20})
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
        broken = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, env_vars={"PYTHONPATH": f"{HERE}:{HERE / 'broken_node'}"})
        suite_dir = tmp_path / "stub"
        suite_dir.mkdir()
        with on_ray.connected(cluster.address) as connection:
            expected = preflight.expectation(suite_dir, None, None)
            with pytest.raises(preflight.PreflightError, match=r"1 of 4 nodes.*not fit(.|\n)*numpy: 0.0.1, the driver has"):
                on_ray.check_nodes(connection, expected, gpus=0, leave_out=False)
            (said,) = on_ray.check_nodes(connection, expected, gpus=0, leave_out=True)
            assert broken.node_id[:8] in said
            preflight.forget(expected)
            jobs = jobs_of(suite_dir, range(8))
            with pytest.raises(RoomError, match=r"asks for 7 CPUs, 0 GPUs .* 1 CPUs, 0 GPUs"):
                on_ray.require_fitting([jobs[0] | {"cpus": 7}], connection)
            with Board({job["run_id"]: ("stubs", job["epochs"]) for job in jobs}, quiet=True) as board, Interrupt(print) as interrupt:
                kill_a_node_soon(suite_dir, cluster, nodes)
                on_ray.run_ray(jobs, connection, board, interrupt, suite_dir)
    finally:
        cluster.shutdown()
    records = load_records(suite_dir / "records")
    assert {record["status"] for record in records} == {"ok"}
    assert len(records) == 8
    moved = [record for record in records if record["attempt"] > 1]
    assert moved
    assert all(record["history"][0]["epoch"] >= 1 for record in moved)  # resumed from its own last epoch
    assert board.rows["stubs"].done == 8
