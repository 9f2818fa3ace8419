"""How much memory this process has taken, and how its tensors get theirs."""

import contextlib
import ctypes
import math
import os
import sys
from pathlib import Path

__all__ = ["peak_memory_mb", "prepare_allocator", "reset_peak_memory", "return_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT, _MAPPED = 64 << 20, 6 << 20  # bytes


def peak_memory_mb() -> float:
    """Report the largest resident memory of this process so far, in MB.

    Linux keeps it in /proc; ``ru_maxrss``, which stands in elsewhere, starts at what the parent process held. NaN where
    the system has neither, as Windows.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    for line in lines:  # some kernels, and sandboxes that imitate one, leave it out
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def reset_peak_memory() -> None:
    """Count the peak anew, from what the process holds now; where the system cannot, it goes on from the start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def prepare_allocator() -> None:
    """Have large tensors mapped on their own, in large pages, before torch makes its first.

    Mapped on its own, a tensor of 6 MB or more goes back to the system when it is freed: by itself glibc raises that
    bound to 32 MB, and the smaller tensors leave holes in a heap that only grows. Below it a tensor's memory is kept
    for the next, up to 64 MB: the system clears every page that it hands out, and what works slab by slab would wait
    for that more than compute. Large pages (on Linux, where its settings let a process ask) cost it a fraction of the
    time; a user's own ``THP_MEM_ALLOC_ENABLE`` goes first. Where the system or the C library is another, nothing
    happens.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _MAPPED)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def return_memory() -> None:
    """Give back to the system what has been freed and kept, before memory is taken in other ways.

    Where the C library is another, nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
