"""The sidecar's own child processes, and those that it inherits as process 1 of a container.

Process 1 becomes the parent of every process whose parent has ended, such as what a hook leaves behind. A child
that is not waited for stays as a zombie, until no process can be started any more. The sidecar's own children are
waited for by the thread that started them, so their exit codes must not be taken away. Called by `programs.hooks`
and `signals`.
"""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

_own: set[int] = set()
_starting = threading.Lock()
"""Held while a child is started: one that ended before it is in `_own` would be taken for an orphan."""


class ProcessStat(NamedTuple):
    """A process: its name as the kernel keeps it, its parent, and whether it has ended but was not waited for."""

    pid: int
    name: bytes
    parent: int
    zombie: bool


@contextmanager
def started(start: Callable[[], "subprocess.Popen[bytes]"]) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a child, and wait for it at the end of the body. Raises OSError when it cannot be started."""
    with _starting:
        process = start()
        _own.add(process.pid)
    try:
        with process:
            yield process
    finally:
        _own.discard(process.pid)


def reap_orphans() -> None:
    """Wait for all inherited children that have ended."""
    me = os.getpid()
    with _starting:
        for pid in [each.pid for each in processes() if each.zombie and each.parent == me]:
            if pid not in _own:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def processes() -> Iterator[ProcessStat]:
    """Yield every process of this PID namespace, as proc_pid_stat(5) has it."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError, ValueError), open(f"/proc/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b")")  # a name may contain spaces and parentheses
            state, parent = tail.split()[:2]
            yield ProcessStat(int(pid), head.partition(b"(")[2], int(parent), zombie=state == b"Z")
