"""Opens a local path without following any link that a stranger (another user than root and ours) may have made.

1. The path is walked name by name; each is opened in the directory before it, without following a link.
2. A link is followed only if nobody but root and we could have made it, such as /var/run; any other is refused.
3. Every later step starts at the descriptor that was opened, so nobody can exchange what was checked.

Called by the daemon for its directories, and by the commands that import and export.
"""

import ctypes
import errno
import os
import stat
from contextlib import suppress

from configstore.errors import RefusedError
from configstore.model.path import printable

_AT_EMPTY_PATH = 0x1000
_MOUNT_ROOT = 0x2000  # STATX_ATTR_MOUNT_ROOT

_libc = ctypes.CDLL(None, use_errno=True)


class _Statx(ctypes.Structure):
    """struct statx (statx(2), 256 bytes) with its fields for attributes."""

    _fields_ = (
        ("before", ctypes.c_uint32 * 2),
        ("attributes", ctypes.c_uint64),
        ("between", ctypes.c_uint8 * 40),
        ("attributes_mask", ctypes.c_uint64),
        ("after", ctypes.c_uint8 * 192),
    )


_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40  # the kernel's own limit (path_resolution(7))


def open_parent(path: str) -> tuple[int, str]:
    """Open the directory that holds a path's last component; returns its descriptor (O_PATH) and that component.

    The component is not a symlink, or does not exist. It is `.` for a path that ends in `.` or `..`, and for `/`.
    Raises RefusedError for a link that a stranger may have made, OSError with the path.
    """
    current = os.open("/" if path.startswith("/") else ".", _STEP | os.O_DIRECTORY)
    try:
        todo = _steps(path)
        links = 0
        while todo:
            name = todo.pop()
            step = _look(current, name, last=not todo)
            if step is None:
                return current, name
            if stat.S_ISLNK(os.fstat(step).st_mode):
                links += 1
                target = _target(path, name, current, step, links)
                todo += _steps(target)
                if not target.startswith("/"):
                    continue
                step = os.open("/", _STEP | os.O_DIRECTORY)
            elif not todo and name != "..":
                os.close(step)
                return current, name
            os.close(current)
            current = step
    except OSError as error:
        os.close(current)
        error.filename = path
        raise
    except BaseException:
        os.close(current)
        raise
    return current, "."


def descend(path: str) -> int:
    """Open a directory for listing. Raises as `open_parent` does."""
    above, name = open_parent(path)
    try:
        return enter(above, name)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(above)


def enter(above: int, name: str) -> int:
    """Open a directory in an open one, never through a link. Raises OSError; NotADirectoryError for a link."""
    return os.open(name, _LIST, dir_fd=above)


def make(above: int, name: str, owner: os.stat_result | None = None) -> int:
    """Make a directory (0700) in an open one, give it to `owner` if that is set, and open it.

    The opened directory must be ours and empty: another user could have put another one in its place meanwhile,
    and the caller is about to change its mode and owner. Raises OSError: ESTALE for that, FileExistsError when the
    name is taken.
    """
    os.mkdir(name, 0o700, dir_fd=above)
    made = enter(above, name)
    try:
        _check_made(made, name)
        if owner is not None:
            give(made, owner)
    except BaseException:
        os.close(made)
        raise
    return made


def _check_made(made: int, name: str) -> None:
    """Raise OSError (ESTALE) unless an open directory can be the one that we made just now."""
    if os.fstat(made).st_uid != os.geteuid() or not _is_empty(made):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)


def open_or_make(path: str, mode: int = 0o700, *, for_stranger: bool = False) -> tuple[int, bool]:
    """Open a directory, after making it with `mode` if its last component is missing; returns whether it was made.

    for_stranger: give a new directory to the owner of the one above if that is a stranger, who can decide about
    everything in it anyway. Raises RefusedError, OSError.
    """
    try:
        return descend(path), False
    except FileNotFoundError:
        above, name = open_parent(path)
    try:
        found = os.fstat(above)
        made = make(above, name, found if for_stranger and is_stranger(found.st_uid) else None)
    except FileExistsError:
        return descend(path), False  # another process made it meanwhile
    finally:
        os.close(above)
    os.fchmod(made, mode)
    return made, True


def is_mount(descriptor: int) -> bool:
    """Return whether an open directory is a mount point, bind mounts included. Raises OSError."""
    found = _Statx()
    told = _libc.statx(descriptor, b"", _AT_EMPTY_PATH, 0, ctypes.byref(found)) == 0
    if told and found.attributes_mask & _MOUNT_ROOT:
        return bool(found.attributes & _MOUNT_ROOT)
    path = os.readlink(f"/proc/self/fd/{descriptor}")  # a kernel before 5.8
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(_unescape(line.split(" ", 5)[4]) == path for line in table)


def give(descriptor: int, owner: os.stat_result) -> None:
    """Give an open file or directory to the user and group of `owner`, if we may."""
    with suppress(PermissionError):
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def is_stranger(uid: int) -> bool:
    """Return whether a user is neither root nor ours."""
    return uid not in {0, os.geteuid()}


def can_be_exchanged(above: os.stat_result) -> bool:
    """Return whether a stranger can replace what is in a directory.

    In a directory with the sticky bit that belongs to root or us, a stranger can move only its own files. Our own
    group counts as ours alone, since many systems give each user a group.
    """
    if is_stranger(above.st_uid):
        return True
    others = stat.S_IWOTH if above.st_gid == os.getegid() else stat.S_IWOTH | stat.S_IWGRP
    return bool(above.st_mode & others) and not above.st_mode & stat.S_ISVTX


def _unescape(field: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field


def _is_empty(directory: int) -> bool:
    with os.scandir(directory) as found:
        return not any(found)


def _steps(path: str) -> list[str]:
    """Return a path's components, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


def _look(directory: int, name: str, *, last: bool) -> int | None:
    """Open a name in a directory; None if it does not exist and is the path's last. Raises OSError."""
    try:
        return os.open(name, _STEP, dir_fd=directory)
    except FileNotFoundError:
        if last:
            return None
        raise


def _target(path: str, name: str, above: int, link: int, links: int) -> str:
    """Return a link's target, and close it. Raises RefusedError if a stranger may have made it, OSError."""
    try:
        if is_stranger(os.fstat(link).st_uid) or can_be_exchanged(os.fstat(above)):
            raise RefusedError(
                f"{printable(path)}: is reached through the symlink {printable(name)}, which another user can make"
                " lead elsewhere: name what it leads to"
            )
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)
