"""Replicas of the real engine over the store in memory, driven step by step in one thread.

Files are real, clock and store are not. Something happens at the n-th call of a kind: the store refuses it or
loses its answer, the process dies there, or a user changes a file at just that moment. After a crash, or a wipe of
its directory, a replica starts again as a new process would.
"""

import contextlib
import itertools
import shutil
from collections import Counter
from pathlib import Path

from configstore.errors import StoreError, StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.record import Entry, Kind, RecordError, decode, sha256
from configstore.store.memory import MemoryKv
from configstore.store.memory_state import MemoryStore
from configstore.store.tree import Tree, Write, Writer
from sidecar.local import rename
from sidecar.mirror import Mirror
from sidecar.planner.mapping import Mapping
from tests.trees import tree

KEYS = Keys()
SUBTREE = "data"
RETENTION = 1e9


_edits = itertools.count()


class Crash(BaseException):
    """The process ends here."""


class Fault:
    """Happens at the n-th call of a kind: `before` or `after` a call of the store, or at a `rename` into place.

    happens: `lost` (that call of the store, or its answer), `crash`, `edit` (by a user, of `name`), or `other`
    (another replica's user edits `name`, and that replica makes a whole cycle).
    """

    def __init__(self, kind="", number=0, happens="", name=""):
        self.kind, self.number, self.happens, self.name = kind, number, happens, name
        self.calls = Counter()
        self.edited = None  # what the user wrote, and what was there
        self.other = lambda name: None

    def strike(self, kind, folder):
        self.calls[kind] += 1
        if kind != self.kind or self.calls[kind] != self.number:
            return
        if self.happens == "crash":
            raise Crash
        if self.happens == "lost" and kind != "rename":
            raise StoreUnavailableError("a fault of the simulation")
        if self.happens == "other":
            self.other(self.name)
        path = folder / self.name
        if self.happens == "edit" and path.parent.is_dir() and not path.is_dir() and not path.is_symlink():
            before = path.read_bytes() if path.exists() else None
            self.edited = (b"meanwhile %d" % next(_edits), before)
            path.write_bytes(self.edited[0])

    def __repr__(self):
        return f"Fault({self.kind!r}, {self.number}, {self.happens!r}, {self.name!r})"


class Replica:
    """One sidecar's engine and its directory."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.folder = world.base / name
        self.folder.mkdir()
        self.fault = Fault()
        self.start()

    def start(self):
        """Begin as a new process."""
        kv = MemoryKv(
            self.world.store,
            before=lambda _: self.fault.strike("before", self.folder),
            after=lambda _: self.fault.strike("after", self.folder),
        )
        ids = self.world.ids
        writer = Writer(replica=self.name, host="h", now=lambda: "", new_id=lambda: f"w{next(ids)}")
        mapping = Mapping(name=SUBTREE, store=SUBTREE, path=str(self.folder), retention=RETENTION, max_delete=1.0)
        self.mirror = Mirror(mapping, Tree(kv, KEYS, writer, patience=0), clock=lambda: self.world.now)

    def crash(self):
        """End without any goodbye, and begin again."""
        self.mirror.close()
        self.start()

    def cycle(self, fault=None):
        """Make one cycle, in which a fault may strike.

        Whatever a file held before must then still be in one, or in the store.
        """
        contents = self.contents()
        self.fault = fault or Fault()
        self.fault.other = self.let_another_act
        with self.renames():
            try:
                self.mirror._cycle()
            except StoreError:
                pass  # `run` would list again
            except Crash:
                self.fault = Fault()
                self.crash()
        if self.fault.edited:
            written, overwritten = self.fault.edited
            contents = contents - {overwritten} | {written}
        self.fault = Fault()
        gone = {sha256(content) for content in contents - self.contents()}
        assert not gone or gone <= self.world.known(), (
            f"local content was overwritten without being kept\n{self.world.describe()}"
        )

    def let_another_act(self, name):
        """Have the next replica's user edit a file, and that replica make a cycle."""
        replicas = self.world.replicas
        other = replicas[(replicas.index(self) + 1) % len(replicas)]
        path = other.folder / name
        if path.parent.is_dir() and not path.parent.is_symlink() and not path.is_dir() and not path.is_symlink():
            path.write_bytes(b"another's %d" % next(_edits))
        self.world.now += 61.0
        other.cycle()
        self.world.note_accepted()

    @contextlib.contextmanager
    def renames(self):
        """Let a fault strike at renames into place, just before the kernel makes them."""
        real = rename.renameat2

        def renameat2(*arguments):
            self.fault.strike("rename", self.folder)
            return real(*arguments)

        rename.renameat2 = renameat2
        try:
            yield
        finally:
            rename.renameat2 = real

    def wipe(self):
        """Lose everything, as a tmpfs does whose container was made anew."""
        self.mirror.close()
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.start()

    def contents(self):
        """Return the contents of all files."""
        return {
            (self.folder / path).read_bytes() for path, found in tree(self.folder).items() if found[0] == "file"
        }


class World:
    """One store and some replicas. `now` is the engines' clock, in seconds."""

    def __init__(self, base: Path, count=2):
        self.base, self.now = base, 1000.0
        self.ids = itertools.count()
        self.store = MemoryStore(clock=lambda: 0.0)
        self.kv = MemoryKv(self.store)
        writer = Writer(replica="hand", host="h", now=lambda: "", new_id=lambda: f"w{next(self.ids)}")
        self.tree = Tree(self.kv, KEYS, writer)
        self.tree.commit([Write(path=SUBTREE, entry=Entry(kind=Kind.DIR, mode=0o755))], retention=RETENTION)
        self.replicas = [Replica(self, f"r{number}") for number in range(count)]
        self.accepted = set()  # (path, digest) of every value that the store ever held

    def records(self, kind):
        """Return what lies below `files`, `past` or `conflicts`: path and record, in order."""
        prefix = f"/configstore/{kind}/".encode()
        found = []
        for item in self.kv.range(prefix, prefix[:-1] + b"0").items:
            with contextlib.suppress(RecordError):
                found.append((item.key[len(prefix) :].decode().partition("//")[0], decode(item.value)))
        return found

    def known(self):
        """Return the digests of all contents that can be had back."""
        return {record.entry.sha256 for kind in ("files", "past", "conflicts") for _, record in self.records(kind)}

    def note_accepted(self):
        """Remember every value that the store holds now."""
        for path, record in self.records("files"):
            if record.entry.kind is Kind.FILE:
                self.accepted.add((path, record.entry.sha256))

    def heal(self, rounds=30):
        """Let everybody work without faults until nothing is left to do; returns the last cycle's waits."""
        quiet = 0
        for _ in range(rounds):
            revision, trees = self.store.revision, [tree(replica.folder) for replica in self.replicas]
            for replica in self.replicas:
                self.now += 61.0
                replica.cycle()
                self.note_accepted()
            same = trees == [tree(replica.folder) for replica in self.replicas]
            quiet = quiet + 1 if same and revision == self.store.revision else 0
            if quiet == 2:
                return
        raise AssertionError(f"never became quiet; {self.describe()}")

    def describe(self):
        """Return what lies where, for a failing example."""
        lines = [f"{path}: {record.entry.kind} {record.content}" for path, record in self.records("files")]
        lines += [
            f"{replica.name}: {tree(replica.folder)} {replica.mirror.engine.status.problems}"
            for replica in self.replicas
        ]
        return "\n".join(lines)

    def close(self):
        """End all replicas."""
        for replica in self.replicas:
            replica.mirror.close()
