"""Keeps the daemon's memory small: a sidecar runs beside every container (mallopt(3), malloc_trim(3), madvise(2)).

glibc's defaults trade memory for speed on many cores: an arena a thread, and freed memory kept for the next
burst. A first pull of a thousand files would keep 5 MiB for ever. Another C library without these calls (musl)
needs none of it, so their absence is no error.
"""

import ctypes
import gc
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 64 * 1024
_MADV_DONTNEED = 4

_libc = ctypes.CDLL(None)


def economize() -> None:
    """Let all threads share one arena, and large pieces go back to the kernel when freed. Call it at the start.

    When all is imported: what is there now stays to the end, and is not looked through again and again for what
    could be freed.
    """
    gc.freeze()
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)
        _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        _libc.mallopt(_M_TRIM_THRESHOLD, _LARGE)


def give_back() -> None:
    """Give freed memory back to the kernel; takes about a millisecond. Call after a burst."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def let_go_of_code() -> None:
    """Let go of the program code that the start alone ran: five MiB of libraries. Call when it is over.

    It stays in the page cache, from which what is run again comes back without being read. It must be code, which
    nobody has written to: of what was, the pages would be lost.
    """
    with suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        code = [line.split()[0] for line in maps if line.split()[1] == "r-xp" and line.split()[4] != "0"]
        for where in code:
            begin, end = (int(each, 16) for each in where.split("-"))
            _libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
