"""One area of the store that the pages show, and how it is followed. Used by `watching`.

An area is a range of keys that one right of etcd's covers: who may read what is mirrored, but not what persons ask
of replicas, has a page all the same.
"""

from collections.abc import Callable

import msgspec

from configstore.errors import ConfigstoreError, FutureRevisionError
from configstore.store.api import Batch
from configstore.store.follower import Follower
from configstore.store.store import Store

LONGEST_PAUSE = 10.0
"""Seconds between two tries, at most: a person waits for the page."""


class Area(msgspec.Struct, frozen=True, kw_only=True):
    """What is followed: its name, its half-open key range, and what is done with what is there.

    begin: takes all that is there, and returns the revision at which it was; raises StoreError.
    take: takes what changed, and returns it as text, "" for what nobody need be told, or None for no change.
    """

    name: str
    keys: tuple[bytes, bytes]
    begin: Callable[[], int]
    take: Callable[[Batch], str | None]


class Following:
    """One area that is followed. trouble: why it cannot be; went_back: the store is an older one than before."""

    def __init__(self, store: Store, area: Area, told: Callable[[str], None]) -> None:
        """`told` is called, from the area's thread, with text about what changed."""
        self.area = area
        self.trouble = ""
        self.went_back = False
        self._told = told
        self._follower = Follower(
            store,
            area.keys,
            f"ui-{area.name}",
            read=self._read_again,
            take=self._take,
            failed=self._failed,
            crashed=self._crashed,
            longest_pause=LONGEST_PAUSE,
        )

    def start(self) -> None:
        """Take all that is there, and follow it from then on. Raises StoreError."""
        self._follower.start(self.area.begin())

    def close(self) -> None:
        """End it."""
        self._follower.close()

    def _read_again(self) -> int:
        revision = self.area.begin()
        self.trouble = ""
        self._told(f"{self.area.name} were read anew")
        return revision

    def _take(self, batch: Batch) -> None:
        text = self.area.take(batch)
        if text is not None:
            self._told(text)

    def _failed(self, error: ConfigstoreError) -> None:
        if isinstance(error, FutureRevisionError):
            self.went_back = True
        else:
            self._say(str(error))

    def _crashed(self, error: Exception) -> None:
        """Say so: no page may show that all is well while nothing is followed."""
        self._say(f"the page failed ({type(error).__name__}): start `configstore ui` again")

    def _say(self, text: str) -> None:
        if self.trouble != text:
            self.trouble = text
            self._told(f"{self.area.name} cannot be followed")
