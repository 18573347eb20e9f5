"""The local watch by inotify(7): one watch on each directory that was scanned.

It costs nothing while nothing changes.

1. A directory is watched before it is listed (`ensure`), so that no change falls between listing and watch.
2. Events are read when they are asked for (`drain`, `writing`), not only by the thread: whether a set is quiet
   must not depend on how late that thread is.
3. When the kernel drops events (Q_OVERFLOW), everything is scanned and nobody is known to be writing.

Started by `start_watch`. Its thread only wakes the engine.
"""

import errno
import logging
import os
import select
import threading
from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping as Map
from contextlib import ExitStack, suppress
from ctypes import CDLL

import inotify_simple
from inotify_simple import flags

from configstore.model.path import PRIVATE_NAME, ROOT, StorePath, join, parent, shown
from sidecar.local.watch import Dirty, LocalWatch, Moves
from sidecar.local.writers import Writers

log = logging.getLogger(__name__)

_MASK = (
    flags.MODIFY
    | flags.CLOSE_WRITE
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.CREATE
    | flags.DELETE
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ATTRIB
    | flags.ONLYDIR
    | flags.EXCL_UNLINK  # a nameless file's close must not count for a new file of the same name
)
_EVENTS = _MASK & ~(flags.ONLYDIR | flags.EXCL_UNLINK) | flags.ISDIR
"""The bits that tell events apart; ISDIR keeps those of a directory from counting as those of a file."""

_SELF = flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.IGNORED


class InotifyWatch(LocalWatch):
    """Watches every directory that was scanned."""

    _poller: "select.epoll | None" = None

    def __init__(self, wake: Callable[[], None]) -> None:
        """Start the thread. Raises OSError if inotify is not available (EMFILE: fs.inotify.max_user_instances)."""
        # The library would start ldconfig, or a compiler, to find the C library that is loaded already, and has no
        # parameter for it. A test fails once this is not needed (docs/decisions/0038-foreign-privates.md).
        inotify_simple._libc = CDLL(None, use_errno=True)  # noqa: SLF001
        self._inotify = inotify_simple.INotify()
        self._wake = wake
        self._lock = threading.Lock()
        self._paths: dict[int, StorePath] = {}  # by watch descriptor
        self._watches: dict[StorePath, int] = {}
        self._writers = Writers()
        self._dirty = Dirty()
        self._unwatched: dict[StorePath, str] = {}  # directories that cannot be watched, and the mend
        with ExitStack() as undo:
            undo.callback(self._inotify.close)
            self._end = os.eventfd(0, os.EFD_CLOEXEC)
            undo.callback(os.close, self._end)
            self._poller = poller = select.epoll()
            undo.pop_all()
        poller.register(self._end, select.EPOLLIN)
        poller.register(self._inotify.fileno(), select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, args=(poller,), name="local-watch", daemon=True)
        self._thread.start()

    def ensure(self, directory: StorePath, descriptor: int | None) -> None:
        """Watch the directory behind the descriptor, even if its path is another's by now; None: end its watch."""
        with self._lock:
            if descriptor is None:
                self._end_watch(directory)
                return
            try:
                watch = self._inotify.add_watch(f"/proc/self/fd/{descriptor}", _MASK)
            except OSError as error:
                self._note_failure(directory, error)
                return
            self._unwatched.pop(directory, None)
            if self._watches.get(directory) != watch:
                self._end_watch(directory)
            self._paths[watch] = directory
            self._watches[directory] = watch

    def writing(self, path: StorePath) -> bool:
        """Return whether a file was written to and not closed since, up to this moment."""
        with self._lock:
            noted = self._take_events()
            watch = self._watches.get(parent(path))
            writing = watch is not None and self._writers.writing(watch, path.rpartition("/")[2])
        if noted:
            self._wake()
        return writing

    def quiet(self, path: StorePath) -> None:
        """Note that no process has a file open for writing."""
        with self._lock:
            watch = self._watches.get(parent(path))
            if watch is not None:
                self._writers.quiet(watch, path.rpartition("/")[2])

    def drain(self) -> Dirty:
        """Return where something may have changed since the last call, up to this moment."""
        with self._lock:
            self._take_events()
            dirty, self._dirty = self._dirty, Dirty()
            return dirty

    @property
    def limitation(self) -> str | None:
        """Why some changes are noticed late, and what to do; None when all are noticed at once."""
        with self._lock:
            if not self._unwatched:
                return None
            path, mend = next(iter(self._unwatched.items()))
            count = len(self._unwatched)
        which = f"{shown(path)} and {count - 1} more" if count > 1 else shown(path)
        return f"not watched, so that changes there are found by the next full scan only: {which}: {mend}"

    def close(self) -> None:
        """End the thread and all watches."""
        if self._thread.is_alive():
            os.eventfd_write(self._end, 1)
            self._thread.join()
        if not self._inotify.closed:
            self._inotify.close()
            os.close(self._end)
            if self._poller:
                self._poller.close()

    def hold(self) -> None:
        """Let the thread sleep until `release`; the kernel queues the events.

        Else each rename would wake it, and the next rename would wait for the interpreter's lock.
        """
        if self._poller:
            self._poller.modify(self._inotify.fileno(), 0)

    def release(self, own: Map[StorePath, Moves], is_as_left: Callable[[StorePath], bool]) -> None:
        """Take in the events since `hold`, and let the thread wake again.

        A path of `own` with more events than its own moves was changed by another process, so it is scanned. Equal
        numbers do not prove the opposite: the kernel merges two equal events in a row (inotify(7)), and a move
        from outside of the watched directories onto a path where the caller just moved a file has no second event.
        So the path must also be as it was left. That is asked after the events were read: whatever happens later
        has an event of its own, with nothing in the queue to merge it with.
        """
        try:
            noted = self._take_events_but(own, is_as_left)
        finally:
            if self._poller:
                self._poller.modify(self._inotify.fileno(), select.EPOLLIN)
        if any(noted):
            self._wake()

    def _take_events_but(self, own: Map[StorePath, Moves], is_as_left: Callable[[StorePath], bool]) -> list[bool]:
        """Take in the events; returns for each whether it needs a scan. The events of own moves need none."""
        with self._lock:
            events = self._inotify.read(timeout=0)
            seen = Counter((event.wd, event.name, event.mask & _EVENTS) for event in events)
            others = Counter((event.wd, event.name) for event in events)
            ours = set()
            for path, moves in own.items():
                file = self._watches.get(parent(path), -1), path.rpartition("/")[2]
                made = (seen[(*file, flags.MOVED_TO)], seen[(*file, flags.MOVED_FROM)])
                if made == (moves.to, moves.away) and others[file] == sum(made) and is_as_left(path):
                    ours.add(file)
            return [self._note(event, own=(event.wd, event.name) in ours) for event in events]

    def _run(self, poller: "select.epoll") -> None:
        while True:
            ready = [descriptor for descriptor, _ in poller.poll()]
            if self._end in ready:
                return
            with self._lock:
                noted = self._take_events()
            if noted:
                self._wake()

    def _take_events(self) -> bool:
        """Take in the events that the kernel has queued; returns whether any needs a scan."""
        noted = [self._note(event) for event in self._inotify.read(timeout=0)]
        return any(noted)

    def _note(self, event: inotify_simple.Event, *, own: bool = False) -> bool:
        """Take in an event; returns whether it needs a scan. own: it is that of an own move."""
        if event.mask & flags.Q_OVERFLOW:
            log.warning("the kernel dropped inotify events; scanning everything")
            self._dirty.note()
            self._dirty.everything = True
            self._writers = Writers()
            return True
        goes_on = self._writers.note(event) or own
        directory = self._paths.get(event.wd)
        if directory is None or (directory == ROOT and event.name == PRIVATE_NAME):
            return False
        if goes_on:
            return False
        if event.mask & flags.IGNORED:
            self._end_watch(directory)
        self._dirty.note()
        self._dirty.directories.add(directory)
        if event.mask & flags.CLOSE_WRITE:
            self._dirty.written.add(join(directory, StorePath(event.name)))
        if event.mask & _SELF:
            self._dirty.directories.add(parent(directory))
        return True

    def _end_watch(self, directory: StorePath) -> None:
        self._unwatched.pop(directory, None)
        watch = self._watches.pop(directory, None)
        if watch is not None and self._paths.get(watch) == directory:  # else it was moved to another path
            del self._paths[watch]
            self._writers.forget(watch)
            with suppress(OSError):  # the kernel ended it already
                self._inotify.rm_watch(watch)

    def _note_failure(self, directory: StorePath, error: OSError) -> None:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return  # it is gone again, which the scan notices
        hint = (
            "raise fs.inotify.max_user_watches" if error.errno == errno.ENOSPC else os.strerror(error.errno or 0)
        )
        if not self._unwatched:
            log.error("cannot watch every directory; the others are only re-scanned", extra={"reason": hint})
        self._unwatched[directory] = hint
