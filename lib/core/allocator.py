"""Memory that tensors give back is kept for those that come, on the CPU: by settings of glibc's allocator.

By itself glibc asks the system for every large block and gives it back when it is freed. A pass over images of 224 px does
so with every activation, and the system clears each page anew: a fifth of the time of a ResNet-50. Kept memory costs nothing
of that. What a process holds then is the most that it has needed at one time, and what lies between blocks in use.
"""

import ctypes
import os

SWITCH = "KEEP_FREED_MEMORY"  # the environment variable; 0: glibc's own settings
CHOSEN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")  # whoever has set any of these has chosen
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # the numbers of mallopt's parameters in <malloc.h>
PAD = 1 << 26  # bytes that are asked for beyond what is needed


def keep_freed_memory() -> bool:
    """Whether freed memory is kept from now on: not where the environment says otherwise, nor by another C library."""
    if os.environ.get(SWITCH) == "0" or any(name.startswith(CHOSEN) for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, PAD))
    return all([library.mallopt(parameter, value) for parameter, value in settings])
