"""Follows one area of the store in a thread of its own, whatever becomes of the connection.

An area is a range of keys that one right of etcd's covers: who may read what is mirrored, but not what persons ask
of replicas, has a page all the same. Each area lists and watches by itself, so no older news can follow a newer
listing. Used by `watching`.
"""

import threading
import time
from collections.abc import Callable

import msgspec

from configstore.errors import CompactedError, ConfigstoreError, FutureRevisionError
from configstore.store.api import Batch, Kv, Watch

LONGEST_PAUSE = 10.0
"""Seconds between two tries, at most."""


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """What is followed: its name, its half-open key range, and what is done with what lies there.

    begin: takes all that is there, and returns the revision at which it was; raises StoreError.
    take: takes what is news, and returns it in words, "" for what nobody need be told, or None for no news.
    """

    name: str
    keys: tuple[bytes, bytes]
    begin: Callable[[], int]
    take: Callable[[Batch], str | None]


class Following:
    """One area that is followed. trouble: why it cannot be; went_back: the store is an older one than before."""

    def __init__(self, kv: Kv, area: Area, told: Callable[[str], None]) -> None:
        """`told` is called, from the area's thread, with news in words."""
        self.area = area
        self.trouble = ""
        self.went_back = False
        self._kv = kv
        self._told = told
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take all that is there, and follow it from then on. Raises StoreError."""
        revision = self.area.begin()
        self._thread = threading.Thread(
            target=self._follow, args=(revision,), name=f"ui-{self.area.name}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._stop.set()
        with self._lock:
            if self._watch:
                self._watch.close()

    def _follow(self, revision: int) -> None:
        try:
            self._follow_for_ever(revision)
        except Exception as error:  # noqa: BLE001 - a fault of ours: no page may say that all is well
            if not self._stop.is_set():
                self._say(f"the page failed ({type(error).__name__}): start `configstore ui` again")

    def _follow_for_ever(self, revision: int) -> None:
        pause = 0.0
        while not self._stop.is_set():
            begun = time.monotonic()
            self._follow_from(revision)
            pause = 0.1 if time.monotonic() - begun > LONGEST_PAUSE else min(LONGEST_PAUSE, 2 * pause or 0.1)
            while not self._stop.wait(pause):
                try:
                    revision = self.area.begin()
                except ConfigstoreError as error:
                    self._say(str(error))
                    pause = min(LONGEST_PAUSE, 2 * pause)
                    continue
                self.trouble = ""
                self._told(f"{self.area.name} were read anew")
                break

    def _follow_from(self, revision: int) -> None:
        """Take what is news after a revision until the watch ends."""
        with self._lock:
            if self._stop.is_set():
                return
            self._watch = self._kv.watch(*self.area.keys, start_revision=revision + 1)
        try:
            for batch in self._watch:
                words = self.area.take(batch)
                if words is not None:
                    self._told(words)
        except CompactedError:
            return  # which only means to list again
        except FutureRevisionError:
            self.went_back = True
        except ConfigstoreError as error:
            self._say(str(error))
        finally:
            self._watch.close()

    def _say(self, words: str) -> None:
        if self.trouble != words:
            self.trouble = words
            self._told(f"{self.area.name} cannot be followed")
