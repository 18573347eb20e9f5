"""Keeps the daemon's memory small: a sidecar runs beside every container (mallopt(3), malloc_trim(3), madvise(2)).

glibc's defaults trade memory for speed on many cores: one arena for each thread, and freed memory is kept for the
next burst; after a first pull of a thousand files 5 MiB would stay allocated. A C library without these calls
(musl) does not need them, so their absence is no error. Called by `sidecar.__main__` and `cycle.mirror`.
"""

import ctypes
import gc
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE = 64 * 1024
_MADV_DONTNEED = 4

BURST = 50
"""Number of changed paths after which freed memory is returned to the kernel."""

_libc = ctypes.CDLL(None)


def economize() -> None:
    """Have all threads share one arena, and large pieces returned to the kernel when they are freed.

    Call it once everything is imported: what exists now stays to the end, and the garbage collector skips it.
    """
    gc.freeze()
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)
        _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        _libc.mallopt(_M_TRIM_THRESHOLD, _LARGE)


def give_back() -> None:
    """Return freed memory to the kernel; takes about a millisecond. Call it after a burst."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def let_go_of_code() -> None:
    """Drop the pages of code that only the start ran, five MiB of libraries; call it when the start is over.

    Code that runs again is mapped from the page cache without being read. Only mappings that were never written to
    (r-xp, of a file) may be dropped: of others the content would be lost (madvise(2), MADV_DONTNEED).
    """
    with suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        code = [line.split()[0] for line in maps if line.split()[1] == "r-xp" and line.split()[4] != "0"]
        for where in code:
            begin, end = (int(each, 16) for each in where.split("-"))
            _libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


class CycleMemory:
    """Returns freed memory once a mapping is ready, and after each burst of changes since."""

    def __init__(self) -> None:
        self._returned_at: int | None = None

    def cycle_over(self, *, ready: bool, changed: int) -> None:
        """Return memory if it is time. changed: how many paths were changed since the start."""
        first = self._returned_at is None
        if ready if self._returned_at is None else changed - self._returned_at >= BURST:
            give_back()
            if first:
                let_go_of_code()
            self._returned_at = changed
