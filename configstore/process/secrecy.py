"""Keeps the memory of a process that reads private keys out of others' reach. Both command lines call it first."""

import ctypes
import resource
from contextlib import suppress

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Leave no core dump, and let no other process of our user read our memory (prctl(2), PR_SET_DUMPABLE).

    The limit alone would not do: it does not hold where the kernel hands dumps to a program (core(5)). It is for
    what we start, such as checks and hooks, which is dumpable again: nginx reads private keys, too. It is the soft
    one, so that a command of `configstore run` may have its dumps. Our own /proc/self stays open to us (proc(5)).
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
