"""Opens files below a directory, and never outside it, whatever links an application puts there.

With `openat2(2)` if the kernel and the container's seccomp profile allow it, else component by component with
O_NOFOLLOW, which alone guards only the last component of a path.
"""

import ctypes
import errno
import os

_SYS_OPENAT2 = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_STRICT = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_FOLLOWING = _NO_XDEV | _NO_MAGICLINKS | _BENEATH
_TRIES = 16  # EAGAIN: something was renamed while the kernel resolved the path (openat2(2))

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(_TRIES):
        descriptor: int = _libc.syscall(
            _SYS_OPENAT2, directory, path, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if descriptor >= 0:
            return descriptor
        error = ctypes.get_errno()
        if error != errno.EAGAIN:
            break
    raise OSError(error, os.strerror(error), os.fsdecode(path))


def has_openat2() -> bool:
    """Return whether this kernel and seccomp profile allow openat2."""
    try:
        os.close(_openat2(-100, b".", os.O_PATH, 0))  # -100: AT_FDCWD
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM}:
            return False
        raise
    return True


class Beneath:
    """Opens files below one directory. The directory's descriptor stays the caller's."""

    def __init__(self, directory: int, *, openat2: bool | None = None) -> None:
        """`openat2`: whether to use it; None: if it is allowed."""
        self._directory = directory
        self._device = os.fstat(directory).st_dev
        self._openat2 = has_openat2() if openat2 is None else openat2

    def open(self, relative: str, flags: int) -> int:
        """Open a path below without following any link or crossing a mount.

        "" is the directory itself. Raises OSError: ELOOP or ENOTDIR for a link in the way, EXDEV for a mount.
        """
        path = relative or "."
        if self._openat2:
            return _openat2(self._directory, os.fsencode(path), flags, _STRICT)
        return self._walk(path.split("/"), flags)

    def open_following(self, relative: str, flags: int) -> int:
        """Open a path below, following links as long as they stay below. Raises OSError (EXDEV: they do not)."""
        if self._openat2:
            return _openat2(self._directory, os.fsencode(relative), flags, _FOLLOWING)
        base = os.path.realpath(f"/proc/self/fd/{self._directory}")
        real = os.path.realpath(os.path.join(base, relative), strict=True)
        if not real.startswith(f"{base}/"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), relative)
        return self._walk(real[len(base) + 1 :].split("/"), flags)

    def _walk(self, components: list[str], flags: int) -> int:
        if ".." in components:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), "/".join(components))
        current = os.dup(self._directory)
        try:
            for component in components[:-1]:
                deeper = os.open(component, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
                os.close(current)
                current = deeper
            found = os.open(components[-1], flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
        finally:
            os.close(current)
        if os.fstat(found).st_dev != self._device:
            os.close(found)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), "/".join(components))
        return found
