"""The contract of a local watch: it reports when and where to scan. What is true there, the scan finds.

`inotify` and `polling` implement it, `start_watch` chooses between them. The engine's thread calls it.
"""

from collections.abc import Callable
from collections.abc import Mapping as Map

import msgspec

from configstore.clock import boottime
from configstore.model.path import StorePath


class Dirty(msgspec.Struct, kw_only=True):
    """Where to scan: some directories, or everything.

    since: when the first change was noticed, on the clock `boottime`; None if not known. written: files that were
    closed after writing. They are read again whatever their signature is, since a write through a memory map
    changes neither the size nor any time of a file (tmpfs).
    """

    directories: set[StorePath] = set()
    written: set[StorePath] = set()
    everything: bool = False
    since: float | None = None

    def note(self) -> None:
        """Set `since` if this is the first change."""
        if self.since is None:
            self.since = boottime()


class Moves(msgspec.Struct, frozen=True):
    """How many files were moved to a path, and away from it."""

    to: int
    away: int


class LocalWatch:
    """Watches one mapping's directory.

    `drain` and `close` must be implemented; the rest does nothing by default.
    """

    def ensure(self, directory: StorePath, descriptor: int | None) -> None:
        """Watch a directory that is open as `descriptor`. Call it before listing, so that no change is missed.

        None: there is no directory at the path any more; its watch ends unless it was moved to another path.
        """

    def writing(self, path: StorePath) -> bool:  # noqa: ARG002  # for those that know it
        """Return whether a file was written to and not closed since, as far as events show."""
        return False

    def quiet(self, path: StorePath) -> None:
        """Note that no process has a file open for writing: it was changed by its name (truncate(2))."""

    def drain(self) -> Dirty:
        """Return where something may have changed since the last call, up to this moment."""
        raise NotImplementedError

    def hold(self) -> None:
        """Wake nobody until `release`: the caller is about to rename files, and no other thread may delay it."""

    def release(self, own: Map[StorePath, Moves], is_as_left: Callable[[StorePath], bool]) -> None:
        """Wake again. own: the caller's own moves; a path that has no other events need not be scanned.

        is_as_left: returns whether a path is as the caller left it. It is called after the events were read.
        """

    @property
    def limitation(self) -> str | None:
        """Why some changes are noticed late, and what to do; None when all are noticed at once."""
        return None

    def close(self) -> None:
        """End the thread."""
        raise NotImplementedError
