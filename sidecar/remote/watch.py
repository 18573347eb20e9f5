"""Follows a mapping's subtree in the store and hands listings and events to the engine. One thread a mapping.

1. It lists, then watches from the next revision on. Whatever breaks the watch leads back to the listing, so that
   the engine only ever gets complete states and complete revisions, without a gap.
2. A listing that was requested is handed over only if it was begun after the request: one that had begun before
   may have read already what the request is about.
3. Events that wait for the engine are bounded: above MAX_WAITING bytes they are replaced by a new listing.
"""

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec
import tenacity

from configstore.clock import boottime
from configstore.errors import CompactedError, ConfigstoreError
from configstore.model.path import StorePath, relative_to
from configstore.store.api import Batch, Watch
from configstore.store.tree import Tree
from configstore.store.values import Listing, Stored
from sidecar.mapping import Mapping
from sidecar.remote.content import LIMIT
from sidecar.reporting.contact import is_silence

log = logging.getLogger(__name__)

MAX_WAITING = 16 * 1024 * 1024
"""Bytes of events that wait for the engine; more are replaced by a listing, which has the same information."""

_EVENT = 500
"""Bytes of an event besides its key and value."""


class RemoteFeed(Protocol):
    """Where the engine gets listings and events from."""

    error: str | None
    """Why the store cannot be followed at the moment; None when it can."""

    wants: Callable[[StorePath], bool]
    """Returns whether a tombstone of a path must be read whole, not only its revision; from any thread."""

    since: float | None
    """When the oldest entry that waits for `drain` was received, on the clock `boottime`; None if not known."""

    def drain(self) -> list[Listing | Batch]:
        """Return what was received since the last call, oldest first. A Listing replaces all that was known.

        `Listing.known` is the newest revision that was known just before its first read. The listing is judged by
        that: it may well be older than what became known later.
        """
        ...

    def list_again(self) -> None:
        """Request a new listing: the root record is missing, or the watch cannot be trusted.

        The request stays until a listing that was begun after this call has been handed over, whatever fails
        meanwhile. Another request in between changes nothing, so every cycle may make one.
        """
        ...


class RemoteOnce:
    """A feed for `init` and `plan`: lists the subtree whenever it is asked. Raises StoreError."""

    def __init__(self, tree: Tree, mapping: Mapping, known: Callable[[], int]) -> None:
        """`known` returns the newest revision of the store that is known."""
        self._tree = tree
        self._mapping = mapping
        self._known = known
        self.error: str | None = None
        self.since: float | None = None
        self.wants: Callable[[StorePath], bool] = everything

    def drain(self) -> list[Listing | Batch]:
        """Return the subtree as it is now."""
        return [listing_of(self._tree, self._mapping, self._known(), self.wants)]

    def list_again(self) -> None:
        """Do nothing: every `drain` lists."""


class RemoteWatch:
    """The feed of one mapping under `run`, with a thread of its own."""

    def __init__(self, tree: Tree, mapping: Mapping, wake: Callable[[], None], known: Callable[[], int]) -> None:
        """Prepare the thread, which `start` starts.

        wake: called from the thread when there is something to drain, or the connection changed. known: returns
        the newest revision of the store that is known; called just before a listing's first read.
        """
        self._tree = tree
        self._mapping = mapping
        self._wake = wake
        self._known = known
        self._inbox: deque[Listing | Batch] = deque()
        self._stop = threading.Event()
        self._wanted = True  # a listing that has not begun yet, or that failed
        self._logged: str | None = None
        self._watch: Watch | None = None
        self._lock = threading.Lock()
        self.error: str | None = "not connected yet"
        self.wants: Callable[[StorePath], bool] = everything
        self.waiting = 0  # about how many bytes of events were not drained yet
        self.since: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"remote-watch:{mapping.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def drain(self) -> list[Listing | Batch]:
        """Return what was received since the last call, oldest first."""
        drained = []
        self.waiting = 0
        self.since = None
        while self._inbox:
            drained.append(self._inbox.popleft())
        return drained

    def list_again(self) -> None:
        """End the watch, so that the thread lists and watches anew; from any thread."""
        with self._lock:
            self._wanted = True
            if self._watch:
                self._watch.close()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self.list_again()
        if self._thread.ident:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow(self._list_until_it_works() + 1)
            except CompactedError as error:
                log.info("the watch fell behind a compaction; listing again", extra={"reason": str(error)})
                self._pause()
            except ConfigstoreError as error:
                self._report(error, boottime())
                self._pause()

    def _pause(self) -> None:
        """Wait a moment, so that a watch that ends at once again and again causes no busy loop."""
        self._stop.wait(random.uniform(0.1, 1.0))  # noqa: S311  # jitter

    def _list_until_it_works(self) -> int:
        """Hand over a listing that was begun after its request, and return its revision."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ConfigstoreError),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=30),
            stop=tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )
        listing: Listing = retrying(self._list)
        self._put(listing)
        return listing.revision

    def _list(self) -> Listing:
        """List once. A request that is made meanwhile stays, as this listing may have read already."""
        with self._lock:
            self._wanted = False
        begun = boottime()
        try:
            return listing_of(self._tree, self._mapping, self._known(), self.wants)
        except ConfigstoreError as error:
            with self._lock:
                self._wanted = True
            self._report(error, begun)
            raise

    def _follow(self, start_revision: int) -> None:
        with self._lock:
            if self._wanted or self._stop.is_set():
                return
            self._watch = self._tree.watch(self._mapping.store, start_revision=start_revision)
        try:
            for batch in self._watch:
                if batch.events or batch.connected:
                    self._put(batch)
                    self.waiting += _EVENT + sum(
                        _EVENT + len(event.item.key) + len(event.item.value) for event in batch.events
                    )
                if self.waiting > MAX_WAITING:
                    log.warning("too many changes at once; listing again", extra={"mapping": self._mapping.name})
                    self._inbox.clear()
                    self.waiting = 0
                    self.list_again()
                    self._pause()
        finally:
            self._watch.close()
        with self._lock:
            self._watch = None

    def _put(self, seen: Listing | Batch) -> None:
        if self.error is not None:
            log.info("following the store", extra={"mapping": self._mapping.name})
            self.error = self._logged = None
        if self.since is None:
            self.since = boottime()
        self._inbox.append(seen)
        self._wake()

    def _report(self, error: ConfigstoreError, begun: float) -> None:
        """Report why the store cannot be followed; the silence of the whole store is logged elsewhere, once.

        begun: when the failed call was begun, on the clock `boottime`.
        """
        reason = str(error)
        silence = is_silence(error, self._tree.contact(), begun)
        if not silence and self._logged != reason:
            log.warning("cannot follow the store", extra={"mapping": self._mapping.name, "reason": reason})
            self._logged = reason
        self.error = reason
        self._wake()


def everything(_: StorePath) -> bool:
    """Return true: every tombstone is read whole."""
    return True


def listing_of(
    tree: Tree, mapping: Mapping, known: int, wants: Callable[[StorePath], bool] = everything
) -> Listing:
    """Return the records of a mapping's subtree. Raises StoreError.

    known: the newest revision that is known before this. To save memory the listing keeps no more content than
    `Contents` does, and only the revision of a tombstone that `wants` does not want. The newest tombstone is kept
    whole, since by it the store is recognised.
    """
    room = LIMIT
    newest: Stored | None = None

    def keep(found: Stored) -> Stored | None:
        nonlocal room, newest
        if found.gone and not (found.path == mapping.store or wants(relative_to(found.path, mapping.store))):
            newest = found if newest is None or newest.mod_revision < found.mod_revision else newest
            return None
        record = found.record
        size = len(record.content or b"")
        before = room
        room -= size if size <= room else 0
        return msgspec.structs.replace(
            found,
            record=msgspec.structs.replace(
                record,
                origin=msgspec.structs.replace(record.origin, replica="", host="", time=""),
                content=record.content if size <= before else None,
            ),
        )

    listing = tree.list(mapping.store, keep=keep)
    if newest:
        listing.records[newest.path] = newest
    return msgspec.structs.replace(listing, known=known)
