"""A directory that shows a mapping as it would be, for a check to look at; in memory, and nobody else's.

What it shows was read by descriptor from the mirrored directory, or comes from the store: no name in it leads to
where the application could put something else meanwhile.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from configstore.errors import RefusedError
from configstore.model.path import StorePath
from sidecar.planner.mapping import OwnerOverride

MAX_SIZE = 64 * 1024 * 1024
"""Bytes of content that a view may have."""

_PREFIX = "configstore-check-"
_IN_MEMORY = {"tmpfs", "ramfs"}
_FOLDERS = ("/tmp", "/dev/shm")  # noqa: S108  # a directory of our own is made in it


class View:
    """One view under construction; make it with `showing`. path: its directory."""

    def __init__(self, path: str, run_as: OwnerOverride) -> None:
        self.path = path
        self._run_as = run_as
        self._left = MAX_SIZE
        self._give(path)

    def directory(self, path: StorePath) -> None:
        """Show a directory. Raises OSError."""
        self._above(f"{path}/x")

    def link(self, path: StorePath, target: str) -> None:
        """Show a symlink. Raises OSError."""
        self._above(path)
        os.symlink(target, os.path.join(self.path, path))

    def file(self, path: StorePath, content: Iterable[bytes]) -> None:
        """Show a file, given in pieces. Raises RefusedError when there is too much, OSError, what they raise."""
        self._above(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        shown = os.path.join(self.path, path)
        with open(os.open(shown, flags, 0o600), "wb") as file:
            for piece in content:
                self._left -= len(piece)
                if self._left < 0:
                    raise RefusedError(f"what the check must see has more than {MAX_SIZE} bytes")
                file.write(piece)
        self._give(shown)

    def _above(self, path: str) -> None:
        above = self.path
        for name in path.split("/")[:-1]:
            above = os.path.join(above, name)
            if not os.path.isdir(above):
                os.mkdir(above, 0o700)
                self._give(above)

    def _give(self, path: str) -> None:
        uid, gid = self._run_as.uid, self._run_as.gid
        if uid is not None or gid is not None:
            os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)


@contextmanager
def showing(run_as: OwnerOverride, folders: Iterable[str] = _FOLDERS) -> Iterator[View]:
    """Make an empty view for the user that the check runs as; it is gone afterwards.

    folders: where it may lie, the first one that is in memory. Raises RefusedError where there is none, OSError.
    """
    folder = _in_memory(folders)
    _remove_left(folder, {os.geteuid(), run_as.uid})
    path = tempfile.mkdtemp(prefix=_PREFIX, dir=folder)
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield View(path, run_as)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _remove_left(folder: str, owners: set[int | None]) -> None:
    """Remove what a killed process left of its views: nobody holds its lock any more."""
    for name in os.listdir(folder):
        if not name.startswith(_PREFIX):
            continue
        path = os.path.join(folder, name)
        with suppress(OSError):
            left = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(left).st_uid in owners:
                    fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(left)


def _in_memory(folders: Iterable[str]) -> str:
    """Return the first folder whose content never comes to a disk, and to which we may write."""
    mounts = dict(_mounts())
    for folder in folders:
        real = os.path.realpath(folder)
        mount = max((each for each in mounts if f"{real}/".startswith(f"{each.rstrip('/')}/")), key=len)
        if mounts[mount] in _IN_MEMORY and os.access(real, os.W_OK | os.X_OK, effective_ids=True):
            return real
    raise RefusedError("there is no folder in memory for what the check must see: mount a tmpfs at /tmp")


def _mounts() -> Iterator[tuple[str, str]]:
    """Yield the mount points and their file systems' types, later ones over earlier (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            head, _, tail = line.partition(" - ")
            yield head.split(" ", 5)[4], tail.split(" ", 1)[0]
