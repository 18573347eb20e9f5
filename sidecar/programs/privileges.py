"""Starts commands without any of the sidecar's rights.

On Linux capabilities and `no_new_privs` belong to a thread, and a child gets those of the thread that starts it.
So a thread gives up its own for good, starts the command, and ends (capabilities(7), prctl(2)).
"""

import ctypes
import errno
import os
import subprocess
import threading
from collections.abc import Callable
from typing import NamedTuple

from configstore.mapping_settings import OwnerOverride

_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class User(NamedTuple):
    """The user to start a process as, in the form of `subprocess.Popen`; None for the sidecar's own."""

    uid: int | None = None
    gid: int | None = None
    groups: list[int] | None = None


Start = Callable[[User], "subprocess.Popen[bytes]"]


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("thread", ctypes.c_int))


_Sets = ctypes.c_uint32 * 6  # effective, permitted and inheritable, for the lower and the upper half


def start_without_rights(start: Start, run_as: OwnerOverride) -> "subprocess.Popen[bytes]":
    """Call `start` so that its process has no capabilities, and runs as the user `run_as` where one is set.

    Raises OSError; PermissionError with the mend where the sidecar may not become that user.
    """
    made: list[subprocess.Popen[bytes]] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            give_up_rights(keep_until_started=run_as.uid is not None)
            made.append(start(_user(run_as)))
        except BaseException as error:  # noqa: BLE001  # raised again by the waiting thread
            failed.append(error)

    thread = threading.Thread(target=work, name="starts-a-command")
    try:
        thread.start()
    except RuntimeError as error:  # no thread can be started
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
    thread.join()
    if failed and isinstance(failed[0], OSError) and failed[0].errno == errno.EPERM and run_as.uid is not None:
        raise PermissionError(errno.EPERM, "run_as needs the capabilities SETUID and SETGID") from failed[0]
    if failed:
        raise failed[0]
    return made[0]


def give_up_rights(*, keep_until_started: bool = False) -> None:
    """Give up the capabilities of this thread, and of what it starts, for good. Raises OSError.

    keep_until_started: keep root's capabilities in this thread, since the child needs them to become another user;
    by becoming one it loses them.
    """
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    if not keep_until_started and _libc.capset(ctypes.byref(header), _Sets()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _user(run_as: OwnerOverride) -> User:
    if run_as.uid is None:
        return User()
    return User(run_as.uid, run_as.uid if run_as.gid is None else run_as.gid, [])
