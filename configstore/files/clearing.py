"""Removes what another user may have put at a name in our own directory, however large or deep it is.

Called for the state directory, and for the private directory in a mirrored one.
"""

import itertools
import os
import secrets


def clear_name(name: str, directory: int, attic: int | None = None) -> None:
    """Free a name in a directory; what cannot be removed at once is renamed, into `attic` if given.

    Raises OSError.
    """
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError:
            aside = f"left-{secrets.token_hex(8)}"
            os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory if attic is None else attic)


def empty_directory(directory: int) -> None:
    """Remove everything in an open directory. What is deeper is moved up first, so that no depth needs recursion.

    Raises OSError.
    """
    numbers = itertools.count()
    while names := os.listdir(directory):
        for name in names:
            try:
                os.unlink(name, dir_fd=directory)
            except IsADirectoryError:
                _move_up(directory, name, numbers)


def _move_up(directory: int, name: str, numbers: "itertools.count[int]") -> None:
    below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        for each in os.listdir(below):
            aside = f"left-{next(numbers)}-{secrets.token_hex(4)}"
            os.rename(each, aside, src_dir_fd=below, dst_dir_fd=directory)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=directory)
