"""Writes files so that nobody sees half of one, or can read a private one for a moment. Called by the commands.

A file is made under a temporary name in its own directory (0600), gets its owner and mode, and is then renamed.
"""

import os
import secrets
import select
from collections.abc import Callable
from contextlib import suppress

from configstore.files.beneath import Beneath
from configstore.files.reading import Unusable
from configstore.model.path import ROOT, StorePath, ancestors, basename, depth, parent, unsafe_target
from configstore.model.record import Entry, Kind

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


TEMPORARY = ".configstore-"
"""The prefix of temporary names; a file with such a name is left of a command that was killed."""


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of a content, however little the system takes at a time. Raises OSError."""
    left = memoryview(content)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # a full pipe that another process which shares it has made non-blocking
            writable = select.poll()
            writable.register(descriptor, select.POLLOUT)
            writable.poll()


def replace_file(
    directory: int,
    name: str,
    content: bytes,
    mode: int,
    owner: tuple[int, int] = (-1, -1),
    *,
    durable: bool = False,
) -> None:
    """Replace a file in an open directory by a new one. Raises OSError.

    owner: uid and gid, each -1 for ours. durable: the file is on the disk before this returns.
    """

    def make(temporary: str) -> None:
        descriptor = os.open(temporary, _NEW, 0o600, dir_fd=directory)
        try:
            write_all(descriptor, content)
            if owner != (-1, -1):
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    _replace(directory, name, make)
    if durable:
        os.fsync(directory)


def _replace(directory: int, name: str, make: Callable[[str], None]) -> None:
    temporary = f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        make(temporary)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise


class TreeWriter:
    """Writes a tree below one open directory, and never outside it.

    A directory that has an entry is 0700 until `finish`, so that nobody reads it before its files have their
    modes.
    """

    def __init__(self, folder: int, *, owners: bool) -> None:
        """`owners`: whether to give files to their owners, as root can."""
        self._beneath = Beneath(folder)
        self._owners = owners
        self._directories: dict[StorePath, Entry] = {}
        self._made: set[StorePath] = {ROOT}

    def write(self, path: StorePath, entry: Entry, content: bytes, *, dir_mode: int = 0o755) -> None:
        """Write the file, directory or symlink of an entry. Raises Unusable, OSError.

        dir_mode: the mode of missing directories above it that have no entry.
        """
        if entry.kind is Kind.SYMLINK and (reason := unsafe_target(path, entry.target)):
            raise Unusable(reason)
        for above in ancestors(path):
            self._make(above, dir_mode)
        if entry.kind is Kind.DIR:
            self._make(path, 0o700)
            self._directories[path] = entry
            return
        directory = self._open(parent(path))
        name = basename(path)
        try:
            if entry.kind is Kind.SYMLINK:
                _replace(directory, name, lambda temporary: self._link(temporary, directory, entry))
            else:
                replace_file(directory, name, content, entry.mode, self._owner(entry))
        finally:
            os.close(directory)

    def finish(self) -> dict[StorePath, OSError]:
        """Give directories their owner and mode, the deepest first; returns the errors by path."""
        failed = {}
        for path in sorted(self._directories, key=depth, reverse=True):
            try:
                self._give(path, self._directories[path])
            except OSError as error:
                failed[path] = error
        os.sync()
        return failed

    def _give(self, path: StorePath, entry: Entry) -> None:
        descriptor = self._open(path)
        try:
            if self._owners:
                os.fchown(descriptor, *self._owner(entry))
            os.fchmod(descriptor, entry.mode)
        finally:
            os.close(descriptor)

    def _make(self, path: StorePath, mode: int) -> None:
        """Make a missing directory with the owner of the one above it."""
        if path in self._made:
            return
        above = self._open(parent(path))
        try:
            os.mkdir(basename(path), 0o700, dir_fd=above)
            owner, status = self._directories.get(parent(path)), os.fstat(above)
            uid, gid = (owner.uid, owner.gid) if owner else (status.st_uid, status.st_gid)
            self._give(path, Entry(kind=Kind.DIR, mode=mode, uid=uid, gid=gid))
        except FileExistsError:
            os.close(self._open(path))  # it is a directory, or this raises
        finally:
            os.close(above)
        self._made.add(path)

    def _open(self, path: StorePath) -> int:
        return self._beneath.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def _link(self, temporary: str, directory: int, entry: Entry) -> None:
        os.symlink(entry.target, temporary, dir_fd=directory)
        if self._owners:
            os.chown(temporary, *self._owner(entry), dir_fd=directory, follow_symlinks=False)

    def _owner(self, entry: Entry) -> tuple[int, int]:
        if not self._owners:
            return -1, -1
        return (-1 if entry.uid is None else entry.uid), (-1 if entry.gid is None else entry.gid)
