"""The C library's memory allocator."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
_NEVER = -1


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next allocation instead of returning it.

    Training allocates and frees the same tensors in every step. By default each large tensor is
    mapped again, and each of its pages faults on first access: several percent of a step on a CPU.
    Does nothing with another C library.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, _NEVER)
