"""Keeps the daemon's memory small: a sidecar runs beside every container (mallopt(3), malloc_trim(3)).

glibc's defaults trade memory for speed on many cores: an arena a thread, and freed memory kept for the next
burst. A first pull of a thousand files would keep 5 MiB for ever. Another C library without these calls (musl)
needs none of it, so their absence is no error.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 64 * 1024

_libc = ctypes.CDLL(None)


def economize() -> None:
    """Let all threads share one arena, and large pieces go back to the kernel when freed. Call at the start."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)
        _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        _libc.mallopt(_M_TRIM_THRESHOLD, _LARGE)


def give_back() -> None:
    """Give freed memory back to the kernel; takes about a millisecond. Call after a burst."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
