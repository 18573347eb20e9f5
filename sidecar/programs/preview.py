"""A private directory in memory that shows a check its mapping as it would be.

Its content was read by descriptor from the mirrored directory, or comes from the store. It is built by descriptor
as well, so that no link among the entries leads a later entry elsewhere.
"""

import fcntl
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from configstore.errors import RefusedError
from configstore.files import descent
from configstore.files.clearing import empty_directory
from configstore.mapping_settings import OwnerOverride
from configstore.model.path import StorePath, unsafe_target

MAX_SIZE = 64 * 1024 * 1024
"""Bytes of content that a view may have."""

_PREFIX = "configstore-check-"
_IN_MEMORY = {"tmpfs", "ramfs"}
_FOLDERS = ("/tmp", "/dev/shm")  # noqa: S108  # a private directory is made in it
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_beginning = threading.Lock()
"""Held until a new view has its lock: another mapping's thread would take it for the view of a dead process."""


class Preview:
    """One view under construction; make it with `showing`. path: its directory."""

    def __init__(self, path: str, directory: int, run_as: OwnerOverride) -> None:
        self.path = path
        self._directory = directory
        self._run_as = run_as
        self._left = MAX_SIZE
        self._give(directory)

    def directory(self, path: StorePath) -> None:
        """Show a directory. Raises OSError."""
        os.close(self._enter(path.split("/")))

    def link(self, path: StorePath, target: str) -> None:
        """Show a symlink. Raises RefusedError for one that leads out, OSError."""
        reason = unsafe_target(path, target)
        if reason:
            raise RefusedError(f"{path}: {reason}")
        with self._above(path) as (above, name):
            os.symlink(target, name, dir_fd=above)

    def file(self, path: StorePath, content: Iterable[bytes]) -> None:
        """Show a file, given in pieces. Raises RefusedError when that is too much, OSError, what they raise."""
        with self._above(path) as (above, name), open(os.open(name, _NEW, 0o600, dir_fd=above), "wb") as file:
            for piece in content:
                self._left -= len(piece)
                if self._left < 0:
                    raise RefusedError(f"what the check must see has more than {MAX_SIZE} bytes")
                file.write(piece)
            self._give(file.fileno())

    @contextmanager
    def _above(self, path: StorePath) -> Iterator[tuple[int, str]]:
        *names, last = path.split("/")
        above = self._enter(names)
        try:
            yield above, last
        finally:
            os.close(above)

    def _enter(self, names: Iterable[str]) -> int:
        """Open a directory of the view, made where it is missing. Raises OSError, also for a link in its path."""
        current = os.dup(self._directory)
        for name in names:
            try:
                try:
                    deeper = descent.enter(current, name)
                except FileNotFoundError:
                    deeper = descent.make(current, name)
                    self._give(deeper)
            finally:
                os.close(current)
            current = deeper
        return current

    def _give(self, descriptor: int) -> None:
        uid, gid = self._run_as.uid, self._run_as.gid
        if uid is not None or gid is not None:
            os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)


@contextmanager
def showing(run_as: OwnerOverride, folders: Iterable[str] = _FOLDERS) -> Iterator[Preview]:
    """Make an empty view for the user that the check runs as, and remove it after the body.

    It is made in the first of `folders` that is in memory. Raises RefusedError where none is, OSError.
    """
    folder = _in_memory(folders)
    with _beginning:
        _remove_left(folder, {os.geteuid(), run_as.uid})
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=folder)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(directory, fcntl.LOCK_EX)
    try:
        yield Preview(path, directory, run_as)
    finally:
        _remove(path, directory)
        os.close(directory)


def _remove_left(folder: str, owners: set[int | None]) -> None:
    """Remove the views of killed processes, whose locks nobody holds any more."""
    for name in os.listdir(folder):
        if not name.startswith(_PREFIX):
            continue
        path = os.path.join(folder, name)
        with suppress(OSError):
            left = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(left).st_uid in owners:
                    fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(path, left)
            finally:
                os.close(left)


def _remove(path: str, directory: int) -> None:
    with suppress(OSError):  # what the check itself made there may not be removable
        empty_directory(directory)
        os.rmdir(path)


def _in_memory(folders: Iterable[str]) -> str:
    """Return the first folder that is in memory and writable. Raises RefusedError, OSError."""
    mounts = dict(_mounts())
    for folder in folders:
        real = os.path.realpath(folder)
        mount = max((each for each in mounts if f"{real}/".startswith(f"{each.rstrip('/')}/")), key=len)
        if mounts[mount] in _IN_MEMORY and os.access(real, os.W_OK | os.X_OK, effective_ids=True):
            return real
    raise RefusedError("there is no folder in memory for what the check must see: mount a tmpfs at /tmp")


def _mounts() -> Iterator[tuple[str, str]]:
    """Yield mount points and file system types; of two at one point the later counts (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            head, _, tail = line.partition(" - ")
            yield head.split(" ", 5)[4], tail.split(" ", 1)[0]
