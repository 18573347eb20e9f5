"""Many real sidecars on one machine, forked from a process that has imported what they need (`zygote`).

Each is a process with its own settings, directories, state and connection, and runs the sidecar's own `main`.
What is shared is what the imports made: it is not done again, so neither its CPU nor its memory is counted.
A sidecar's RSS includes those pages, its PSS a small share of them: neither is what one by itself would have.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from tests.harness import zygote

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
"""How many instances of inotify a user may have. Each mapping of a sidecar takes one; without it polls."""

SPARE = 100
"""Instances for whatever else this user runs."""


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """Have the kernel let one user follow so many directories. Raises SystemExit when that is not ours to say."""
    before = int(INSTANCES.read_text())
    if before >= count + SPARE:
        yield
        return
    try:
        INSTANCES.write_text(str(count + SPARE))
    except OSError as error:
        raise SystemExit(
            f"bench: {count} sidecars need as many instances of inotify, and a user may have {before}:"
            f" sysctl -w fs.inotify.max_user_instances={count + SPARE}"
        ) from error
    print(f"fs.inotify.max_user_instances: {count + SPARE} until the end, {before} then")
    try:
        yield
    finally:
        INSTANCES.write_text(str(before))


class Farm:
    """All sidecars. Ends them with itself."""

    def __init__(self) -> None:
        self._processes: dict[int, zygote.Forked] = {}  # by the sidecar's number

    @property
    def pids(self) -> dict[int, int]:
        """The process ids by the sidecars' numbers."""
        return {number: process.pid for number, process in self._processes.items()}

    def start(self, number: int, settings: Path, log: Path) -> None:
        """Start a sidecar."""
        with open(os.devnull, "rb") as null, log.open("ab") as out:
            files = [null.fileno(), out.fileno(), out.fileno()]
            words = ["run", "--config", str(settings)]
            self._processes[number] = zygote.fork("sidecar", words, dict(os.environ), files)

    def stop(self, numbers: Sequence[int], how: signal.Signals = signal.SIGTERM, patience: float = 60.0) -> None:
        """End sidecars, and wait until they have ended. Raises SystemExit when one does not."""
        ending = [self._processes.pop(number) for number in numbers]
        for process in ending:
            process.send_signal(how)
        late = time.monotonic() + patience
        try:
            for process in ending:
                process.wait(max(0.0, late - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            raise SystemExit(f"bench: a sidecar did not end within {patience:g} s") from error

    def died(self) -> list[int]:
        """Return the numbers of sidecars that are not there any more."""
        return [number for number, process in self._processes.items() if process.poll() is not None]

    def close(self) -> None:
        """End all of them at once."""
        with contextlib.suppress(SystemExit):
            self.stop(list(self._processes), signal.SIGKILL, 20)
        zygote.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()
