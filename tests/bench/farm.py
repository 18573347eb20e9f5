"""Many real sidecars on one machine, forked from a process that has imported what they need.

Each is a process with its own settings, directories, state and connection, and runs the sidecar's own `main`.
What is shared is what the imports made: it is not done again, so neither its CPU nor its memory is counted.
A sidecar's RSS includes those pages, its PSS a small share of them: neither is what one by itself would have.

gRPC does not survive a fork: the parent imports it and makes no channel, so that it has one thread and nothing is
half done in it.
"""

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
"""How many instances of inotify a user may have. Each mapping of a sidecar takes one; without it polls."""

SPARE = 100
"""Instances for whatever else this user runs."""

_PR_SET_PDEATHSIG = 1


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
    """The parent of all sidecars. Ends them with itself."""

    def __init__(self) -> None:
        """Start the parent, which takes a second for what it imports."""
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.farm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pids: dict[int, int] = {}  # by the sidecar's number
        self._ask({})

    def start(self, number: int, settings: Path, log: Path) -> None:
        """Start a sidecar."""
        self.pids[number] = self._ask({"settings": str(settings), "log": str(log)})

    def stop(self, numbers: Sequence[int], how: signal.Signals = signal.SIGTERM, patience: float = 60.0) -> None:
        """End sidecars, and wait until they have ended. Raises SystemExit when one does not."""
        ends = []
        for number in numbers:
            pid = self.pids.pop(number)
            with contextlib.suppress(ProcessLookupError):
                ends.append(os.pidfd_open(pid))
                os.kill(pid, how)
        late = time.monotonic() + patience
        waiting = select.poll()
        for each in ends:
            waiting.register(each, select.POLLIN)
        left = len(ends)
        while left and time.monotonic() < late:
            for each, _ in waiting.poll(1000):
                waiting.unregister(each)
                left -= 1
        for each in ends:
            os.close(each)
        if left:
            raise SystemExit(f"bench: {left} sidecars did not end within {patience:g} s")

    def died(self) -> list[int]:
        """Return the numbers of sidecars that are not there any more."""
        return [number for number, pid in self.pids.items() if not os.path.exists(f"/proc/{pid}")]

    def close(self) -> None:
        """End all of them at once."""
        with contextlib.suppress(SystemExit):
            self.stop(list(self.pids), signal.SIGKILL, 20)
        if self._parent.stdin:
            self._parent.stdin.close()
        self._parent.wait(20)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _ask(self, what: dict[str, object]) -> int:
        if not (self._parent.stdin and self._parent.stdout):
            raise SystemExit("bench: the parent of the sidecars has no pipes")
        self._parent.stdin.write(f"{json.dumps(what)}\n")
        self._parent.stdin.flush()
        answer = self._parent.stdout.readline()
        if not answer:
            raise SystemExit("bench: the parent of the sidecars has ended")
        return int(answer)


def _serve() -> None:
    """Fork a sidecar for each line that asks for one, until there are no more lines."""
    import configstore.store.etcd  # noqa: F401, PLC0415 - imported once, for all
    from sidecar.daemon import commands  # noqa: F401, PLC0415  # as above
    from sidecar.reporting import gauges, health  # noqa: F401, PLC0415  # as above

    if len(os.listdir("/proc/self/task")) != 1:
        raise SystemExit("bench: an import has started a thread, so that nothing may be forked")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: the kernel forgets those that end
    gc.collect()
    gc.freeze()  # else the first collection in each would write to every page
    for line in sys.stdin:
        what = json.loads(line)
        pid = os.fork() if what else 0
        if what and not pid:
            _become(what["settings"], what["log"])
        print(pid, flush=True)


def _become(settings: str, log: str) -> None:
    """Be a sidecar, in a child."""
    from sidecar.__main__ import main  # noqa: PLC0415  # as above

    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        null, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number, descriptor in ((0, null), (1, out), (2, out)):
            os.dup2(descriptor, number)
        code = main(["run", "--config", settings])
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
