"""Imports without what nobody here asks for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_without(package: str) -> Iterator[None]:
    """Let imports of a package fail in this block, as where it is not installed; nothing changes if it is imported already.

    timm imports W&B wherever it finds it, for a training script of its own: a third of the start of every process that builds a backbone.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]
