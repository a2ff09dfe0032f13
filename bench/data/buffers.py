"""Memory for batches that is used again: the pages of a new array of 100 MB cost a CPU as much time as the pixels that go into them."""

import mmap
import weakref
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

_SMALL = 2**20
_HUGE_PAGE = 2**21
_NUMPY = {torch.float32: np.float32, torch.uint8: np.uint8}


class Buffers:
    """Hands out tensors like `torch.empty`; when the last view of one is gone, its memory serves the next of its size."""

    def __init__(self) -> None:
        self._free: dict[int, list[mmap.mmap]] = defaultdict(list)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor on the CPU, float32 or uint8."""
        count = int(np.prod(shape))
        size = count * dtype.itemsize
        if size < _SMALL:
            return torch.empty(shape, dtype=dtype)
        size = -(-size // _HUGE_PAGE) * _HUGE_PAGE
        free = self._free[size]
        try:
            block = free.pop()
        except IndexError:
            block = mmap.mmap(-1, size)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                block.madvise(mmap.MADV_HUGEPAGE)
        array = np.frombuffer(block, dtype=_NUMPY[dtype], count=count)
        # The tensor's storage holds `array`, whoever else holds the storage; so the block is free when `array` goes.
        weakref.finalize(array, free.append, block).atexit = False
        return torch.from_numpy(array).view(shape)
