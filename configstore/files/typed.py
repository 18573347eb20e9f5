"""Opens what a person typed as a local path, following no stranger's link. For commands, which root often runs.

Whoever may write into a directory on the way, such as an application into its own or anybody into /tmp, could lay
a symlink there that leads root's command elsewhere. Links of root and of who runs the command are followed.
"""

import errno
import os
import stat

from configstore.errors import RefusedError
from configstore.model.path import printable

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40  # as the kernel allows


def open_parent(path: str) -> tuple[int, str]:
    """Open the directory in which a path ends; returns its descriptor (O_PATH) and the name in it.

    What has that name is no symlink, or not there. `.` is the name of a path that ends in `.`, `..` or is `/`.
    Raises RefusedError for a stranger's link on the way or at the end, OSError naming the path.
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
            mode = os.fstat(step).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                target = _target(path, name, step, links)
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


def open_directory(path: str) -> int:
    """Open a directory that a person typed, for reading. Raises RefusedError, OSError, as `open_parent`."""
    above, name = open_parent(path)
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(above)


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


def _target(path: str, name: str, link: int, links: int) -> str:
    """Return where a link leads that may be followed, and close it. Raises RefusedError, OSError."""
    try:
        owner = os.fstat(link).st_uid
        if owner not in {0, os.geteuid()}:
            raise RefusedError(
                f"{printable(path)}: {printable(name)} is a symlink of another user (uid {owner}), who could lead"
                " it anywhere; name what it leads to"
            )
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return os.readlink("", dir_fd=link)
    finally:
        os.close(link)
