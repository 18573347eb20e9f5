"""Which files are being written to, as far as inotify's events show. Called by `inotify`.

The kernel knows it exactly, but answers only for own files or with the capability LEASE (fcntl(2), F_SETLEASE).
Without that, a file of another user counts as being written to from its first change until it is closed.
"""

import inotify_simple
from inotify_simple import flags

# The watch of a directory, and a name in it: neither changes when the directory is renamed.
_File = tuple[int, str]


class Writers:
    """The files that are being made or written to."""

    def __init__(self) -> None:
        self._open: dict[_File, bool] = {}  # true: written to; false: made, and not written to yet
        self._moving: tuple[int, bool] | None = None  # half a rename: the event's cookie, and as in `_open`

    def note(self, event: inotify_simple.Event) -> bool:
        """Take in an event; returns whether it is only one more write to a file that is known to be written to."""
        file, mask = (event.wd, event.name), event.mask
        if mask & flags.MODIFY:
            known = file in self._open
            self._open[file] = True
            return known
        if mask & flags.CREATE and not mask & flags.ISDIR:
            self._open[file] = False
        elif mask & (flags.CLOSE_WRITE | flags.DELETE):
            self._open.pop(file, None)
        elif mask & flags.MOVED_FROM:
            written = self._open.pop(file, None)
            self._moving = None if written is None else (event.cookie, written)
        elif mask & flags.MOVED_TO:
            self._open.pop(file, None)
            if self._moving and self._moving[0] == event.cookie:
                self._open[file] = self._moving[1]
                self._moving = None
        return False

    def writing(self, watch: int, name: str) -> bool:
        """Return whether a file was written to and not closed since."""
        return self._open.get((watch, name), False)

    def quiet(self, watch: int, name: str) -> None:
        """Forget a file that no process has open for writing."""
        self._open.pop((watch, name), None)

    def forget(self, watch: int) -> None:
        """Forget the files of a directory that is not watched any more."""
        for file in [file for file in self._open if file[0] == watch]:
            del self._open[file]
