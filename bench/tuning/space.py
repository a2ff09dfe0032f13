"""What is tuned: the space of a row, the quasi-random points in it, and a trial at such a point."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from bench.config import ConfigError, TrialConfig
from bench.suites import Suite
from methods.base import MethodConfig, Range

LEARNING_RATE = "peak_lr"
LEARNING_RATE_FACTOR = 10.0
"""A suite that declares no range of learning rates gets the one from a tenth to ten times its own."""

MAX_METHOD_DIALS = 2
DIMENSIONS = 1 + MAX_METHOD_DIALS
DIGITS = 4
"""Significant digits of a tuned value: enough to tell settings apart, few enough to read."""


def learning_rates(suite: Suite) -> Range:
    """Return the range of learning rates of a suite, the same for all its rows.

    Raises:
        ConfigError: The suite declares none, and its rows have different learning rates.
    """
    if suite.learning_rates is not None:
        return suite.learning_rates
    own = {trial.recipe.peak_lr for trial in suite.trials}
    if len(own) > 1:
        raise ConfigError(
            f"suite {suite.name} has learning rates {sorted(own)}: declare one range for all rows, `Suite(learning_rates=Range(...))`"
        )
    (centre,) = own
    return Range(low=rounded(centre / LEARNING_RATE_FACTOR), high=rounded(centre * LEARNING_RATE_FACTOR), log=True)


def space_of(method: MethodConfig, rates: Range) -> dict[str, Range]:
    """Return what is tuned for a method: the learning rate, then the dials that the method declares.

    Raises:
        ConfigError: The method declares more dials than the protocol allows.
    """
    if len(method.tunable) > MAX_METHOD_DIALS:
        raise ConfigError(f"{method.title} declares {len(method.tunable)} tunable dials; {MAX_METHOD_DIALS} are allowed")
    return {LEARNING_RATE: rates, **method.tunable}


def unit_points(count: int, seed: int) -> np.ndarray:
    """Return the first points of a scrambled Halton sequence, the same for every row.

    A longer sequence begins with the shorter ones. The first coordinate, the learning rate's, has base 2.

    Returns:
        (count, 3) float64 in [0, 1).
    """
    from scipy.stats import qmc

    return qmc.Halton(DIMENSIONS, scramble=True, rng=np.random.default_rng(seed)).random(count)


def values_at(space: Mapping[str, Range], unit: np.ndarray) -> dict[str, float]:
    """Return the setting at a point of the unit cube; a space of fewer dimensions takes the first coordinates."""
    return {name: value_at(interval, float(x)) for (name, interval), x in zip(space.items(), unit, strict=False)}


def value_at(interval: Range, x: float) -> float:
    """Return the value of an interval at x in [0, 1]."""
    if interval.log:
        low, high = math.log(interval.low), math.log(interval.high)
        return rounded(math.exp(low + x * (high - low)))
    return rounded(interval.low + x * (interval.high - interval.low))


def rounded(value: float) -> float:
    """Round to `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")


def with_values(trial: TrialConfig, values: Mapping[str, float]) -> TrialConfig:
    """Return the trial at a setting; the learning rates at the start of the warm-up and at the end keep their ratio to the peak."""
    ratio = values[LEARNING_RATE] / trial.recipe.peak_lr
    lrs = {name: rounded(getattr(trial.recipe, name) * ratio) for name in ("warmup_lr", "min_lr")}
    recipe = dataclasses.replace(trial.recipe, peak_lr=values[LEARNING_RATE], **lrs)
    dials = {name: value for name, value in values.items() if name != LEARNING_RATE}
    return dataclasses.replace(trial, recipe=recipe, method=dataclasses.replace(trial.method, **dials))
