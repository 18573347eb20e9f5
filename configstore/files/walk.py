"""Reads a whole local tree: its entries, and what cannot be stored. Called by the commands."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from configstore.files.beneath import Beneath
from configstore.files.reader import Reader
from configstore.files.reading import StillEmpty, UnstableError, Unusable
from configstore.files.reasons import why_failed
from configstore.files.writing import TEMPORARY
from configstore.model.path import (
    MARK_NAME,
    ROOT,
    PathError,
    StorePath,
    basename,
    join,
    parse_path,
    printable,
    shell_word,
)
from configstore.model.record import Entry
from configstore.model.selection import Selection

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Walk(msgspec.Struct, kw_only=True):
    """The contents of a tree by relative path: entries, and why others cannot be stored (safe to print).

    unfinished: files that are empty and not finished yet.
    """

    entries: dict[StorePath, Entry] = {}
    unfinished: list[StorePath] = []
    problems: dict[str, str] = {}


def open_plain(folder: int, path: StorePath) -> int:
    """Open a directory below an open one, through no symlink, but across mounts. Raises OSError."""
    current = os.dup(folder)
    for name in filter(None, path.split("/")):
        try:
            deeper = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
        finally:
            os.close(current)
        current = deeper
    return current


def walk(beneath: Beneath, reader: Reader, selection: Selection) -> Walk:
    """Read all that `selection` selects below a directory, the directory itself left out."""
    found = Walk()
    todo = [ROOT]
    while todo:
        directory = todo.pop()
        try:
            for name, status, descriptor in listing(beneath, directory):
                if name.startswith(TEMPORARY):
                    continue
                path = join(directory, StorePath(name))
                is_dir = stat.S_ISDIR(status.st_mode)
                if is_dir and bears_mark(descriptor, name):
                    continue
                selected = selection.selects(path, is_dir=is_dir)
                if selected:
                    _take(found, reader, path, descriptor, status)
                if is_dir and selection.enters(path) and printable(path) not in found.problems:
                    todo.append(path)
        except FileNotFoundError:
            found.entries.pop(directory, None)
        except OSError as error:
            found.problems[printable(directory) or "/"] = why_failed(error)
    return found


def _take(found: Walk, reader: Reader, path: StorePath, directory: int, status: os.stat_result) -> None:
    try:
        parse_path(path)
        found.entries[path] = reader.read(path, directory, basename(path), status)[0]
    except FileNotFoundError:
        pass  # gone since it was listed
    except UnstableError:
        found.problems[printable(path)] = "is being written right now; try again"
    except OSError as error:
        found.problems[printable(path)] = why_failed(error)
    except StillEmpty:
        found.unfinished.append(path)
    except (PathError, Unusable) as reason:
        found.problems[printable(path)] = f"{_target(directory, path, status)}{reason}"


def _target(directory: int, path: StorePath, status: os.stat_result) -> str:
    """Return a symlink's target as text that ends in a colon; "" for everything else."""
    if not stat.S_ISLNK(status.st_mode):
        return ""
    with suppress(OSError):
        return f"-> {shell_word(os.readlink(basename(path), dir_fd=directory))}: "
    return ""


def listing(beneath: Beneath, directory: StorePath) -> Iterator[tuple[str, os.stat_result, int]]:
    """Yield each name in a directory, sorted, with its lstat and the open directory. Raises OSError."""
    descriptor = beneath.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in sorted(os.listdir(descriptor)):
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                yield name, status, descriptor
    finally:
        os.close(descriptor)


def bears_mark(above: int, name: str) -> bool:
    """Return whether a directory is a sidecar's private one, even moved; False if we may not enter it."""
    try:
        os.stat(f"{name}/{MARK_NAME}", dir_fd=above, follow_symlinks=False)
    except OSError:
        return False
    return True
