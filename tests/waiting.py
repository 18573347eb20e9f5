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


def wait_until(condition: Callable[[], Found], deadline: float = 10.0, *, what: str = "") -> Found:
    """Return the condition's first true value; fail after `deadline` seconds, saying what was waited for."""
    end = time.monotonic() + deadline
    pause = threading.Event()
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline} s: {what or getattr(condition, '__name__', condition)}")
        pause.wait(0.005)


def freeze(process: subprocess.Popen[Any]) -> None:
    """Stop a process with SIGSTOP, and wait until each of its threads stands still, which a system call delays."""
    os.kill(process.pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{process.pid}/task")
    wait_until(lambda: all(_state(task) in "TtZX" for task in tasks.iterdir()), 30, what="all threads stand still")


def _state(task: Path) -> str:
    """Return the letter of a thread's state (proc_pid_stat(5)), behind its name in parentheses."""
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return "X"
