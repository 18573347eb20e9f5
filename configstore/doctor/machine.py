"""Looks at this machine: directories to be mirrored, the state directory, inotify's limits. For `gather`."""

import errno
import os
import stat
from contextlib import suppress

from configstore.doctor.facts import DirectoryFacts, FreeSpace, InotifyLimits
from configstore.settings import DEFAULT_STATE

MAX_FOLDERS = 100_000
"""Folders that are counted at most: no limit of inotify would be large enough for more."""

_CAP_FOWNER, _CAP_LEASE = 3, 28  # linux/capability.h


def look_at(path: str) -> DirectoryFacts:
    """Return what a local directory is like for the user who runs this."""
    try:
        status = os.stat(path)
        os.listdir(path)
    except OSError as error:
        return DirectoryFacts(path=path, failure=error.strerror or str(error))
    return DirectoryFacts(
        path=path,
        writable=os.access(path, os.W_OK | os.X_OK),
        sticky=bool(status.st_mode & stat.S_ISVTX),
        exempt=status.st_uid == os.geteuid() or _has(_CAP_FOWNER),
        leases=os.geteuid() != 0 or _has(_CAP_LEASE),
        room=_free_space(path),
        folders=_folders(path),
        watched=_try_watch(path),
    )


def state_directory() -> DirectoryFacts | None:
    """Return what the state directory of a sidecar on this host is like; None where there is none."""
    path = os.environ.get("CONFIGSTORE_STATE") or DEFAULT_STATE
    return look_at(path) if os.path.isdir(path) else None


def inotify_limits() -> InotifyLimits | None:
    """Return the kernel's limits of inotify; None where they cannot be read."""
    with suppress(OSError, ValueError):
        found = []
        for name in ("max_user_instances", "max_user_watches"):
            with open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
                found.append(int(file.read()))
        return InotifyLimits(instances=found[0], watches=found[1])
    return None


def _folders(path: str) -> int:
    """Return how many folders a tree has, itself included; at most MAX_FOLDERS."""
    count, todo = 0, [path]
    while todo and count < MAX_FOLDERS:
        count += 1
        with suppress(OSError), os.scandir(todo.pop()) as entries:
            todo += [each.path for each in entries if each.is_dir(follow_symlinks=False)]
    return count


def _free_space(path: str) -> FreeSpace | None:
    with suppress(OSError):
        found = os.statvfs(path)
        return FreeSpace(
            free=found.f_bavail * found.f_frsize,
            size=found.f_blocks * found.f_frsize,
            free_inodes=found.f_favail,
            inodes=found.f_files,
        )
    return None


def _try_watch(path: str) -> str:
    """Return why the kernel refuses this user a watch on a directory; "" when it grants one."""
    from inotify_simple import INotify, flags  # noqa: PLC0415 - only where a directory is looked at

    try:
        with INotify() as trial:
            trial.add_watch(path, flags.CLOSE_WRITE)
    except OSError as error:
        limits = {errno.EMFILE: "max_user_instances", errno.ENOSPC: "max_user_watches"}
        name = limits.get(error.errno or 0)
        return f"fs.inotify.{name} is used up" if name else error.strerror or str(error)
    return ""


def _has(capability: int) -> bool:
    """Return whether this process has a capability (its number in linux/capability.h) in effect."""
    with suppress(OSError), open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> capability & 1)
    return False
