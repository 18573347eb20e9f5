"""Replicas of the real engine over the store in memory, driven step by step in one thread.

Files are real; clock, store and network are not. Something happens at the n-th call of a kind: the store refuses
it, loses its answer or gets it only later; the process dies there; a user changes a file at just that moment, or
another replica makes a whole cycle. News of the store can be late; compactions, restored snapshots and raw deletes
come between. After a crash, or a wipe of its directory, a replica starts again as a new process would.
"""

import contextlib
import itertools
import os
import shutil
from collections import Counter
from pathlib import Path

import msgspec

from configstore.errors import CompactedError, FutureRevisionError, StoreError, StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.record import Entry, Kind, Origin, Record, RecordError, decode, encode, sha256
from configstore.model.replica import Request, Take, Verb
from configstore.store.api import Batch, Delete, Exists, Put
from configstore.store.memory import MemoryKv
from configstore.store.memory_state import MemoryStore
from configstore.store.tree import Tree
from configstore.store.values import Write, Writer
from sidecar.local import rename
from sidecar.mirror import Mirror
from sidecar.planner.mapping import Mapping
from tests.trees import tree

KEYS = Keys()
SUBTREE = "data"
RETENTION = 1e9


DISK = ["rename", "unlink", "rmdir", "mkdir", "symlink", "link", "fchmod", "write", "ftruncate"]
"""Calls of os that change the disk; the sidecar makes no others, but for renameat2 and opening."""

CLOCKS = ["2999-12-31T23:59:59Z", "1970-01-01T00:00:00Z", "not a time"]
"""What the replicas take for the time; nothing may be decided by it."""

PAIR = ("p1", "p2")
"""Two files that are always written together, as a certificate and its key are."""

_edits = itertools.count()


class Crash(BaseException):
    """The process ends here."""


class Fault:
    """Happens at the n-th call of a kind: `before` or `after` a call of the store, before a `rename` into place,
    or before any call that changes the `disk`.

    happens: `lost` (that call of the store, or its answer), `late` (a transaction that reaches the store only
    after its sender gave up), `crash`, `edit` (by a user, of `name`), or `other` (another replica's user edits
    `name`, and that replica makes a whole cycle).
    """

    def __init__(self, kind="", number=0, happens="", name=""):
        self.kind, self.number, self.happens, self.name = kind, number, happens, name
        self.calls = Counter()
        self.edited = None  # what the user wrote, and what was there
        self.late = self.struck = False
        self.other = lambda name: None

    def strike(self, kind, folder):
        self.calls[kind] += 1
        if kind != self.kind or self.calls[kind] != self.number:
            return
        self.struck = True
        if self.happens == "crash":
            raise Crash
        if self.happens in {"lost", "late"} and kind in {"before", "after"}:
            self.late = self.happens == "late" and kind == "before"
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


class Connection(MemoryKv):
    """A connection whose transactions may arrive late."""

    def __init__(self, replica):
        super().__init__(
            replica.world.store,
            before=lambda _: replica.fault.strike("before", replica.folder),
            after=lambda _: replica.fault.strike("after", replica.folder),
        )
        self.replica = replica

    def txn(self, compares, operations, *, otherwise_get=()):
        try:
            return super().txn(compares, operations, otherwise_get=otherwise_get)
        except StoreUnavailableError:
            if self.replica.fault.late:
                self.replica.fault.late = False
                self.replica.world.delay(compares, operations)
            raise


class Feed:
    """What a watch tells: a listing, then whole revisions; late, or of a new connection, where a test wants."""

    def __init__(self, tree, known):
        self.tree, self.known, self.error, self.next = tree, known, None, 0
        self.late = self.reconnected = False

    def drain(self):
        if self.late and self.next:
            return []
        try:
            return self._batches() if self.next else self._list()
        except (CompactedError, FutureRevisionError):
            return self._list()

    def list_again(self):
        self.next = 0

    def lose(self):
        """Miss what the store has told since, as no watch should."""
        self.next = self.next and self.tree.kv.store.revision + 1

    def _list(self):
        listing = msgspec.structs.replace(self.tree.list(SUBTREE), known=self.known())
        self.next, self.reconnected = listing.revision + 1, False
        return [listing]

    def _batches(self):
        found = []
        if self.reconnected:
            found, self.reconnected = [Batch(revision=self.next - 1, connected=True)], False
        batch = self.tree.kv.store.since(*KEYS.files_below(SUBTREE), self.next)
        if batch:
            self.next = batch.revision + 1
            found.append(batch)
        return found


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
        ids = self.world.ids
        clock = CLOCKS[int(self.name[1:]) % len(CLOCKS)]
        writer = Writer(replica=self.name, host="h", now=lambda: clock, new_id=lambda: f"w{next(ids)}")
        mapping = Mapping(name=SUBTREE, store=SUBTREE, path=str(self.folder), retention=RETENTION, max_delete=1.0)
        tree = Tree(Connection(self), KEYS, writer, patience=0)
        self.feed = Feed(tree, lambda: self.mirror.engine._remote.highest)
        self.mirror = Mirror(mapping, tree, feed=self.feed, clock=lambda: self.world.now)

    def crash(self):
        """End without any goodbye, and begin again."""
        self.mirror.close()
        self.start()

    def cycle(self, fault=None, *, late=False):
        """Make one cycle, in which a fault may strike; with `late`, without the latest news of the store.

        Whatever a file held before must then still be in one, or in the store.
        """
        contents = self.contents()
        self.fault = fault or Fault()
        self.fault.other = self.let_another_act
        self.feed.late = late
        with self.disk():
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
        whole = not self.fault.struck
        self.fault = Fault()
        if whole and self.mirror.engine.status.ready:
            self.world.check_pair(self)
        gone = {sha256(content) for content in contents - self.contents()}
        assert not gone or gone <= self.world.known(), (
            f"local content was overwritten without being kept\n{self.world.describe()}"
        )

    def busy(self):
        """Tell whether it knows of something to do or to find out."""
        engine = self.mirror.engine
        return engine.status.pending or engine._remote.life.wants_listing or engine._remote.doubtful

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
    def disk(self):
        """Let a fault strike at what changes the disk, just before the kernel does it."""

        def striking(real, *kinds):
            def call(*arguments, **options):
                for kind in kinds:
                    self.fault.strike(kind, self.folder)
                return real(*arguments, **options)

            return call

        with contextlib.ExitStack() as stack:
            changes = [(os, name, ("disk",)) for name in DISK]
            for where, name, kinds in [(rename, "renameat2", ("rename", "disk")), *changes]:
                stack.callback(setattr, where, name, getattr(where, name))
                setattr(where, name, striking(getattr(where, name), *kinds))
            yield

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
        self.delayed = []  # transactions under way whose senders gave up
        self.accepted = set()  # (path, digest) of every value that the store ever held
        self.was_current = {}  # by path: the write ids that were its current record, in order
        writer = Writer(replica="hand", host="h", now=lambda: "", new_id=lambda: f"w{next(self.ids)}")
        self.tree = Tree(self.kv, KEYS, writer)
        self.tree.commit([Write(path=SUBTREE, entry=Entry(kind=Kind.DIR, mode=0o755))], retention=RETENTION)
        self.snapshot = self.store.snapshot()
        self.restored = False
        self.replicas = [Replica(self, f"r{number}") for number in range(count)]

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
        """Remember every value that the store holds now; none that was superseded may be among them."""
        for path, record in self.records("files"):
            if record.entry.kind is Kind.FILE:
                self.accepted.add((path, record.entry.sha256))
            ids, now = self.was_current.setdefault(path, []), record.origin.write_id
            assert now not in ids[:-1], f"{path}: a superseded value is current again\n{self.describe()}"
            if ids[-1:] != [now]:
                ids.append(now)
        self.check_stored_pair()

    def delay(self, compares, operations):
        """Take a transaction that is on its way, with what it was meant to replace."""
        self.delayed.append((compares, operations, self.mod_revisions(operations)))

    def mod_revisions(self, operations):
        """Return the revisions of the records that operations write."""
        prefix = KEYS.file("")
        keys = [each.key for each in operations if isinstance(each, Put) and each.key.startswith(prefix)]
        return {key: [item.mod_revision for item in self.kv.range(key).items] for key in keys}

    def land(self):
        """Let what was on its way arrive. It may not overwrite what came in meanwhile."""
        delayed, self.delayed = self.delayed, []
        for compares, operations, meant in delayed:
            found = self.mod_revisions(operations)
            with contextlib.suppress(StoreError, ValueError):
                landed = self.store.commit(compares, operations, ()).succeeded
                assert not landed or found == meant, f"a timed-out write overwrote a newer one\n{self.describe()}"
        self.note_accepted()

    def compact(self):
        """Forget what was superseded."""
        with contextlib.suppress(CompactedError):
            self.store.compact(self.store.revision)

    def back_up(self):
        """Take a snapshot for `restore`."""
        self.snapshot = self.store.snapshot()

    def restore(self):
        """Put the store back to its snapshot; what was accepted since counts no longer."""
        self.store.restore(self.snapshot)
        self.restored = True
        self.delayed.clear()
        self.accepted.clear()
        self.was_current.clear()
        for replica in self.replicas:
            replica.feed.reconnected = True

    def vanish(self, name):
        """Remove a record without a tombstone, as a person with etcdctl may; its history stays."""
        key = KEYS.file(f"{SUBTREE}/{name}")
        found = self.kv.range(key).items
        if found:
            past = KEYS.past(f"{SUBTREE}/{name}", found[0].mod_revision)
            self.kv.txn((Exists(key),), (Delete(key), Put(past, found[0].value)))  # so that no value is missed

    def put_by_hand(self, name, content):
        """Write a record as a person with etcdctl may: nothing is compared, and what was there is not kept."""
        path = f"{SUBTREE}/{name}"
        key = KEYS.file(path)
        for item in self.kv.range(key).items:
            self.accepted.discard((path, decode(item.value).entry.sha256))
        entry = Entry(kind=Kind.FILE, mode=0o600, size=len(content), sha256=sha256(content))
        origin = Origin(write_id=f"w{next(self.ids)}", replica="", host="", time="")
        self.kv.txn((), (Put(key, encode(Record(entry=entry, origin=origin, content=content))),))

    def check_pair(self, replica):
        """Fail when a replica that works shows halves of two sets."""
        found = [(replica.folder / name).read_bytes() for name in PAIR if (replica.folder / name).exists()]
        assert len(set(found)) <= 1, f"{replica.name} shows a torn set: {found}\n{self.describe()}"

    def check_stored_pair(self):
        """Fail when the store holds halves of two sets."""
        keys = [KEYS.file(f"{SUBTREE}/{name}") for name in PAIR]
        found = {item.mod_revision for key in keys for item in self.kv.range(key).items}
        assert len(found) <= 1, f"the store holds a torn set\n{self.describe()}"

    def heal(self, take=Take.STORE, rounds=30):
        """Let everybody work without faults, and a person choose, until nothing is left to do."""
        self.land()
        quiet = 0
        for _ in range(rounds):
            revision, trees = self.store.revision, [tree(replica.folder) for replica in self.replicas]
            for replica in self.replicas:
                self.choose(replica, take)
                self.now += 61.0
                replica.cycle()
                self.note_accepted()
            same = trees == [tree(replica.folder) for replica in self.replicas]
            idle = not any(replica.busy() for replica in self.replicas)
            quiet = quiet + 1 if same and idle and revision == self.store.revision else 0
            if quiet == 2:
                return
        raise AssertionError(f"never became quiet; {self.describe()}")

    def choose(self, replica, take):
        """End a halt and anomalies as a person does."""
        status = replica.mirror.engine.status
        wanted = {"verb": Verb.RESUME, "mapping": SUBTREE}
        if status.halted:
            assert self.restored, f"halted without a reason\n{self.describe()}"
            replica.mirror.request(Request(id="halt", take=take, reason=status.halted, **wanted))
        elif status.problems:
            replica.mirror.request(Request(id="vanished", take=Take.LOCAL, **wanted))

    def describe(self):
        """Return what lies where, for a failing example."""
        lines = [f"{path}: {record.entry.kind} {record.content}" for path, record in self.records("files")]
        lines += [
            f"{replica.name}: {tree(replica.folder)} {replica.mirror.engine.status}" for replica in self.replicas
        ]
        return "\n".join(lines)

    def close(self):
        """End all replicas."""
        for replica in self.replicas:
            replica.mirror.close()
