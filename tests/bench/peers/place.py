"""Where one program under measurement runs: its folders, its processes, what they take."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "BENCH_PEER"
"""A variable that all processes of a program inherit, daemons and their helpers, too: so they are found again."""


class AbsentError(Exception):
    """This program cannot be measured here; says what is missing."""


@dataclass(frozen=True)
class Memory:
    """MiB of a group of processes: RSS counts what they share once for each, PSS once for all."""

    rss: float
    pss: float
    processes: int


@dataclass(frozen=True)
class Running:
    """A program that mirrors `source` to `target`."""

    source: Path
    target: Path
    scratch: Path
    """On the source's file system, unwatched: what is renamed into place is written here."""
    events: bool = True
    """Whether inotify tells of arrivals at the target; not in a network file system, at which one has to look."""
    fixed: bool = False
    """Whether only files that were named beforehand are mirrored."""


class Place:
    """The folders and processes of one program."""

    def __init__(self, name: str, files: Path, state: Path, packages: Path) -> None:
        """`files` is memory, as what is mirrored is in a container; `state` a disk, as for what must last."""
        self.name = name
        self.state = state / name
        self.files = files / name
        self.packages = packages
        self._processes: list[subprocess.Popen[bytes]] = []
        self.source, self.target, self.scratch = (self.files / each for each in ("source", "target", "scratch"))
        for folder in (self.state, self.source, self.target, self.scratch):
            folder.mkdir(parents=True)

    def running(self) -> Running:
        """Return what most programs need: two directories."""
        return Running(self.source, self.target, self.scratch)

    @contextlib.contextmanager
    def marked(self, role: str) -> Iterator[None]:
        """Count what is started meanwhile as `hosts` (a program on either host) or `server`."""
        before = os.environ.get(MARK)
        os.environ[MARK] = f"{self.name}/{role}"
        try:
            yield
        finally:
            os.environ.pop(MARK)
            if before is not None:
                os.environ[MARK] = before

    def start(
        self, command: Sequence[str | Path], role: str = "hosts", **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start a daemon, its output in a log."""
        with self.marked(role), (self.state / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def run(self, command: Sequence[str | Path], **variables: str) -> str:
        """Run a command to its end and return what it printed; AbsentError with its last words when it failed."""
        done = subprocess.run(
            [str(part) for part in command],
            env=os.environ | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise AbsentError(
                f"`{Path(command[0]).name} {command[1]}` failed: {(done.stderr or done.stdout).strip()[-200:]}"
            )
        return done.stdout

    def alive(self) -> None:
        """Raise AbsentError with the log's last line when a daemon has ended."""
        for process in self._processes:
            if process.poll() is not None:
                raise AbsentError(
                    f"`{Path(str(process.args[0])).name}` ended ({process.returncode}): {self.last_words()}"
                )

    def last_words(self) -> str:
        """Return the last line of the log."""
        lines = []
        with contextlib.suppress(FileNotFoundError):
            lines = (self.state / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1][-200:] if lines else "nothing"

    def stop(self) -> None:
        """End what was started; whatever of it has left its group goes with the namespace."""
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
        end = time.monotonic() + 5
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()

    def memory(self, role: str) -> Memory:
        """Return what the processes of a role take at the moment."""
        rss = pss = 0
        count = 0
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal() or int(folder.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if f"{MARK}={self.name}/{role}".encode() not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                rollup = (folder / "smaps_rollup").read_text().splitlines()
                sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup[1:]}
                rss, pss, count = rss + sizes["Rss"], pss + sizes["Pss"], count + 1
        return Memory(rss / 1024, pss / 1024, count)
