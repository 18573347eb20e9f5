"""Renames that destroy nothing (renameat2(2)). Called by `stage` and `recovery`.

The application may write to a file between the last stat and a plain rename over it. So the new file is exchanged
with the old one, and the old one is judged before it is removed (`fingerprint`): if it is not the expected file,
both are exchanged back. Kernels and file systems without renameat2 get the plain rename, with its window of
microseconds.
"""

import ctypes
import errno
import os

_NOREPLACE, _EXCHANGE = 1, 2
_MISSING = {errno.ENOSYS, errno.EINVAL, errno.EPERM}

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_libc, "renameat2", None)
if _renameat2:  # declared once, since the renames of a set are made back to back
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def place(source: int, name: str, target: int, new_name: str, *, replace: bool) -> bool:
    """Move `name` in directory `source` to `new_name` in directory `target`.

    replace: whether there is a file at `new_name`, which is then exchanged. Returns whether that file is at `name`
    now. Raises OSError: FileExistsError and FileNotFoundError where `replace` is wrong.
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
    """Exchange two files. Raises OSError."""
    renameat2(source, name, target, new_name, _EXCHANGE)


def renameat2(source: int, name: str, target: int, new_name: str, flags: int) -> None:
    """Make the system call. Raises OSError, ENOSYS where the C library lacks it."""
    if not _renameat2:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _renameat2(source, os.fsencode(name), target, os.fsencode(new_name), flags):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), new_name)
