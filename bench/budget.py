"""Solve for the dial of a method that fits a budget of parameters, by the methods' closed forms."""

import bisect
import dataclasses

from bench.config import ConfigError
from methods.base import MethodConfig
from methods.shape import Shape

LARGEST_DIAL = 4096


def at_budget(config: MethodConfig, field: str, budget: int, shape: Shape, *, copies: int = 1) -> MethodConfig:
    """Return `config` with the largest value of an int field whose trainable parameters stay within the budget.

    Args:
        config: The method; the other fields stay.
        field: Its parameters must grow with this field.
        budget: Trainable parameters of the backbone and the method, without decoders.
        shape: Of the backbone, and the number of tasks that one copy serves.
        copies: Models that the budget pays for.

    Raises:
        ConfigError: Not even 1 fits, or 4096 does.
    """

    def cost(value: int) -> int:
        return copies * dataclasses.replace(config, **{field: value}).trainable(shape)

    value = bisect.bisect_right(range(1, LARGEST_DIAL + 1), budget, key=cost)
    if value == 0:
        raise ConfigError(f"{config.title}: {field} = 1 trains {cost(1)} parameters, more than the budget of {budget}")
    if value == LARGEST_DIAL:
        raise ConfigError(f"{config.title}: {field} = {LARGEST_DIAL} trains only {cost(value)} parameters of the budget of {budget}")
    return dataclasses.replace(config, **{field: value})
