"""What a Tune worker does: it supervises the trials of one setting after the other. No torch."""

import json
from typing import Any

from ray import tune

from bench.storage import StorageError
from bench.sweep.supervise import Supervisor
from bench.tuning.point import WORST_SCORE, run_point

SUPERVISOR: Supervisor | None = None
"""Of this worker: it lives as long as the actor, over many settings."""


def attend(config: dict[str, Any]) -> None:
    """Bring the trials of a setting to their records: the trainable."""
    global SUPERVISOR
    SUPERVISOR = SUPERVISOR or Supervisor()
    try:
        run_point(json.loads(config["jobs"]), config["rungs"], SUPERVISOR, tune.report)
    except StorageError as error:
        tune.report({"epoch": 0, "loss": 0.0, "status": "storage", "message": str(error), "rung": 0, "score": WORST_SCORE})
