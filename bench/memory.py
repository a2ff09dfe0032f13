"""How it reads that memory ran out, in the words of all that allocates for a trial. No torch."""

import contextlib
import os
import re
from pathlib import Path

ALLOCATORS = re.compile(
    r"can't allocate memory|not enough memory: you tried to allocate|std::bad_alloc|Cannot allocate memory|STATUS_ALLOC_FAILED"
    r"|(CUDA|HIP)( driver)?( error:)? out of memory|backend out of memory"
)
"""Of torch on CPUs and GPUs, C++, the operating system, and cuBLAS, cuDNN and their kin."""

UNDER_A_LIMIT = re.compile(
    r"could not (create|execute) a primitive(?! descriptor)|could not create a memory object|can't start new thread|Thread creation failed"
)
"""What oneDNN and threads say where an allocation of theirs was refused; without a limit on memory they may mean something else."""

DYING = re.compile(r"^MemoryError|Out of memory", re.MULTILINE)
"""Last words of a process that could not even raise."""


def says_out_of_memory(text: str, *, limited: bool) -> bool:
    """Whether the text of an error says that memory ran out, of a process whose memory was limited or was not."""
    return bool(ALLOCATORS.search(text) or (limited and UNDER_A_LIMIT.search(text)))


def last_words(log: str) -> str | None:
    """Return the line in the log of a process that died under a limit on memory which says that it ran out of it, None without one."""
    found = [line for line in log.splitlines() if says_out_of_memory(line, limited=True) or DYING.search(line)]
    return found[-1].strip() if found else None


def memory_limit() -> int | None:
    """Return how many bytes this process may hold (`bench.sweep.nursery` sets it); None without a limit."""
    with contextlib.suppress(ImportError):
        import resource

        limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS))
        return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None)
    return None


CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says what a container may hold; "max" without a limit."""


def machine_memory() -> int | None:
    """Return the bytes of memory that this machine, or the container that this is, has; None where the system does not say."""
    found = []
    with contextlib.suppress(ValueError, OSError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in CGROUP_LIMITS:
        with contextlib.suppress(ValueError, OSError):
            found.append(int(path.read_text()))
    return min(found, default=None)
