"""One number for a model on several tasks that needs no reference row: what tuning and the choice of an epoch maximise. No torch."""

import math
from collections.abc import Mapping

from bench.errors import SuiteError
from bench.tasks import TASKS

FLOOR = 1e-3
"""Metrics below this count as this, so that the logarithm of a model that learnt nothing is finite."""


class ScoreError(SuiteError):
    """There is no score, because a task was not measured; the message names it."""


def reference_free_score(metrics: Mapping[str, Mapping[str, float | None]]) -> float:
    """Return the mean over tasks of s * 100 ln(max(metric, 0.001)), s = +1 where higher is better, else -1.

    The difference of two models' scores is, to first order, the delta_m in percent of the one against the other.

    Args:
        metrics: Per task its metrics, the headline metric among them (percent, degrees, metres).

    Raises:
        ScoreError: A headline metric is missing: hold out more images, so that every task has labelled pixels.
    """
    total = 0.0
    for task, values in metrics.items():
        value = values.get(TASKS[task].metric)
        if value is None:
            raise ScoreError(f"no {TASKS[task].metric} of {task} on the held-out images: nothing is labelled there; hold out more images")
        total += (1 if TASKS[task].higher_is_better else -1) * 100 * math.log(max(value, FLOOR))
    return total / len(metrics)
