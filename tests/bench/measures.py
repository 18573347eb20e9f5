"""What every measurement needs: a store, replicas, arrivals, and what a process costs."""

import contextlib
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import inotify_simple
from inotify_simple import flags

from configstore.model.keys import DEFAULT_ROOT, Keys
from configstore.model.path import StorePath
from configstore.model.record import Entry, Kind, sha256
from configstore.model.seal import Master, Policy, dump
from configstore.settings import StoreSettings
from configstore.store.connect import connect
from configstore.store.envelope import Envelopes
from configstore.store.tree import Tree
from configstore.store.values import Write, Writer
from tests.bench.processes import cpu
from tests.harness.waiting import wait_until

RETENTION = 86400.0


@dataclass
class Figure:
    """One line of the table. `unit` is that of value and floor; `ratio` is value by floor, where there is one."""

    what: str
    value: float
    unit: str
    budget: str
    met: bool
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        """Value by floor."""
        return self.value / self.floor if self.floor else None


class Arrivals:
    """Waits for renames into a directory."""

    def __init__(self, directory: Path) -> None:
        self._inotify = inotify_simple.INotify()
        self._inotify.add_watch(directory, flags.MOVED_TO)

    def wait(self, names: set[str], deadline: float = 30.0) -> float:
        """Return when the last of the names was renamed into place, on the perf counter."""
        missing = set(names)
        end = time.monotonic() + deadline
        while missing:
            if time.monotonic() > end:
                raise SystemExit(f"bench: did not arrive within {deadline} s: {sorted(missing)[:5]}")
            missing -= {event.name for event in self._inotify.read(timeout=1000)}
        return time.perf_counter()


class Bench:
    """One etcd, one store client, and the folders of replicas."""

    def __init__(self, endpoint: str, folder: Path, *, rounds: int, master: Master | None = None) -> None:
        """`master`: below a root of its own, everything is sealed."""
        self.endpoint = endpoint
        self.folder = folder
        self.rounds = rounds
        self.kv = connect(StoreSettings(endpoints=(endpoint,)))
        self.root = "/sealed" if master else DEFAULT_ROOT
        self.keyring = folder / "keyring" if master else None
        envelopes = None
        if master and self.keyring:
            self.keyring.write_bytes(dump(master.keyring_of([StorePath("")])))
            envelopes = Envelopes(self.root, keyring=master.keyring(), policy=lambda _: Policy.REQUIRED)
        writer = Writer(replica="bench", host="bench", now=lambda: "", new_id=lambda: secrets.token_hex(8))
        self.tree = Tree(self.kv, Keys(self.root), writer, envelopes=envelopes)

    def put(self, contents: dict[str, bytes]) -> None:
        """Write files below their subtree in one commit, whatever they are now."""
        writes = []
        for path, content in contents.items():
            found = self.tree.read(StorePath(path))
            writes.append(Write(path=StorePath(path), entry=a_file(content), content=content,
                                expected=found.mod_revision if found else 0))  # fmt: skip
        if not self.tree.commit(writes, retention=RETENTION).complete:
            raise SystemExit("bench: somebody else writes here")

    def make_subtree(self, name: str) -> None:
        """Make a subtree's root."""
        entry = Entry(kind=Kind.DIR, mode=0o755)
        self.tree.commit([Write(path=StorePath(name), entry=entry)], retention=RETENTION)

    def settings(self, name: str, subtree: str) -> tuple[Path, Path]:
        """Write a replica's settings; returns their file and the mirrored directory."""
        directory = self.folder / name
        directory.mkdir()
        file = self.folder / f"{name}.toml"
        sealed = f'[seal]\nkeyring = "{self.keyring}"\n' if self.keyring else ""
        file.write_text(
            f'{sealed}[store]\nendpoints = ["{self.endpoint}"]\nroot = "{self.root}"\n'
            f'[state]\ndirectory = "{self.folder}/{name}-state"\n'
            '[control]\nsocket = ""\n[health]\nlisten = "127.0.0.1:0"\n[log]\nlevel = "warning"\n'
            f'[[mapping]]\nname = "{subtree}"\npath = "{directory}"\nsettle = "0ms"\n'
        )
        return file, directory

    @contextlib.contextmanager
    def replica(
        self, name: str, subtree: str, stamps: Path | None = None
    ) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """Run a sidecar whose first cycle is made. stamps: the file into which it says where it was when."""
        file, directory = self.settings(name, subtree)
        marker = f"{name}-ready"
        module = ["tests.bench.traced", str(stamps)] if stamps else ["sidecar"]
        process = subprocess.Popen([sys.executable, "-m", *module, "run", "--config", str(file)])
        try:
            self.put({f"{subtree}/{marker}": b""})
            wait_until((directory / marker).exists, 60, what=f"{name} to be ready")
            yield process, directory
        finally:
            process.terminate()
            process.wait(30)


def a_file(content: bytes) -> Entry:
    """Return the entry of a private file."""
    return Entry(kind=Kind.FILE, mode=0o600, size=len(content), sha256=sha256(content))


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def wait_for_rest(process: subprocess.Popen[bytes], deadline: float = 30) -> None:
    """Wait until a process does nothing but what it always does."""

    def idle() -> bool:
        before = cpu(process.pid)
        threading.Event().wait(1)
        return cpu(process.pid) - before < 0.005

    wait_until(idle, deadline, what="the first pull's aftermath to be over")


def cpu_share(process: subprocess.Popen[bytes], seconds: float) -> float:
    """Return the share of a core, in percent, that a process uses over so many seconds."""
    wait_for_rest(process)
    before, start = cpu(process.pid), time.monotonic()
    threading.Event().wait(seconds)
    return 100 * (cpu(process.pid) - before) / (time.monotonic() - start)
