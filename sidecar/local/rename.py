"""Renames that destroy nothing but what they were meant to replace (renameat2(2)).

Between the last look at a file and a plain rename over it, its owner may have written to it. So the new file
changes places with the old one, and what came out is looked at: if it is not what was expected, they change back.
Kernels and file systems without this get the plain rename, with its window of some microseconds.
"""

import ctypes
import errno
import os
from collections.abc import Callable

import msgspec

from configstore.files.reading import signature
from configstore.model.signature import Signature

_NOREPLACE, _EXCHANGE = 1, 2
_MISSING = {errno.ENOSYS, errno.EINVAL, errno.EPERM}

_libc = ctypes.CDLL(None, use_errno=True)

Expected = Callable[[os.stat_result], bool]


def unchanged_since(before: Signature) -> Expected:
    """Return a test for what had this signature; a rename may have changed its ctime."""
    return lambda found: msgspec.structs.replace(signature(found), ctime_ns=before.ctime_ns) == before


def place(source: int, name: str, target: int, new_name: str, expected: Expected | None) -> bool:
    """Move `name` in directory `source` to `new_name` in directory `target`.

    expected: tells whether a stat is that of what may be replaced; None when nothing may lie there.
    Returns whether it was done; false leaves both as they were. Raises OSError.
    """
    flags = _NOREPLACE if expected is None else _EXCHANGE
    try:
        renameat2(source, name, target, new_name, flags)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        return True
    if expected is None:
        return True
    if expected(os.stat(name, dir_fd=source, follow_symlinks=False)):
        os.unlink(name, dir_fd=source)
        return True
    exchange(source, name, target, new_name)
    return False


def exchange(source: int, name: str, target: int, new_name: str) -> None:
    """Let two files change places. Raises OSError."""
    renameat2(source, name, target, new_name, _EXCHANGE)


def remove(source: int, name: str, aside: int, spare: str, expected: Expected) -> bool:
    """Remove the file or link `name` in directory `source`, by way of the free name `spare` in directory `aside`.

    Returns whether it was done; false leaves what was not expected where it lay. Raises OSError.
    """
    os.rename(name, spare, src_dir_fd=source, dst_dir_fd=aside)
    if not expected(os.stat(spare, dir_fd=aside, follow_symlinks=False)):
        place(aside, spare, source, name, None)
        return False
    os.unlink(spare, dir_fd=aside)
    return True


def renameat2(source: int, name: str, target: int, new_name: str, flags: int) -> None:
    """Make the system call. Raises OSError, ENOSYS where the C library lacks it."""
    if not hasattr(_libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _libc.renameat2(source, os.fsencode(name), target, os.fsencode(new_name), ctypes.c_uint(flags)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), new_name)
