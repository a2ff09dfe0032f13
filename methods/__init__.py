"""What differs between the rows of a table: one file a method.

Importing this package registers every method; `methods.base.METHODS` maps a name to its configuration class and its `apply`.
"""

from methods import (
    adapter,
    bitfit,
    compacter,
    frozen,
    full,
    hyperformer,
    lora,
    lora_attention,
    mtlora,
    mtlora_plus,
    polyhistor,
    vpt,
    vpt_shallow,
)
from methods.base import METHODS

__all__ = [
    "METHODS",
    "adapter",
    "bitfit",
    "compacter",
    "frozen",
    "full",
    "hyperformer",
    "lora",
    "lora_attention",
    "mtlora",
    "mtlora_plus",
    "polyhistor",
    "vpt",
    "vpt_shallow",
]
