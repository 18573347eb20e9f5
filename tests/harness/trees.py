"""Trees of files in tests: what lies where, and waiting until something lies there."""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from inotify_simple import INotify, flags

from configstore.model.path import PRIVATE_NAME
from configstore.model.record import Kind, sha256

ANY_CHANGE = flags.CLOSE_WRITE | flags.MOVED_FROM | flags.MOVED_TO | flags.CREATE | flags.DELETE | flags.ATTRIB
Look = tuple[str, int, str]  # what lies at a path: its kind, mode, and digest (or a link's target)


def look(path: Path) -> Look | None:
    """Return what lies there now."""
    try:
        if path.is_symlink():
            return Kind.SYMLINK, 0, os.readlink(path)
        mode = path.lstat().st_mode & 0o777
        return (Kind.DIR, mode, "") if path.is_dir() else (Kind.FILE, mode, sha256(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None


def follow(inotify: INotify, folder: Path) -> None:
    """Watch a folder and those in it, each before it is listed, so that nothing made in it is missed."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        inotify.add_watch(folder, ANY_CHANGE | flags.ONLYDIR)
        with os.scandir(folder) as entries:
            below = [each.name for each in entries if each.is_dir(follow_symlinks=False)]
        for name in below:
            if name != PRIVATE_NAME:
                follow(inotify, folder / name)


def arrive(base: Path, wanted: Mapping[str, Look | None], deadline: float = 10.0) -> float:
    """Return when the last path below `base` was as wanted (None: gone), on the perf counter.

    inotify wakes it; what is there is looked up. Raises AssertionError naming what is not so in time (seconds).
    """
    end = time.monotonic() + deadline
    with INotify() as inotify:
        follow(inotify, base)
        while late := [path for path, found in wanted.items() if look(base / path) != found]:
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"did not arrive within {deadline:g} s: {', '.join(late)}")
            inotify.read(timeout=1000 * left)
            follow(inotify, base)
    return time.perf_counter()


def tree(folder: Path) -> dict[str, Look | None]:
    """Return all that lies below a mirrored folder, but for the sidecar's private part."""
    found = {}
    for where, folders, files in os.walk(folder):
        if PRIVATE_NAME in folders:
            folders.remove(PRIVATE_NAME)
        for name in folders + files:
            path = Path(where, name)
            found[str(path.relative_to(folder))] = look(path)
    return found
