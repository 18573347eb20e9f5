"""The directories in which a set is applied: held open, made where they are missing, writable while it lasts.

Called by `apply`. A directory gets its final mode only when all is in place: content is never laid into one that
is wider than it shall be, and one that shall not be written to (0500) still gets its content. As long as a set
lasts a path is one directory: what somebody puts in its place meanwhile gets neither content nor mode nor owner.
"""

import errno
import os
import stat
from collections import OrderedDict
from contextlib import suppress
from types import TracebackType
from typing import Self

from configstore.files import descent
from configstore.model.path import ROOT, StorePath, ancestors, basename, depth, parent
from sidecar.local.change import LocalChange
from sidecar.local.journal import Journal, Unlocking
from sidecar.local.mirrored_directory import MirroredDirectory

_OPEN = 128
_IMPLICIT_MODE = 0o755
_SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


def special_bits(status: os.stat_result) -> int:
    """Return the bits of a mode that never travel: those that lie here stay."""
    return status.st_mode & _SPECIAL


class Directories:
    """Directories of one set, by path; the least recently used ones are closed again.

    modes: what those shall have in the end whose mode was changed meanwhile.
    """

    def __init__(self, root: MirroredDirectory, mode: int | None, journal: Journal) -> None:
        """`mode` is that of directories which the store has no record of."""
        self.modes: dict[StorePath, int] = {}
        self._root = root
        self._journal = journal
        self._mode = _IMPLICIT_MODE if mode is None else mode
        self._open: OrderedDict[StorePath, int] = OrderedDict()
        self._inodes: dict[StorePath, int] = {}
        self._unlocked: set[StorePath] = set()

    def open(self, path: StorePath) -> int:
        """Return a descriptor, valid until some others were opened.

        Raises OSError, ESTALE when another directory lies there than before.
        """
        if path == ROOT:
            return self._root.fd
        descriptor = self._open.get(path)
        if descriptor is None:
            self._keep(path, self._root.open_directory(path))
            return self._open[path]
        if len(self._open) > 1:
            self._open.move_to_end(path)
        return descriptor

    def _keep(self, path: StorePath, descriptor: int) -> None:
        self._open[path] = descriptor
        if len(self._open) > _OPEN:
            os.close(self._open.popitem(last=False)[1])
        inode = os.fstat(descriptor).st_ino
        if self._inodes.setdefault(path, inode) != inode:
            del self._open[path]
            os.close(descriptor)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    def unlock(self, path: StorePath) -> int:
        """Open a directory of our own and let us write to it until `give_back`. Raises OSError."""
        descriptor = self.open(path)
        if path in self._unlocked:
            return descriptor
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
            status = os.fstat(descriptor)
            if status.st_uid == os.geteuid():
                mode = stat.S_IMODE(status.st_mode)
                self._journal.note(Unlocking(path=path, mode=mode))
                self.modes.setdefault(path, mode)
                os.fchmod(descriptor, mode | 0o700)
        self._unlocked.add(path)
        return descriptor

    def make(self, path: StorePath) -> int:
        """Unlock a directory; make it, and those above it, where there is none. Raises OSError."""
        with suppress(FileNotFoundError):
            return self.unlock(path)
        for missing in [*ancestors(path), path]:
            self._make(missing)
        return self.unlock(path)

    def refuse_mount(self, change: LocalChange) -> None:
        """Raise OSError when a file cannot be replaced, another one being mounted on it (where openat2 tells)."""
        if change.expected is None or change.was_directory:
            return
        try:
            os.close(self._root.beneath.open(change.path, os.O_PATH | os.O_NOFOLLOW))
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), change.path) from None

    def give_back(self) -> None:
        """Give the directories their final modes, the deepest first."""
        for path in sorted(self.modes, key=depth, reverse=True):
            with suppress(OSError):  # gone again, or somebody else's by now
                os.fchmod(self.open(path), self.modes[path])

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all descriptors."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _make(self, path: StorePath) -> None:
        with suppress(FileNotFoundError):
            self.open(path)
            return
        above = self.unlock(parent(path))
        with suppress(FileExistsError):
            made = descent.make(above, basename(path), os.fstat(above))
            self._keep(path, made)
            self.modes[path] = self._mode | special_bits(os.fstat(made))
