"""Starts commands that have none of our rights.

Capabilities and `no_new_privs` belong to a thread on Linux, and a child has those of the thread that starts it. So
a thread gives its own up for good, starts the command, and ends (capabilities(7), prctl(2)).
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
    """The user to start a process as, as `subprocess.Popen` takes it; None for our own."""

    uid: int | None = None
    gid: int | None = None
    groups: list[int] | None = None


Start = Callable[[User], "subprocess.Popen[bytes]"]


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("thread", ctypes.c_int))


_Sets = ctypes.c_uint32 * 6  # effective, permitted and inheritable, for the lower and the upper half


def start_without_rights(start: Start, run_as: OwnerOverride) -> "subprocess.Popen[bytes]":
    """Have `start` start a process: as the user `run_as`, where one is set, and without capabilities.

    Raises OSError, PermissionError with the mend where that user cannot be taken.
    """
    made: list[subprocess.Popen[bytes]] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            give_up_rights(keep_until_started=run_as.uid is not None)
            made.append(start(_user(run_as)))
        except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
            failed.append(error)

    thread = threading.Thread(target=work, name="starts-a-command")
    try:
        thread.start()
    except RuntimeError as error:  # there is no thread to be had
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
    thread.join()
    if failed and isinstance(failed[0], OSError) and failed[0].errno == errno.EPERM and run_as.uid is not None:
        raise PermissionError(errno.EPERM, "run_as needs the capabilities SETUID and SETGID") from failed[0]
    if failed:
        raise failed[0]
    return made[0]


def give_up_rights(*, keep_until_started: bool = False) -> None:
    """Let this thread, and what it starts, have no capability, now and ever. Raises OSError.

    keep_until_started: keep root's capabilities: by them the child becomes another user, and so loses them.
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
