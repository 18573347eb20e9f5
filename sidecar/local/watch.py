"""Tells when and where to look for local changes. It carries no facts: what is true is scanned.

`InotifyWatch` costs nothing while nothing happens; `PollWatch` (watchdog's polling observer) works where inotify
is not to be had. Each has one thread, which calls `wake` and remembers which directories to look into.
"""

import errno
import logging
import os
import select
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Map
from contextlib import ExitStack, suppress
from ctypes import CDLL
from typing import Protocol

import inotify_simple
import msgspec
from inotify_simple import flags

from configstore.clock import boottime
from configstore.errors import RefusedError
from configstore.mapping_settings import WatchMode
from configstore.model.path import PRIVATE_NAME, ROOT, StorePath, basename, join, parent, shown
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.writers import Writers

log = logging.getLogger(__name__)

POLL_INTERVAL = 1.0
"""Seconds between two looks of the polling observer."""

POLL_DEPTH = 100
"""How many directories deep it looks: the observer calls itself for each."""

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
    | flags.EXCL_UNLINK  # the end of a file that has no name any more is not that of one by the same name
)
_EVENTS = _MASK & ~(flags.ONLYDIR | flags.EXCL_UNLINK) | flags.ISDIR
"""What tells one event from another; a directory's are never taken for a file's."""

_SELF = flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT | flags.IGNORED


class Dirty(msgspec.Struct, kw_only=True):
    """Where to look: some directories, or everywhere.

    since: when the first of it happened, on the clock that counts suspend; None where nobody knows.
    written: files that were closed after writing. They are read again whatever their signature says: a write
    through a memory map may move neither the size nor any time of a file (tmpfs).
    """

    directories: set[StorePath] = set()
    written: set[StorePath] = set()
    everything: bool = False
    since: float | None = None

    def note(self) -> None:
        """Remember when the first change happened."""
        if self.since is None:
            self.since = boottime()


class Moves(msgspec.Struct, frozen=True):
    """How often something was moved to a path, and away from it."""

    to: int
    away: int


class LocalWatch(Protocol):
    """Watches one mapping's directory."""

    def ensure(self, directory: StorePath, descriptor: int | None) -> None:
        """Watch a directory that is open as `descriptor`; call it before listing, then nothing is missed.

        None: no directory lies there any more, and what is not watched at another path by now need not be.
        """
        ...

    def writing(self, path: StorePath) -> bool:
        """Tell whether a file was seen being written to, and not being closed since."""
        ...

    def quiet(self, path: StorePath) -> None:
        """Take note that nobody has a file open for writing: it was changed by its name (truncate(2))."""
        ...

    def drain(self) -> Dirty:
        """Return where something may have changed since the last call."""
        ...

    def hold(self) -> None:
        """Wake nobody until `release`: renames of our own come now, and no other thread is to get in between."""
        ...

    def release(self, own: Map[StorePath, Moves], is_as_left: Callable[[StorePath], bool]) -> None:
        """Wake again. own: what we moved meanwhile; at a path with just these events there is nothing to see.

        is_as_left: tells whether a path looks as we left it. It is asked once these events are read.
        """
        ...

    @property
    def trouble(self) -> str | None:
        """Why not all changes are noticed at once, and the mend; None when they are."""
        ...

    def close(self) -> None:
        """End the thread."""
        ...


class InotifyWatch:
    """A watch on every directory that was scanned (inotify(7))."""

    _poller: "select.epoll | None" = None

    def __init__(self, wake: Callable[[], None]) -> None:
        """Start watching; raises OSError when inotify is not to be had (EMFILE: fs.inotify.max_user_instances)."""
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
        """Watch the directory behind the descriptor, whatever its name leads to by now; None: end its watch."""
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
        """Tell whether a file was seen being written to, and not being closed since, up to this moment."""
        with self._lock:
            noted = self._take_events()
            watch = self._watches.get(parent(path))
            writing = watch is not None and self._writers.writing(watch, basename(path))
        if noted:
            self._wake()
        return writing

    def quiet(self, path: StorePath) -> None:
        """Take note that nobody has a file open for writing."""
        with self._lock:
            watch = self._watches.get(parent(path))
            if watch is not None:
                self._writers.quiet(watch, basename(path))

    def drain(self) -> Dirty:
        """Return where something may have changed since the last call, up to this moment.

        The thread that reads events may be late; whether a set is quiet must not depend on that.
        """
        with self._lock:
            self._take_events()
            dirty, self._dirty = self._dirty, Dirty()
            return dirty

    @property
    def trouble(self) -> str | None:
        """Why not all changes are noticed at once, and the mend."""
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
        """Let the thread sleep until `release`; the kernel keeps what happens.

        Else each rename would wake it, and the renames would wait for the interpreter's lock.
        """
        if self._poller:
            self._poller.modify(self._inotify.fileno(), 0)

    def release(self, own: Map[StorePath, Moves], is_as_left: Callable[[StorePath], bool]) -> None:
        """Take in what happened since `hold`, and let the thread wake again.

        Whoever else was at a path of `own` caused one more event there, so that all of them count. But the kernel
        makes one of two equal events in a row: a move onto what we have just moved there may have none of its own,
        where it came from outside of what is watched. So what lies there is looked at, too, after the reading:
        whatever happens later has an event that nothing can be made one with.
        """
        try:
            noted = self._take_events_but(own, is_as_left)
        finally:
            if self._poller:
                self._poller.modify(self._inotify.fileno(), select.EPOLLIN)
        if any(noted):
            self._wake()

    def _take_events_but(self, own: Map[StorePath, Moves], is_as_left: Callable[[StorePath], bool]) -> list[bool]:
        """Remember where events point, but for our own; returns for each whether anybody needs to look."""
        with self._lock:
            events = self._inotify.read(timeout=0)
            seen = Counter((event.wd, event.name, event.mask & _EVENTS) for event in events)
            others = Counter((event.wd, event.name) for event in events)
            ours = set()
            for path, moves in own.items():
                file = self._watches.get(parent(path), -1), basename(path)
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
        """Take in what the kernel has to say by now; returns whether anybody needs to look."""
        noted = [self._note(event) for event in self._inotify.read(timeout=0)]
        return any(noted)

    def _note(self, event: inotify_simple.Event, *, own: bool = False) -> bool:
        """Remember where an event points; returns whether anybody needs to look. own: it is known what it was."""
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
        if watch is not None and self._paths.get(watch) == directory:  # else it was moved, and is watched there
            del self._paths[watch]
            self._writers.forget(watch)
            with suppress(OSError):  # the kernel ended it already
                self._inotify.rm_watch(watch)

    def _note_failure(self, directory: StorePath, error: OSError) -> None:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return  # it is gone again, and the scan will see that
        hint = (
            "raise fs.inotify.max_user_watches" if error.errno == errno.ENOSPC else os.strerror(error.errno or 0)
        )
        if not self._unwatched:
            log.error("cannot watch every directory; the others are only re-scanned", extra={"reason": hint})
        self._unwatched[directory] = hint


class PollWatch:
    """watchdog's polling observer: looks at the whole tree every POLL_INTERVAL seconds.

    It lists nothing outside of the tree, whatever lies there, and does not look deeper than POLL_DEPTH: what is
    below that is found by a full scan.
    """

    def __init__(
        self,
        root: MirroredDirectory,
        wake: Callable[[], None],
        interval: float = POLL_INTERVAL,
        *,
        trouble: str | None = None,
    ) -> None:
        """trouble: why it is polled, where that was not asked for."""
        # Only a host without inotify pays for loading it.
        from watchdog.events import FileSystemEvent, FileSystemEventHandler  # noqa: PLC0415 - see above
        from watchdog.observers.polling import PollingObserverVFS  # noqa: PLC0415 - see above

        watch = self
        top = f"/proc/self/fd/{root.fd}/."
        private = os.path.join(top, PRIVATE_NAME)

        def entries(path: str | None) -> Iterator["os.DirEntry[str]"]:
            """List a directory; the observer takes their names only."""
            relative = (path or top)[len(top) + 1 :]
            if relative.count("/") >= POLL_DEPTH:
                return iter(())
            try:
                descriptor = root.open_directory(StorePath(relative))
            except OSError:
                return iter(())
            try:
                with os.scandir(descriptor) as found:
                    return iter(list(found))
            finally:
                os.close(descriptor)

        class _Anything(FileSystemEventHandler):
            def on_any_event(self, event: FileSystemEvent) -> None:
                where = os.fsdecode(event.src_path)
                if where != private and not where.startswith(f"{private}/"):
                    watch.note()

        self.trouble = trouble
        self._wake = wake
        self._lock = threading.Lock()
        self._dirty = Dirty()
        self._observer = PollingObserverVFS(stat=os.lstat, listdir=entries, polling_interval=interval)
        self._observer.schedule(_Anything(), top, recursive=True)
        self._observer.start()

    def ensure(self, directory: StorePath, descriptor: int | None) -> None:
        """Do nothing: everything is polled."""

    def writing(self, path: StorePath) -> bool:  # noqa: ARG002  # as the protocol has it
        """Return false: a poll sees nobody write."""
        return False

    def quiet(self, path: StorePath) -> None:
        """Do nothing: a poll sees nobody write."""

    def hold(self) -> None:
        """Do nothing: a poll is woken by nothing."""

    def release(self, own: Map[StorePath, Moves], is_as_left: Callable[[StorePath], bool]) -> None:
        """Do nothing: a poll sees no renames."""

    def drain(self) -> Dirty:
        """Return where something may have changed since the last call: everywhere, or nowhere."""
        with self._lock:
            dirty, self._dirty = self._dirty, Dirty()
            return dirty

    def close(self) -> None:
        """End the threads."""
        self._observer.stop()
        self._observer.join()

    def note(self) -> None:
        """Remember that something changed, and wake whoever waits."""
        with self._lock:
            self._dirty.note()
            self._dirty.everything = True
        self._wake()


def choose(mode: WatchMode, root: MirroredDirectory, wake: Callable[[], None]) -> LocalWatch:
    """Return a running watch. Raises RefusedError when inotify is demanded and cannot be had."""
    if mode is WatchMode.POLL:
        return PollWatch(root, wake)
    try:
        return InotifyWatch(wake)
    except OSError as error:
        if mode is WatchMode.INOTIFY:
            raise RefusedError(
                f'{root.path}: inotify is not to be had: {error.strerror}; set watch = "poll"'
            ) from error
        log.warning("inotify is not to be had; polling", extra={"path": root.path, "reason": error.strerror})
        mend = "raise fs.inotify.max_user_instances" if error.errno == errno.EMFILE else 'or set watch = "poll"'
        trouble = f"polled every {POLL_INTERVAL:g} s, since inotify is not to be had: {error.strerror}: {mend}"
        return PollWatch(root, wake, trouble=trouble)
