"""Whose fault it was that a Ray worker ended: its trial's, its node's, or its own. What the driver knows goes into the trial's attempts.

Ray and Tune count all ends alike. A trial whose node was removed, preempted or crashed must move on as often as that happens; one that
kills its worker, by its memory or its code, must not.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.sweep.attempts import MAX_LOSSES, Attempts

NODE = re.compile(r"node has died|node died|node is dead|preempt|node (was|is being) (drained|removed|terminated)|is unavailable", re.I)
MEMORY = re.compile(r"OutOfMemory|NODE_OUT_OF_MEMORY|running low on memory|memory pressure", re.I)
ACTOR = "The actor"
"""How Ray's messages about the end of a worker begin; what a worker raised begins with its traceback."""

GUESSES = "Some common causes"
"""Where Ray stops to report and lists what might have been, memory and nodes among it."""


def end_of(error: str, worker: str) -> str:
    """Return the line about an attempt's end.

    Args:
        error: What Ray said of the worker's end.
        worker: The line where the worker's process ended, and its node and Ray had no part in it.
    """
    if out_of_memory(error):
        return "died with its worker, which Ray ended for want of memory"
    if not error.lstrip().startswith(ACTOR):
        said = error.strip().splitlines()
        return f"died with an error of its worker: {said[-1] if said else 'unknown'}"
    return "lost with its node" if NODE.search(error.partition(GUESSES)[0]) else worker


def out_of_memory(error: str) -> bool:
    """Whether Ray says that it ended a worker for want of memory."""
    return MEMORY.search(error.partition(GUESSES)[0]) is not None


def tune_failures(max_attempts: int) -> int:
    """Return how often Tune may start a worker again; attempts and losses are counted in the trials' own files."""
    return MAX_LOSSES + max_attempts


class LostWorkers:
    """Notes the ends of Tune's workers that do not end well, while Tune starts them again.

    Args:
        worker: As of `end_of`.
        max_attempts: So often may a worker raise: that is a defect, which moving on does not mend.
    """

    def __init__(self, worker: str, max_attempts: int) -> None:
        self.worker, self.max_attempts, self.raised = worker, max_attempts, {}

    def note(self, trial: Any, attempts: Iterable[Path]) -> None:
        """Give the open starts of a Tune trial's trials, by their attempts' files, an end."""
        error = last_failure(Path(trial.error_file)) if trial.error_file else ""
        for path in attempts:
            if (of_trial := Attempts.read(path)).open:
                of_trial.add(end_of(error, self.worker))
        if not error.lstrip().startswith(ACTOR):
            self.raised[trial.trial_id] = self.raised.get(trial.trial_id, 0) + 1
            if self.raised[trial.trial_id] >= self.max_attempts - 1:
                trial.max_failures = min(trial.max_failures, trial.run_metadata.num_failures)


def last_failure(file: Path) -> str:
    """Return the last entry of a Tune trial's file of errors, "" where there is none."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return re.split(r"^Failure # \d+ \(.*\)\n", text, flags=re.M)[-1]
