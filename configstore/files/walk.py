"""Reads a whole local tree: what it holds, what is left, and what cannot be stored. For a command, once."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from configstore.files.beneath import Beneath
from configstore.files.reader import Reader
from configstore.files.reading import StillEmpty, UnstableError, Unusable
from configstore.files.words import words
from configstore.files.writing import TEMPORARY
from configstore.model.path import MARK_NAME, ROOT, PathError, StorePath, join, parse_path, printable, shell_word
from configstore.model.record import Entry
from configstore.model.selection import Selection

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Walk(msgspec.Struct, kw_only=True):
    """What a tree holds, by paths relative to its top: entries, and problems with their reason (safe to print).

    unfinished: files that are worth nothing yet.
    """

    entries: dict[StorePath, Entry] = {}
    unfinished: list[StorePath] = []
    problems: dict[str, str] = {}


def open_plain(folder: int, path: StorePath) -> int:
    """Open a directory below an open one, through no symlink; mounts are crossed. Raises OSError."""
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
            found.problems[printable(directory) or "/"] = words(error)
    return found


def _take(found: Walk, reader: Reader, path: StorePath, directory: int, status: os.stat_result) -> None:
    try:
        parse_path(path)
        found.entries[path] = reader.read(path, directory, path.rpartition("/")[2], status)[0]
    except FileNotFoundError:
        pass  # gone since it was listed
    except UnstableError:
        found.problems[printable(path)] = "is being written right now; try again"
    except OSError as error:
        found.problems[printable(path)] = words(error)
    except StillEmpty:
        found.unfinished.append(path)
    except (PathError, Unusable) as reason:
        found.problems[printable(path)] = f"{_target(directory, path, status)}{reason}"


def _target(directory: int, path: StorePath, status: os.stat_result) -> str:
    """Return where a symlink leads, in words that end in a colon; "" for everything else."""
    if not stat.S_ISLNK(status.st_mode):
        return ""
    with suppress(OSError):
        return f"-> {shell_word(os.readlink(path.rpartition('/')[2], dir_fd=directory))}: "
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
    """Tell whether a directory is a sidecar's own, moved elsewhere. One that we may not enter is none for us."""
    try:
        os.stat(f"{name}/{MARK_NAME}", dir_fd=above, follow_symlinks=False)
    except OSError:
        return False
    return True
