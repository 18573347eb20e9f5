"""Who is writing to which file, as far as inotify's events tell. Called by `watch`.

The kernel tells it better, where it may be asked (a read lease). Without the capability LEASE it may not, for the
files of other users: then a file counts as being written from its first change to its being closed.
"""

import inotify_simple
from inotify_simple import flags

_File = tuple[int, str]  # the watch of its directory, and its name there: both stay when a directory is renamed


class Writers:
    """The files that are being made or written to."""

    def __init__(self) -> None:
        self._open: dict[_File, bool] = {}  # true: written to; false: made, and nothing was written yet
        self._moving: tuple[int, bool] | None = None  # what lost its old name and gets a new one: its cookie

    def note(self, event: inotify_simple.Event) -> bool:
        """Take in an event; returns whether it says no more than that who is known to be writing goes on."""
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
        """Tell whether a file was written to and not closed since."""
        return self._open.get((watch, name), False)

    def quiet(self, watch: int, name: str) -> None:
        """Forget a file that nobody has open for writing."""
        self._open.pop((watch, name), None)

    def forget(self, watch: int) -> None:
        """Forget the files of a directory that is not watched any more."""
        for file in [file for file in self._open if file[0] == watch]:
            del self._open[file]
