"""One job after the other on this machine, each in a process of its own. Without Ray."""

from typing import Any

from bench.progress import Board
from bench.sweep.interrupt import Interrupt
from bench.sweep.supervise import Supervisor


def run_serial(jobs: list[dict[str, Any]], board: Board, interrupt: Interrupt) -> None:
    """Run jobs in their order; after the first Ctrl-C start no more.

    Raises:
        StorageError: The disk does not take what a trial writes.
        KeyboardInterrupt: The second Ctrl-C; what ran was killed, and goes on from its last epoch later.
    """
    with Supervisor() as supervisor:
        for job in jobs:
            if interrupt.stopping:
                return
            board.started(job["run_id"])
            status = supervisor.run(job, lambda line, run_id=job["run_id"]: board.epoch(run_id, line))
            board.finished(job["run_id"], status)
