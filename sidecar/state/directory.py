"""Where lies what a sidecar must remember between its cycles: out of the application's reach.

One directory for the process (0700), in it one for each mapping, held open and locked while it is mirrored. It
holds paths, digests, revisions and write ids, never content. Where there is no such place, as when application and
sidecar are one user in one container, the state lies in the mount; it is parsed as a stranger's all the same.
"""

import errno
import fcntl
import hashlib
import logging
import os
from contextlib import suppress

import msgspec

from configstore.errors import RefusedError
from configstore.files import descent
from configstore.files.reasons import why_failed
from configstore.settings import DEFAULT_STATE as DEFAULT

log = logging.getLogger(__name__)

IN_MOUNT = "mount"
"""The setting by which the state is to lie in the mirrored directories."""


class StateLocation(msgspec.Struct, frozen=True, kw_only=True):
    """Where the state of one mapping lies: an open directory. is_new: it was made just now."""

    descriptor: int
    path: str
    is_new: bool

    def close(self) -> None:
        """Close it, which ends its lock."""
        os.close(self.descriptor)


class StateDirectory:
    """The state of one process.

    trouble: why a root sidecar's state lies in the mounts although nobody asked for that, with the mend.
    """

    def __init__(self, path: str | None, *, prepare: bool = True) -> None:
        """Open `path` and make it (0700) where only its last component is missing.

        path: None for the default, in whose stead the mounts are used where it cannot be had; IN_MOUNT for these.
        prepare: false changes nothing. Raises RefusedError with the mend when a directory that was asked for
        cannot be used.
        """
        self.path = path or DEFAULT
        self.trouble: str | None = None
        self._fd = -1
        self._prepare = prepare
        if path == IN_MOUNT:
            return
        try:
            self._fd = _open(self.path, prepare=prepare)
        except RefusedError as error:
            if path is not None:
                raise
            where = "what this sidecar remembers lies in the mirrored directories, in the application's reach"
            log.warning(where, extra={"reason": str(error)})
            if os.geteuid() == 0:  # else both may well be one user, and there is nothing to keep apart
                self.trouble = f"{where}: {error}"

    def open(self, name: str, directory: str) -> StateLocation | None:
        """Open the place for the state of mapping `name`, which mirrors `directory`, and lock it.

        Returns None when the state lies in the mount, or with `prepare` false where there is none yet.
        Raises RefusedError when another sidecar uses it, or it cannot be had.
        """
        if self._fd < 0:
            return None
        path = f"{self.path}/{(last := _place_of(name, directory))}"
        try:
            found, is_new = self._enter(last)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RefusedError(f"{path}: cannot keep the state here: {error.strerror}") from error
        place = StateLocation(descriptor=found, path=path, is_new=is_new)
        try:
            _claim(place, locked=self._prepare)
        except BaseException:
            place.close()
            raise
        return place

    def _enter(self, last: str) -> tuple[int, bool]:
        if self._prepare:
            with suppress(FileExistsError):
                return descent.make(self._fd, last), True
        return descent.enter(self._fd, last), False

    def close(self) -> None:
        """Close the directory."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: str, *, prepare: bool) -> int:
    """Open the directory, which is our own. Raises RefusedError; -1 where there is none and none is to be made."""
    try:
        descriptor = descent.open_or_make(path)[0] if prepare else descent.descend(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not prepare:
            return -1
        raise RefusedError(f"{path}: cannot keep the state here: {_mend(error)}") from error
    if prepare:
        try:
            _take(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _place_of(name: str, directory: str) -> str:
    return f"{name}-{hashlib.sha256(directory.encode()).hexdigest()[:12]}"


def _claim(place: StateLocation, *, locked: bool) -> None:
    """Raise RefusedError for a place that is not ours alone."""
    owner = os.fstat(place.descriptor).st_uid
    if owner != os.geteuid():
        raise RefusedError(
            f"{place.path}: belongs to uid {owner}, and this sidecar runs as uid {os.geteuid()}: remove it;"
            " everything is compared anew then"
        )
    try:
        if locked:
            fcntl.flock(place.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RefusedError(
            f"{place.path}: another sidecar keeps its state here: give each a CONFIGSTORE_STATE of its own"
        ) from None


def _take(descriptor: int, path: str) -> None:
    """Let the directory be ours alone. Raises RefusedError."""
    try:
        if os.geteuid() == 0 != os.fstat(descriptor).st_uid:
            os.fchown(descriptor, 0, -1)  # a new volume takes over the owner that the image gives it
        if (owner := os.fstat(descriptor).st_uid) != os.geteuid():
            raise RefusedError(
                f"{path}: belongs to uid {owner}, and this sidecar runs as uid {os.geteuid()}: give it a directory"
                " of its own"
            )
        os.fchmod(descriptor, 0o700)
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor, effective_ids=True):
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))
    except OSError as error:
        raise RefusedError(f"{path}: cannot keep the state here: {_mend(error)}") from error


def _mend(error: OSError) -> str:
    table = {
        errno.ENOENT: "the directory above it does not exist: mount a volume here that no application mounts",
        errno.ENOTDIR: "it is not a directory",
        errno.EACCES: "no permission: mount a volume of this user's here that no application mounts",
        errno.EROFS: "it is read-only: mount a volume here that no application mounts",
    }
    return why_failed(error, table)
