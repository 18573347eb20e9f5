"""Follows a range of keys in a thread of its own, through whatever happens to the connection.

Used by the sidecar's `presence` and `control.holds`, by `report_feed` and by `configstore ui`. One follower's
range must be covered by one right of etcd's. The sidecar's mirror has a feed of its own (`sidecar.remote.watch`).
"""

import random
import threading
import time
from collections.abc import Callable

from configstore.errors import CompactedError, ConfigstoreError, StoreUnavailableError
from configstore.store.api import Batch, Item, Watch, range_all
from configstore.store.store import Store

FIRST_PAUSE = 0.1
"""Seconds before the second try, at most. The limit doubles with each try; a random part of it is waited."""


def _ignore(_: object) -> None:
    """Take note of nothing."""


class Follower:
    """Reads all of a range, then takes what a watch of it reports; reads again when the watch ends.

    1. The watch starts at the revision after the one that was read, so no change is missed or taken twice.
    2. Reading and taking happen in one thread, so no older change follows a newer listing.

    error: why the range cannot be followed now; None while it is followed.
    """

    def __init__(
        self,
        store: Store,
        keys: tuple[bytes, bytes],
        name: str,
        *,
        read: Callable[[], int],
        take: Callable[[Batch], None],
        failed: Callable[[ConfigstoreError], None] = _ignore,
        crashed: Callable[[Exception], None] | None = None,
        aside: bool = False,
        longest_pause: float = 30.0,
    ) -> None:
        """Take the half-open range of keys and the thread's name; all functions are called in that thread.

        read: takes all that is there, and returns the store revision at which it was; raises StoreError.
        take: takes what changed since. failed: called when reading or watching fails, but for a compaction.
        crashed: called instead of ending the thread with an error that is none of `configstore.errors`.
        aside: see `Kv.watch`. longest_pause: seconds between two tries, at most.
        """
        self.error: ConfigstoreError | None = None
        self._kv = store.kv
        self._keys = keys
        self._read = read
        self._take = take
        self._failed = failed
        self._crashed = crashed
        self._aside = aside
        self._longest_pause = longest_pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._revision: int | None = None

    def start(self, revision: int | None = None) -> None:
        """Start the thread. revision: at which the caller has read the range; None: the thread reads it."""
        self._revision = revision
        self._thread.start()

    def close(self, patience: float | None = 0.0) -> None:
        """End it, and wait at most `patience` seconds for that (None: until it has ended)."""
        self._stop.set()
        with self._lock:
            if self._watch:
                self._watch.close()
        if self._thread.ident:
            self._thread.join(patience)

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as error:
            if self._crashed is None:
                raise
            if not self._stop.is_set():
                self._crashed(error)

    def _follow(self) -> None:
        tries = 0
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                self._follow_once()
            except CompactedError:
                pass  # it only means to read again
            except ConfigstoreError as error:
                self.error = error
                self._failed(error)
            self._revision = None
            tries = 0 if time.monotonic() - begun > self._longest_pause else tries + 1
            limit = min(self._longest_pause, FIRST_PAUSE * 2 ** min(tries, 16))
            self._stop.wait(random.uniform(0.0, limit))  # noqa: S311  # spreads load, guards nothing

    def _follow_once(self) -> None:
        revision = self._read() if self._revision is None else self._revision
        with self._lock:
            if self._stop.is_set():
                return
            self._watch = self._kv.watch(*self._keys, start_revision=revision + 1, aside=self._aside)
        self.error = None
        try:
            for batch in self._watch:
                self._take(batch)
        finally:
            self._watch.close()


class ItemFollower(Follower):
    """Follows a range key by key, for a sidecar: seldom anything changes there, and many sidecars follow it."""

    def __init__(
        self,
        store: Store,
        keys: tuple[bytes, bytes],
        name: str,
        *,
        put: Callable[[Item], None],
        deleted: Callable[[bytes], None] = _ignore,
        begin: Callable[[], None] = lambda: None,
        listed: Callable[[int], None] = _ignore,
    ) -> None:
        """Take the range and the thread's name; all functions are called in that thread.

        put: called with each key that is there, and with each that is written. deleted: with each that is deleted.
        begin: called before all that is there is put, which may happen more than once; listed: after it, with the
        store revision at which it was.
        """

        def read() -> int:
            revision = 0
            begin()
            for page in range_all(store.kv, *keys):
                revision = revision or page.revision
                for item in page.items:
                    put(item)
            listed(revision)
            return revision

        def take(batch: Batch) -> None:
            for event in batch.events:
                if event.deleted:
                    deleted(event.item.key)
                else:
                    put(event.item)

        super().__init__(store, keys, name, read=read, take=take, aside=True)

    @property
    def refused(self) -> ConfigstoreError | None:
        """Why the range cannot be followed although the store answers; None when it is followed or silent."""
        return None if isinstance(self.error, StoreUnavailableError) else self.error
