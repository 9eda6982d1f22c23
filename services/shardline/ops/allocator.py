"""The C allocator, told to keep large buffers.

glibc maps and unmaps every buffer above a threshold, and each round costs page faults: for 600 kB tensors that
halves what a process serves (docs/performance.md). With high thresholds freed buffers stay in the heap.
"""

from __future__ import annotations

import ctypes
import gc

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD_BYTES = 1 << 30
# The parameter is a C int, so 4 GB is passed by its largest value: the heap's top is practically never trimmed.
_TRIM_THRESHOLD_BYTES = (1 << 31) - 1


def keep_large_buffers() -> bool:
    """Set glibc's thresholds for this process. Returns False where the C library is another one."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  only glibc has it
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)) and bool(
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    )


def settle() -> None:
    """After start-up: what lives now lives on, so the cyclic collector need not look at it again.

    Requests make few cycles; with the default threshold of 700 objects the collector ran several times a millisecond.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def give_back_free_memory() -> bool:
    """Return what is free in the heap to the system, once. Returns False where nothing was, or the C library is another.

    For after a model was loaded or unloaded: each thread that loads has a heap of its own, which would keep the room.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    return bool(trim(ctypes.c_size_t(0)))
