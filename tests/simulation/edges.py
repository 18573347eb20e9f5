"""The edges of a simulated replica: its connection, what its watches tell, and what it can read."""

import contextlib
import errno
import threading

import msgspec
from inotify_simple import INotify

from configstore.errors import CompactedError, FutureRevisionError, StoreUnavailableError
from configstore.model.keys import Keys
from configstore.store.api import Batch
from sidecar.local.inotify import InotifyWatch
from sidecar.local.watch import Dirty
from sidecar.local.writers import Writers
from tests.memory_store.store import MemoryKv

KEYS = Keys()
SUBTREE = "data"


class Connection(MemoryKv):
    """A connection whose transactions may arrive late, and that may be cut for a while."""

    def __init__(self, replica):
        super().__init__(
            replica.world.store,
            before=lambda _: self.strike("before"),
            after=lambda _: self.strike("after"),
        )
        self.replica = replica

    def strike(self, kind):
        if self.replica.away and kind == "before":
            raise StoreUnavailableError("the store is away")
        self.replica.fault.strike(kind, self.replica)

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

    def __init__(self, tree, replica):
        self.tree, self.replica, self.error, self.next, self.since = tree, replica, None, 0, None
        self.late = self.reconnected = False
        self.slow = False  # the next listing is on its way for a whole cycle
        self._on_its_way = []

    def drain(self):
        if self.replica.away or (self.late and self.next):
            return []
        if self._on_its_way:
            news, self._on_its_way = self._on_its_way, []
            return news
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
        known = self.replica.mirror.engine.remote.highest
        listing = msgspec.structs.replace(self.tree.list(SUBTREE), known=known)
        self.next, self.reconnected = listing.revision + 1, False
        if self.slow:
            self.slow, self._on_its_way = False, [listing]
            return []
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


_spare = []
"""Instances of inotify that nobody uses: the kernel takes 10 ms to end one."""


class Watch(InotifyWatch):
    """inotify without a thread of its own: the kernel's events are taken when somebody asks, or later."""

    def __init__(self):
        self.late, self._wake = False, lambda: None
        self._inotify = _spare.pop() if _spare else INotify()
        self._lock = threading.Lock()
        self._paths, self._watches, self._unwatched = {}, {}, {}
        self._writers, self._dirty = Writers(), Dirty()

    def close(self):
        for watch in self._paths:
            with contextlib.suppress(OSError):  # its directory is gone
                self._inotify.rm_watch(watch)
        while self._inotify.read(timeout=0):
            pass
        _spare.append(self._inotify)

    def drain(self):
        if self.late:
            return Dirty()
        with self._lock:
            self._take_events()
        return super().drain()

    def overflow(self):
        """Drop what the kernel has told, as it does with a full queue, and say so."""
        self._inotify.read(timeout=0)
        with self._lock:
            self._dirty.everything = True


class Eyes:
    """A reader to which some paths are not readable, and during whose reading something may happen."""

    def __init__(self, reader, replica):
        self._reader, self._replica = reader, replica

    @property
    def blind(self):
        return self._reader.blind

    def read(self, path, *where):
        self._look(path)
        return self._reader.read(path, *where)

    def pieces(self, path):
        self._look(path)
        yield from self._reader.pieces(path)

    def _look(self, path):
        self._replica.fault.strike("read", self._replica)
        if path in self._replica.unreadable:
            raise PermissionError(errno.EACCES, "unreadable in the simulation")
