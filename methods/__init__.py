"""What differs between the rows of a table: one file a method.

Importing this package registers every method; `methods.base.METHODS` maps a name to its configuration class and its `apply`.
"""

from methods import adapter, frozen, full, lora, mtlora, mtlora_plus, vpt
from methods.base import METHODS

__all__ = ["METHODS", "adapter", "frozen", "full", "lora", "mtlora", "mtlora_plus", "vpt"]
