"""Evaluate the held-out part of the training split while a model trains, and keep what was measured at its best epoch."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.measure.score import reference_free_score

Metrics = dict[str, dict[str, float | None]]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """When the held-out images are evaluated, and how.

    Attributes:
        every: Epochs between two evaluations; None evaluates after the last epoch only, which is always evaluated.
        evaluate: Returns the metrics a task on the held-out images, of the model as it is.
        at_best: Returns the metrics a task on the validation split; called when a held-out score is the best so far. None measures
            nothing then: a tuning trial never sees the validation split.
    """

    every: int | None
    evaluate: Callable[[], Metrics]
    at_best: Callable[[], Metrics] | None

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Whether the held-out images are evaluated after epoch `epoch` (1 first) of `epochs`."""
        return epoch == epochs or (self.every is not None and epoch % self.every == 0)

    def measure(self, line: dict[str, Any], best: dict[str, Any] | None) -> dict[str, Any]:
        """Evaluate, put `held_out` and `held_out_seconds` into the epoch's line of the history, and return the best so far.

        Args:
            line: Of the epoch that has just ended.
            best: What this method returned last, None at first.

        Returns:
            `epoch`, `score` and `metrics` of the best epoch so far; of two equal scores the earlier one is the best.
        """
        started = time.perf_counter()
        metrics = self.evaluate()
        score = reference_free_score(metrics)
        line["held_out"] = metrics | {"score": score}
        if best is None or score > best["score"]:
            best = {"epoch": line["epoch"], "score": score, "metrics": None if self.at_best is None else self.at_best()}
        line["held_out_seconds"] = time.perf_counter() - started
        return best


def held_out_metrics(line: dict[str, Any]) -> Metrics:
    """Return the metrics a task of an epoch's line that was evaluated on the held-out images."""
    return {task: metrics for task, metrics in line["held_out"].items() if task != "score"}
