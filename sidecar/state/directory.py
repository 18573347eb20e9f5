"""The state directory: what a sidecar remembers between its cycles, out of the application's reach.

One directory for the process (0700), with one in it for each mapping, which is locked while the mapping is
mirrored. It has paths, digests, revisions and write ids, never content. Without one, as when application and
sidecar are one user in one container, the state is in the mirrored directories; it is parsed as untrusted in
either case.
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
"""The value of the setting by which the state is kept in the mirrored directories."""


class StateLocation(msgspec.Struct, frozen=True, kw_only=True):
    """The open directory with the state of one mapping. is_new: whether it was made just now."""

    descriptor: int
    path: str
    is_new: bool

    def close(self) -> None:
        """Close it, which ends its lock."""
        os.close(self.descriptor)


class StateDirectory:
    """The state directory of one process.

    limitation: why a root sidecar keeps its state in the mounts although that is not configured, and what to do.
    """

    def __init__(self, path: str | None, *, prepare: bool = True) -> None:
        """Open `path`, and make it (0700) when only its last component is missing.

        path: None for the default, or for the mounts if the default cannot be used; IN_MOUNT for the mounts.
        prepare: false changes nothing. Raises RefusedError, with what to do, when a configured directory cannot be
        used.
        """
        self.path = path or DEFAULT
        self.limitation: str | None = None
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
            if os.geteuid() == 0:  # else sidecar and application may be one user, and nothing is to be kept apart
                self.limitation = f"{where}: {error}"

    def open(self, name: str, directory: str) -> StateLocation | None:
        """Open and lock the directory with the state of mapping `name`, which mirrors `directory`.

        Returns None when the state is in the mount, or with `prepare` false when there is none yet.
        Raises RefusedError when another sidecar uses it, or it cannot be used.
        """
        if self._fd < 0:
            return None
        path = f"{self.path}/{(last := _name_for(name, directory))}"
        try:
            found, is_new = self._enter(last)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RefusedError(f"{path}: cannot keep the state here: {error.strerror}") from error
        location = StateLocation(descriptor=found, path=path, is_new=is_new)
        try:
            _lock(location, locked=self._prepare)
        except BaseException:
            location.close()
            raise
        return location

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
    """Open the state directory; -1 when there is none and none is to be made. Raises RefusedError."""
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


def _name_for(name: str, directory: str) -> str:
    return f"{name}-{hashlib.sha256(directory.encode()).hexdigest()[:12]}"


def _lock(location: StateLocation, *, locked: bool) -> None:
    """Lock the directory. Raises RefusedError if it is another user's or another sidecar's."""
    owner = os.fstat(location.descriptor).st_uid
    if owner != os.geteuid():
        raise RefusedError(
            f"{location.path}: belongs to uid {owner}, and this sidecar runs as uid {os.geteuid()}: remove it;"
            " everything is compared anew then"
        )
    try:
        if locked:
            fcntl.flock(location.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RefusedError(
            f"{location.path}: another sidecar keeps its state here: give each a CONFIGSTORE_STATE of its own"
        ) from None


def _take(descriptor: int, path: str) -> None:
    """Give the directory to this user alone. Raises RefusedError."""
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
