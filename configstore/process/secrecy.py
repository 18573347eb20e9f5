"""Protects the memory of a process that reads private keys. Both command lines call it first."""

import ctypes
import resource
from contextlib import suppress

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Make this process leave no core dump, and no other process of its user read its memory (prctl(2)).

    1. RLIMIT_CORE alone would not do: the kernel ignores it where it hands dumps to a program (core(5)).
    2. It is set for child processes, such as checks and hooks, which are dumpable again after execve: nginx reads
       private keys, too.
    3. It is the soft limit, so that a command of `configstore run` can raise it.
    4. /proc/self stays readable to the process itself (proc(5)).
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
