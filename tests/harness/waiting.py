"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Found = TypeVar("Found")


PATIENCE = float(os.environ.get("CONFIGSTORE_TEST_PATIENCE", "90"))
"""Seconds for which a condition is waited for at least, which only a failure needs: on a slow machine, under load,
what takes two seconds elsewhere takes half a minute. pytest's own limit of a test's time is longer."""

_FIRST, _LONGEST = 0.005, 0.05
"""Seconds between two looks: a long wait shall not take a core from what it waits for."""


def wait_until(
    condition: Callable[[], Found],
    deadline: float = 10.0,
    *,
    what: str | Callable[[], str] = "",
    bound: float | None = None,
) -> Found:
    """Return the condition's first true value; fail after some time, saying what was waited for.

    deadline: seconds for what takes long by itself; it counts where it is longer than PATIENCE. bound: seconds
    within which it must be, where just that is to be shown. what: a function tells it as it is at the end.
    """
    end = time.monotonic() + (max(deadline, PATIENCE) if bound is None else bound)
    began, wait = time.monotonic(), _FIRST
    pause = threading.Event()
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= end:
            after = f"not within {time.monotonic() - began:.0f} s"
            said = what() if callable(what) else what
            raise AssertionError(f"{after}: {said or getattr(condition, '__name__', condition)}")
        pause.wait(wait)
        wait = min(1.1 * wait, _LONGEST)


def freeze(process: subprocess.Popen[Any]) -> None:
    """Stop a process with SIGSTOP, and wait until each of its threads stands still, which a system call delays."""
    os.kill(process.pid, signal.SIGSTOP)
    tasks = f"/proc/{process.pid}/task"
    wait_until(
        lambda: all(state(task) in "TtZX" for task in os.listdir(tasks)), 30, what="all threads stand still"
    )


def state(pid: int | str) -> str:
    """Return the letter of a process's or a thread's state (proc_pid_stat(5)), behind its name in parentheses."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return "X"
