"""How this process uses memory."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
_NEVER = -1


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next allocation, instead of handing it back.

    Training allocates and frees the same tensors in every step. By default each large one is
    mapped anew, and every page of it faults on first touch: several percent of a step on a CPU.
    Does nothing where the C library is another one.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, _NEVER)
