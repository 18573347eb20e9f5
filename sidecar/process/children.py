"""The processes that we start, and those that we inherit as process 1 of a container.

Whoever is process 1 becomes the parent of every process whose own parent has ended, such as what a hook leaves
behind; one that nobody waits for stays as a zombie until no process can be started any more. Our own children are
waited for by who started them: their exit codes must not be taken away. Called by `hooks` and by `signals`.
"""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_own: set[int] = set()
_starting = threading.Lock()
"""Held while a child is started, so that it is known before anybody reaps."""


@contextmanager
def started(start: Callable[[], "subprocess.Popen[bytes]"]) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a child of our own and wait for it at the end. Raises OSError when it cannot be started."""
    with _starting:
        process = start()
        _own.add(process.pid)
    try:
        with process:
            yield process
    finally:
        _own.discard(process.pid)


def reap_orphans(processes: str = "/proc") -> None:
    """Wait for all inherited children that have ended."""
    with _starting:
        for pid in _zombies(processes):
            if pid not in _own:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _zombies(processes: str) -> Iterator[int]:
    """Yield our children that have ended and were not waited for."""
    me = str(os.getpid()).encode()
    for pid in filter(str.isdecimal, os.listdir(processes)):
        with suppress(OSError), open(f"{processes}/{pid}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]  # a name may hold parentheses
            if state == b"Z" and parent == me:
                yield int(pid)
