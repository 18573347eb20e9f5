"""Renames that destroy nothing (renameat2(2)).

Between the last look at a file and a plain rename over it, its owner may have written to it. So the new file
changes places with the old one, and what came out is judged before it is dropped (`expected`): if it is not what
was expected, they change back. Kernels and file systems without this get the plain rename, with its window of some
microseconds.
"""

import ctypes
import errno
import os

_NOREPLACE, _EXCHANGE = 1, 2
_MISSING = {errno.ENOSYS, errno.EINVAL, errno.EPERM}

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_libc, "renameat2", None)
if _renameat2:  # told once what it takes: the renames of a set are made back to back
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def place(source: int, name: str, target: int, new_name: str, *, replace: bool) -> bool:
    """Move `name` in directory `source` to `new_name` in directory `target`.

    replace: whether something lies there, which then changes places with it. Returns whether that came out and
    lies at `name` now. Raises OSError: FileExistsError and FileNotFoundError where `replace` is wrong.
    """
    try:
        renameat2(source, name, target, new_name, _EXCHANGE if replace else _NOREPLACE)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        return False
    return replace


def exchange(source: int, name: str, target: int, new_name: str) -> None:
    """Let two files change places. Raises OSError."""
    renameat2(source, name, target, new_name, _EXCHANGE)


def renameat2(source: int, name: str, target: int, new_name: str, flags: int) -> None:
    """Make the system call. Raises OSError, ENOSYS where the C library lacks it."""
    if not _renameat2:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _renameat2(source, os.fsencode(name), target, os.fsencode(new_name), flags):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), new_name)
