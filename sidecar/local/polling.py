"""The local watch where inotify is not available: watchdog's polling observer scans the whole tree."""

import os
import threading
from collections.abc import Callable, Iterator

from configstore.model.path import PRIVATE_NAME, StorePath
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.watch import Dirty, LocalWatch

POLL_INTERVAL = 1.0
"""Seconds between two scans of the observer."""

POLL_DEPTH = 100
"""Number of directory levels that it scans: the observer calls itself for each."""


class PollWatch(LocalWatch):
    """Scans the whole tree every POLL_INTERVAL seconds.

    It lists nothing outside of the tree, wherever links in it lead, and nothing deeper than POLL_DEPTH: changes
    there are found by the next full scan.
    """

    def __init__(
        self,
        root: MirroredDirectory,
        wake: Callable[[], None],
        interval: float = POLL_INTERVAL,
        *,
        limitation: str | None = None,
    ) -> None:
        """Start the threads. limitation: why it polls, where that was not configured."""
        # Loaded here, so that only a replica that polls has them in memory.
        from watchdog.events import FileSystemEvent, FileSystemEventHandler  # noqa: PLC0415 - see above
        from watchdog.observers.polling import PollingObserverVFS  # noqa: PLC0415 - see above

        watch = self
        top = f"/proc/self/fd/{root.fd}/."
        private = os.path.join(top, PRIVATE_NAME)

        def entries(path: str | None) -> Iterator["os.DirEntry[str]"]:
            """List a directory."""
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

        self._limitation = limitation
        self._wake = wake
        self._lock = threading.Lock()
        self._dirty = Dirty()
        self._observer = PollingObserverVFS(stat=os.lstat, listdir=entries, polling_interval=interval)
        self._observer.schedule(_Anything(), top, recursive=True)
        self._observer.start()

    @property
    def limitation(self) -> str | None:
        """Why it polls, where that was not configured."""
        return self._limitation

    def drain(self) -> Dirty:
        """Return whether anything may have changed since the last call: everything, or nothing."""
        with self._lock:
            dirty, self._dirty = self._dirty, Dirty()
            return dirty

    def close(self) -> None:
        """End the threads."""
        self._observer.stop()
        self._observer.join()

    def note(self) -> None:
        """Note that something changed, and wake the engine."""
        with self._lock:
            self._dirty.note()
            self._dirty.everything = True
        self._wake()
