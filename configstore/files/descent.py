"""Opens a local path by a walk, through nothing that a stranger could have put in the way.

A path is a promise only as far as nobody else can change what its names mean. So it is walked name by name, each
opened in the directory before it without following a link. A link counts where nobody but root and we could have
made it, such as /var/run; any other is refused. What is opened is held: later steps begin at the descriptor.
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
    """The part of struct statx that tells of attributes (statx(2)); it has 256 bytes."""

    _fields_ = (
        ("before", ctypes.c_uint32 * 2),
        ("attributes", ctypes.c_uint64),
        ("between", ctypes.c_uint8 * 40),
        ("attributes_mask", ctypes.c_uint64),
        ("after", ctypes.c_uint8 * 192),
    )


_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40  # as the kernel has it (path_resolution(7))


def open_parent(path: str) -> tuple[int, str]:
    """Open the directory in which a path ends; returns its descriptor (O_PATH) and the name in it.

    What has that name is no symlink, or not there. `.` is the name of a path that ends in `.`, `..` or is `/`.
    Raises RefusedError for a link that a stranger may have put there, OSError naming the path.
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
    """Open a directory for listing. Raises RefusedError, OSError, as `open_parent`."""
    above, name = open_parent(path)
    try:
        return enter(above, name)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(above)


def enter(above: int, name: str) -> int:
    """Open a directory in an open one, never through a link. Raises OSError, NotADirectoryError for a link."""
    return os.open(name, _LIST, dir_fd=above)


def make(above: int, name: str, owner: os.stat_result | None = None) -> int:
    """Make a directory (0700) in an open one, for whom `owner` names, and open it.

    What is opened must be ours and empty: were another directory put in its place meanwhile, that could be a
    private one, whose mode or owner is about to be changed. Raises OSError, ESTALE for that, FileExistsError when
    there is one.
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
    """Raise OSError (ESTALE) unless what is open can be what we made just now."""
    if os.fstat(made).st_uid != os.geteuid() or not _is_empty(made):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)


def open_or_make(path: str, mode: int = 0o700, *, for_stranger: bool = False) -> tuple[int, bool]:
    """Open a directory; where its last component is missing, make it with `mode`. Returns whether it was made.

    for_stranger: it is made for the owner of the directory above where that is a stranger, who decides what lies
    there anyway. Raises RefusedError, OSError.
    """
    try:
        return descend(path), False
    except FileNotFoundError:
        above, name = open_parent(path)
    try:
        found = os.fstat(above)
        made = make(above, name, found if for_stranger and is_stranger(found.st_uid) else None)
    except FileExistsError:
        return descend(path), False  # somebody was faster
    finally:
        os.close(above)
    os.fchmod(made, mode)
    return made, True


def is_mount(descriptor: int) -> bool:
    """Tell whether an open directory is the top of a mount, bind mounts included. Raises OSError."""
    found = _Statx()
    told = _libc.statx(descriptor, b"", _AT_EMPTY_PATH, 0, ctypes.byref(found)) == 0
    if told and found.attributes_mask & _MOUNT_ROOT:
        return bool(found.attributes & _MOUNT_ROOT)
    path = os.readlink(f"/proc/self/fd/{descriptor}")  # a kernel before 5.8
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(_unescape(line.split(" ", 5)[4]) == path for line in table)


def give(descriptor: int, owner: os.stat_result) -> None:
    """Give what is open to the user and group of `owner`, if we may."""
    with suppress(PermissionError):
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def is_stranger(uid: int) -> bool:
    """Tell whether a user is neither root nor we."""
    return uid not in {0, os.geteuid()}


def can_be_exchanged(above: os.stat_result) -> bool:
    """Tell whether a stranger can put something else in the place of what lies in a directory.

    In one with the sticky bit that belongs to root or us, a stranger moves what is its own and no more. Our own
    group is taken for ours: many systems give each user one.
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
    """Open what lies at a name; None when the path may end there and nothing does. Raises OSError."""
    try:
        return os.open(name, _STEP, dir_fd=directory)
    except FileNotFoundError:
        if last:
            return None
        raise


def _target(path: str, name: str, above: int, link: int, links: int) -> str:
    """Return where a link leads, and close it. Raises RefusedError when a stranger may have made it, OSError."""
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
