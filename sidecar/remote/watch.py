"""Follows a mapping's subtree in the store and hands what it sees to the engine.

One thread per mapping. It lists, then watches from the next revision on; whatever breaks the watch leads back
to the list, so the engine only ever sees complete states and whole revisions.
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
"""Bytes of news that wait for the engine. Where more come the store is listed anew instead, which says as much."""

_EVENT = 500
"""Bytes of an event besides its key and value."""


class RemoteFeed(Protocol):
    """Where the engine gets the store's news from."""

    error: str | None
    """Why the store cannot be followed at the moment; None when it can."""

    wants: Callable[[StorePath], bool]
    """Tells, from any thread, of which paths of the mapping a tombstone is more than a number."""

    since: float | None
    """When the oldest of what waits for `drain` came in, on the clock `boottime`; None where that is not known."""

    def drain(self) -> list[Listing | Batch]:
        """Return what came in since the last call, oldest first. A Listing replaces all that was known.

        Each Listing says in `known` up to which revision the store was known when its first read was about to be
        made: it may be older than what became known since, and is to be judged by that alone.
        """
        ...

    def list_again(self) -> None:
        """Ask for a new listing soon: a subtree's root is missing, or what was seen cannot be trusted.

        It is remembered until a listing that was begun after this call has been handed on, whatever fails
        meanwhile. Asking again while one is wanted changes nothing, so it may be asked for in every cycle.
        """
        ...


class RemoteOnce:
    """A feed for `init` and `plan`: lists the subtree whenever it is asked. Raises StoreError."""

    def __init__(self, tree: Tree, mapping: Mapping, known: Callable[[], int]) -> None:
        """`known` returns the revision up to which the store is known."""
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
        """Do nothing: every call lists."""


class RemoteWatch:
    """The feed of one mapping under `run`, with a thread of its own."""

    def __init__(self, tree: Tree, mapping: Mapping, wake: Callable[[], None], known: Callable[[], int]) -> None:
        """Take what is called from the thread.

        wake: called whenever there is something to drain, or the connection changed. known: returns the revision
        up to which the store is known; called just before a listing's first read.
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
        self.waiting = 0  # bytes of events that were not drained yet, about
        self.since: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"remote-watch:{mapping.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def drain(self) -> list[Listing | Batch]:
        """Return what came in since the last call, oldest first."""
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
        """Wait a moment, so that a watch that ends again and again is no busy loop."""
        self._stop.wait(random.uniform(0.1, 1.0))  # noqa: S311  # jitter

    def _list_until_it_works(self) -> int:
        """Hand on a listing that was begun after it was wanted, and return its revision."""
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
        """List once. What is asked for while this is under way wants another, since it may have read already."""
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
        """Say why the store cannot be followed, in the log only where it is not the silence that is told of once.

        begun: when what failed was begun, on the clock `boottime`.
        """
        reason = str(error)
        silence = is_silence(error, self._tree.contact(), begun)
        if not silence and self._logged != reason:
            log.warning("cannot follow the store", extra={"mapping": self._mapping.name, "reason": reason})
            self._logged = reason
        self.error = reason
        self._wake()


def everything(_: StorePath) -> bool:
    """Want to know all of every path."""
    return True


def listing_of(
    tree: Tree, mapping: Mapping, known: int, wants: Callable[[StorePath], bool] = everything
) -> Listing:
    """Return a mapping's part of the store, with what was known before. Raises StoreError.

    Kept is as much as a replica needs: not more content than it would place without reading it again, and of a
    tombstone whose path it does not want the revision alone, but for the newest: by that the store is known again.
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
