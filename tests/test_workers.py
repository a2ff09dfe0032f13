"""Pools of processes: they work, and do not outlive the process that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.workers import pool

REPOSITORY = Path(__file__).parent.parent
PARENT = """
import sys, time
from bench.workers import pool
if __name__ == "__main__":
    with pool(2) as workers:
        for _ in workers.map(time.sleep, [0.5] * 4):
            pass
        print(*workers._processes, flush=True)
        list(workers.map(time.sleep, [600] * 4))
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(") ")[2][0] != "Z"


def learn(greeting: str) -> None:
    """Leave something in this process."""
    os.environ["GREETING"] = greeting


def greet(name: str) -> str:
    """Return what the initializer left in this process."""
    return f"{os.environ['GREETING']} {name}"


def test_a_pool_runs_its_initializer_and_its_work():
    with pool(1, learn, ("hello",)) as workers:
        assert list(workers.map(greet, ["a", "b"])) == ["hello a", "hello b"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
def test_workers_die_with_the_process_that_started_them(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert all(map(alive, workers))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
