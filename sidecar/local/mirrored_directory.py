"""The mirrored directory: opened once, kept open, and recognised before each cycle.

1. A directory that was unmounted, replaced or mounted over looks like one in which everything was deleted. So
   nothing is concluded and nothing written before `check` has recognised the directory that was opened.
2. Everything in it is reached through its descriptor, never through its path again.
3. Where another user can write to the directory above, that user can put another directory at its path, such as
   one that this process may write to and the user may not. So only a directory is opened that this user could have
   made, or one that bears the known mark (`_refuse_exchanged`).
"""

import errno
import fcntl
import os
from contextlib import ExitStack, closing, suppress

from configstore.errors import RefusedError
from configstore.files import descent
from configstore.files.beneath import Beneath
from configstore.files.reasons import why_failed
from configstore.model.path import PRIVATE_NAME, StorePath
from sidecar.local.private import STAGING, PrivateDirectory

_MODE = 0o755


class DirectoryLostError(Exception):
    """The directory was emptied, or replaced by another usable one, which is to be opened without a baseline."""


class MirroredDirectory:
    """One open mirrored directory.

    fd: its descriptor. private: its `.configstore`. read_only: whether its mount is read-only, so that it has no
    `.configstore` and no mark by which it is recognised after a restart.
    """

    def __init__(
        self, path: str, *, within: str = "", mark: str = "", prepare: bool = True, only_read: bool = False
    ) -> None:
        """Open `path`, make it (0755) when only its last component is missing, and prepare `.configstore`.

        within: another mirrored directory that contains it: what is missing in between is made, too, and no link
        is followed there. mark: the mark of the directory that was mirrored before, if known. prepare: false
        changes nothing; a missing directory that would be made counts as an empty one. only_read: whether nothing
        will be placed in it, so that a read-only mount is accepted. Raises RefusedError with what to do.
        """
        self.path = path
        self._parts = ExitStack()
        try:
            found = self._open_directory(within, prepare=prepare)
            self.beneath = Beneath(self.fd)
            self._identity = _identity(os.fstat(self.fd))
            self._was_mount = descent.is_mount(self.fd)
            if found and not self._was_mount:
                self._refuse_exchanged(mark)
            self.read_only = only_read and _is_read_only(self.fd)
            self.private = PrivateDirectory(self.fd, path, prepare=prepare and not self.read_only)
            self._parts.callback(self.private.close)
            self._own_identities = self._identities()
        except OSError as error:
            self.close()
            raise RefusedError(f"{path}: cannot be mirrored: {_mend(error)}") from error
        except BaseException:
            self.close()
            raise

    @property
    def staging_fd(self) -> int:
        """The descriptor of the staging directory."""
        return self.private.staging_fd

    def claim(self) -> None:
        """Lock the directory against other sidecars and mappings until `close`. Raises RefusedError.

        The lock is on the directory itself, so that it also holds against another path to it.
        """
        try:
            fcntl.flock(self.fd if self.read_only else self.private.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"{self.path}: another sidecar or mapping mirrors it already, maybe through a symlink: give each"
                " mapping a directory of its own"
            ) from None

    def check(self) -> str | None:
        """Return why the directory must not be touched now, or None.

        Raises DirectoryLostError when it was emptied, or replaced by a directory that may be filled.
        """
        try:
            return self._compare()
        except OSError as error:
            return f"{self.path}: {error.strerror}: was it unmounted or removed? Nothing is pushed or deleted"

    def _compare(self) -> str | None:
        if _identity(os.stat(self.path)) != self._identity:
            if self._was_mount and not is_mount(self.path):
                return (
                    f"{self.path}: no longer mounted; nothing is written below a bare mount point: mount it again"
                )
            raise DirectoryLostError(f"{self.path}: another directory lies here now")
        if self.read_only:
            return None
        for name, above, held in self._own_identities:
            try:
                found = os.stat(name, dir_fd=above, follow_symlinks=False)
            except FileNotFoundError:
                raise DirectoryLostError(f"{self.path}: was emptied: {name} is gone") from None
            if _identity(found) != held:
                raise DirectoryLostError(f"{self.path}: {name} was replaced")
        return None

    def _identities(self) -> tuple[tuple[str, int, tuple[int, int]], ...]:
        """Return name, parent descriptor and identity of `.configstore` and its staging directory.

        They are held open, so no other directory can get their inode numbers.
        """
        held = (PRIVATE_NAME, self.fd, self.private.fd), (STAGING, self.private.fd, self.private.staging_fd)
        return tuple((name, above, _identity(os.fstat(ours))) for name, above, ours in held if ours >= 0)

    def open_directory(self, relative: StorePath) -> int:
        """Open a directory below it, for listing and *at() calls. Raises OSError."""
        return self.beneath.open(relative, os.O_RDONLY | os.O_DIRECTORY)

    def close(self) -> None:
        """Close all descriptors."""
        self._parts.close()

    def _open_directory(self, within: str, *, prepare: bool) -> bool:
        """Open the directory; returns whether it existed before. Raises RefusedError, OSError."""
        if prepare and within:
            self.fd, made = _open_within(self.path, within, make=True)
        elif prepare:
            self.fd, made = descent.open_or_make(self.path, _MODE, for_stranger=True)
        else:
            self.fd, made = self._open_or_stand_in(within)
        self._parts.callback(os.close, self.fd)
        return not made

    def _open_or_stand_in(self, within: str) -> tuple[int, bool]:
        try:
            if within:
                return _open_within(self.path, within, make=False)
            return descent.descend(self.path), False
        except FileNotFoundError:
            if not os.path.isdir(os.path.dirname(within or self.path)):
                raise
        return self._empty_directory(), True

    def _refuse_exchanged(self, mark: str) -> None:
        """Raise RefusedError when another user could have put a foreign directory at the path."""
        above, found = os.stat("..", dir_fd=self.fd), os.fstat(self.fd)
        if not descent.can_be_exchanged(above) or (mark and self._bears(mark)):
            return
        theirs = above.st_uid if descent.is_stranger(above.st_uid) else None
        if found.st_uid == theirs or (theirs is None and descent.is_stranger(found.st_uid)):
            return
        who = "any user" if theirs is None else f"uid {theirs}"
        raise RefusedError(
            f"{self.path}: belongs to uid {found.st_uid}, while {who} can put what it likes here, since it can"
            " write to the directory above: mount a volume here, or give the directory to the application's user"
        )

    def _bears(self, mark: str) -> bool:
        """Return whether the directory bears a mark."""
        with suppress(OSError, RefusedError):
            private = PrivateDirectory(self.fd, self.path, prepare=False)
            with closing(private):
                return private.mark == mark
        return False

    def _empty_directory(self) -> int:
        """Open a temporary directory in the stead of a missing one, until `close`. Raises RefusedError."""
        from tempfile import mkdtemp  # noqa: PLC0415  # a MiB that only `plan` pays

        try:
            stand_in = mkdtemp(prefix="configstore-")
        except OSError as error:
            words = "is not there yet, and there is no room for a temporary one to stand for it"
            raise RefusedError(f"{self.path}: {words}: {error.strerror}; make it first") from error
        self._parts.callback(os.rmdir, stand_in)
        return os.open(stand_in, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _open_within(path: str, within: str, *, make: bool) -> tuple[int, bool]:
    """Open a directory below another mirrored one, where no link is followed; returns whether it was made.

    make: what is missing is made, for the other one's owner. Raises RefusedError, OSError.
    """
    current, made = descent.descend(within), False
    owner = os.fstat(current)
    for name in path[len(within) + 1 :].split("/"):
        try:
            try:
                deeper, made = descent.enter(current, name), False
            except FileNotFoundError:
                if not make:
                    raise
                deeper, made = descent.make(current, name, owner), True
                os.fchmod(deeper, _MODE)
        except NotADirectoryError:
            raise RefusedError(f"{path}: is reached through a symlink or a file in {within}: remove it") from None
        finally:
            os.close(current)
        current = deeper
    return current, made


def _is_read_only(directory: int) -> bool:
    """Return whether a directory is on a read-only mount."""
    return bool(os.fstatvfs(directory).f_flag & os.ST_RDONLY)


def is_mount(path: str) -> bool:
    """Return whether something is mounted at `path`. Raises OSError."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return descent.is_mount(descriptor)
    finally:
        os.close(descriptor)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _mend(error: OSError) -> str:
    table = {
        errno.ENOENT: "the directory above it does not exist: mount or make it",
        errno.ENOTDIR: "it is not a directory",
        errno.EACCES: "no permission: run the sidecar as the directory's owner",
        errno.EROFS: "it is read-only: mount it writable for the sidecar",
    }
    return why_failed(error, table)
