"""Follows what lies below one prefix of the store, in a thread of its own, whatever becomes of the connection.

Used by `presence`, once for asks and once for requests: a watch needs one right that covers all of its range, and
the rights to these two are not alike; and by `control.holds` for the intents of each lease. The mirror has a watch
of its own (`remote.watch`).
"""

import threading
from collections.abc import Callable
from contextlib import suppress

import tenacity

from configstore.errors import CompactedError, ConfigstoreError, StoreUnavailableError
from configstore.store.api import Item, Kv, Watch, range_all


class Follower:
    """One prefix that is followed. trouble: why it cannot be, unless the store is only silent."""

    def __init__(
        self,
        kv: Kv,
        keys: tuple[bytes, bytes],
        name: str,
        *,
        take: Callable[[Item], None],
        gone: Callable[[bytes], None] = lambda _: None,
        begin: Callable[[], None] = lambda: None,
        listed: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Take the half-open key range and the thread's name; all is called in that thread.

        take: told of each key that lies there, and of each change of one. gone: told of each key that was removed.
        begin: called before all that lies there is told, which may be more than once; listed: after it, with the
        revision of the store at which it was.
        """
        self._kv = kv
        self._start, self._end = keys
        self._take = take
        self._gone = gone
        self._begin = begin
        self._listed = listed
        self.trouble: ConfigstoreError | None = None
        self._stop = threading.Event()
        self._watch: Watch | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, patience: float) -> None:
        """End it, and wait at most `patience` seconds for that."""
        self._stop.set()
        with self._lock:
            if self._watch:
                self._watch.close()
        if self._thread.ident:
            self._thread.join(patience)

    def _follow(self) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ConfigstoreError),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=30),
            stop=tenacity.stop_when_event_set(self._stop),
            before_sleep=self._note,
            sleep=tenacity.sleep_using_event(self._stop),
        )
        while not self._stop.is_set():
            with suppress(CompactedError, tenacity.RetryError):
                retrying(self._follow_once)

    def _note(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, ConfigstoreError) and not isinstance(error, StoreUnavailableError):
            self.trouble = error

    def _follow_once(self) -> None:
        revision = 0
        self._begin()
        for page in range_all(self._kv, self._start, self._end):
            revision = revision or page.revision
            for item in page.items:
                self._take(item)
        self._listed(revision)
        with self._lock:
            if self._stop.is_set():
                return
            self._watch = self._kv.watch(self._start, self._end, start_revision=revision + 1, aside=True)
        self.trouble = None
        try:
            for batch in self._watch:
                for event in batch.events:
                    if event.deleted:
                        self._gone(event.item.key)
                    else:
                        self._take(event.item)
        finally:
            self._watch.close()
