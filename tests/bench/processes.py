"""What processes take, by the kernel's own account, and where what is measured lies in memory."""

import os
import time
from pathlib import Path

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""A folder in memory, None where there is none: for `tempfile`, which then takes its default."""


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used, threads that ended included (clock_getcpuclockid(3)).

    Ticks are too coarse, and timers wake in step with them.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident(pid: int, field: str = "Rss") -> float:
    """Return a field of a process's /proc/PID/smaps_rollup in MiB, such as Rss or Pss."""
    return _mib(Path(f"/proc/{pid}/smaps_rollup"), field)


def highest(pid: int) -> float:
    """Return the most that a process's resident memory ever was, in MiB."""
    return _mib(Path(f"/proc/{pid}/status"), "VmHWM")


def _mib(file: Path, field: str) -> float:
    lines = file.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def keep_byte_code(folder: Path) -> None:
    """Let what is started from here have its byte code, as a release has, in a folder of ours.

    Without it each start compiles, which takes more time and memory than all else.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
