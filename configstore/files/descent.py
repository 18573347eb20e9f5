"""Opens a directory by its absolute path, through nothing that a stranger could have put in the way.

A path is a promise only as far as nobody else can change what its names mean. So it is walked name by name, each
opened in the directory before it without following a link. A link counts where nobody but root and we could have
made it, such as /var/run; any other is refused. What is opened is held: later steps begin at the descriptor.
"""

import errno
import os
import stat

from configstore.errors import RefusedError

_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40  # as the kernel has it (path_resolution(7))


def descend(path: str) -> int:
    """Open the directory at an absolute path.

    Raises RefusedError for a link that a stranger may have put there, OSError.
    """
    names = _names(path)
    current = os.open("/", _WALK)
    links = 0
    try:
        while names:
            name = names.pop(0)
            try:
                current = _step(current, name)
            except NotADirectoryError:
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                target = _trusted_target(current, name, path)
                names = [*_names(target), *names]
                if target.startswith("/"):
                    current = _exchange(current, os.open("/", _WALK))
        return os.open(".", _LIST, dir_fd=current)
    finally:
        os.close(current)


def enter(above: int, name: str) -> int:
    """Open a directory in an open one, never through a link. Raises OSError, NotADirectoryError for a link."""
    return os.open(name, _LIST, dir_fd=above)


def make(above: int, name: str, owner: os.stat_result | None = None) -> int:
    """Make a directory (0700) in an open one, for whom `owner` names, and open it.

    It is given away only while it is empty: were another one put in its place meanwhile, that could be a private
    one with something in it. Raises OSError, FileExistsError when there is one.
    """
    os.mkdir(name, 0o700, dir_fd=above)
    made = enter(above, name)
    try:
        mine = os.fstat(made).st_uid == os.geteuid()
        if owner is not None and mine and _is_empty(made):
            give(made, owner)
    except BaseException:
        os.close(made)
        raise
    return made


def give(descriptor: int, owner: os.stat_result) -> None:
    """Give what is open to the user and group of `owner`, if we may."""
    try:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    except PermissionError:
        return


def is_stranger(uid: int) -> bool:
    """Tell whether a user is neither root nor we."""
    return uid not in {0, os.geteuid()}


def can_be_exchanged(above: os.stat_result) -> bool:
    """Tell whether a stranger can put something else in the place of what lies in a directory.

    In one with the sticky bit that belongs to root or us, a stranger moves what is its own and no more.
    """
    if is_stranger(above.st_uid):
        return True
    return bool(above.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) and not above.st_mode & stat.S_ISVTX


def _is_empty(directory: int) -> bool:
    with os.scandir(directory) as found:
        return next(found, None) is None


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]


def _step(current: int, name: str) -> int:
    """Go one directory further and close the one before. Raises OSError; then that one stays open."""
    return _exchange(current, os.open(name, _WALK, dir_fd=current))


def _exchange(current: int, deeper: int) -> int:
    os.close(current)
    return deeper


def _trusted_target(above: int, name: str, path: str) -> str:
    """Return where a link leads. Raises RefusedError when a stranger may have made it, OSError when it is none."""
    link = os.open(name, _LINK, dir_fd=above)
    try:
        found = os.fstat(link)
        if not stat.S_ISLNK(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if is_stranger(found.st_uid) or can_be_exchanged(os.fstat(above)):
            raise RefusedError(
                f"{path}: is reached through the symlink {name}, which another user can make lead elsewhere:"
                " remove it, or name the directory itself"
            )
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)
