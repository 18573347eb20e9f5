"""Finishes a set at the next start that a crash left half-applied. Called by `assembly`, before the first scan.

The journal is compared with the files in the staging directory and in place, by their content too:

1. A group of which every member is in place or can be placed is finished. The conditions are those of `apply`.
2. Once a replaced file is gone from the staging directory, its whole group was judged well before the crash, so
   the group is finished and never undone.
3. Every other group is undone.
4. A group is agreed on as a whole or not at all. Else an edit of the whole set would be sent in part.

Until the agreements are in the baseline the journal stays: a crash in here is finished by the next start.
"""

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from configstore.model.path import StorePath, basename, parent
from configstore.model.signature import Signature
from sidecar.local.fingerprint import Fingerprint, is_still, unchanged_since
from sidecar.local.journal import Intent, Journal, Placing, Removing, Unlocking
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.rename import exchange, place
from sidecar.planner.sides import Agreement, agreement


def recover(root: MirroredDirectory, journal: Journal) -> dict[StorePath, Agreement]:
    """Finish or undo what the journal describes, and return the agreements that follow.

    Afterwards nothing in the staging directory is needed any more. Raises OSError.
    """
    intents = journal.read()
    members = [intent for intent in intents if not isinstance(intent, Unlocking)]
    for group in {member.group: None for member in members}:
        _finish(root, [member for member in members if member.group == group])
    placings = [member for member in members if isinstance(member, Placing)]
    made = {placing.path: _agreed(root, placing) for placing in placings}
    torn = {placing.group for placing in placings if placing.remote and made[placing.path] is None}
    agreed = {
        placing.path: known for placing in placings if placing.group not in torn and (known := made[placing.path])
    }
    _restore_modes(root, intents)
    return agreed


def _finish(root: MirroredDirectory, members: Sequence[Placing | Removing]) -> None:
    """Place what is still staged of a group, if all of it can be; else undo the group."""
    judged = _judged(root, members)
    if judged or all(_fits(root, member) for member in members):
        for member in members:
            if isinstance(member, Placing) and _fits(root, member):
                _at(root, member, _place)
    if not judged and not all(_fits(root, member) for member in members):
        for member in reversed(members):
            _at(root, member, _take_back)
    for member in members:
        with suppress(FileNotFoundError):
            os.unlink(member.name, dir_fd=root.staging_fd)


def _at(
    root: MirroredDirectory, member: Placing | Removing, act: Callable[[int, Placing | Removing, int, str], None]
) -> None:
    with suppress(OSError), _Above(root, member.path) as (above, name):  # the directory of the path is gone
        act(root.staging_fd, member, above, name)


def _judged(root: MirroredDirectory, members: Sequence[Placing | Removing]) -> bool:
    """Return whether a replaced file was removed already, which `apply` does once the whole group is judged."""
    replacing = (member for member in members if isinstance(member, Placing) and member.expected)
    return any(_stat(root.staging_fd, member.name) is None and _is_placed(root, member) for member in replacing)


def _fits(root: MirroredDirectory, member: Placing | Removing) -> bool:
    """Return whether a member is in place or can be placed, and the replaced file is the expected one."""
    try:
        aside = _stat(root.staging_fd, member.name)
        if isinstance(member, Removing):
            return aside is None or is_still(root.staging_fd, member.name, member.expected)
        if aside is None:  # placed and judged, or given up and removed
            return _is_placed(root, member)
        if not _is_staged(aside, member.laid):
            return member.expected is not None and is_still(root.staging_fd, member.name, member.expected)
        with _Above(root, member.path) as (above, name):
            return _as_expected(above, name, member.expected)
    except OSError:
        return False


def _is_placed(root: MirroredDirectory, member: Placing) -> bool:
    with suppress(OSError), _Above(root, member.path) as (above, name):
        return _is_staged(_stat(above, name), member.laid)
    return False


def _place(staging: int, member: Placing | Removing, above: int, name: str) -> None:
    if isinstance(member, Placing) and _is_staged(_stat(staging, member.name), member.laid):
        place(staging, member.name, above, name, replace=member.expected is not None)


def _take_back(staging: int, member: Placing | Removing, above: int, name: str) -> None:
    aside = _stat(staging, member.name)
    if isinstance(member, Removing):
        if aside:
            place(staging, member.name, above, name, replace=False)
        return
    there = _stat(above, name)
    if there is None or not unchanged_since(member.laid, there):
        return  # the application changed it since: that is an edit of the placed file
    if aside:
        exchange(staging, member.name, above, name)
    elif member.expected is None:
        os.rename(name, member.name, src_dir_fd=above, dst_dir_fd=staging)


def _as_expected(directory: int, name: str, expected: Fingerprint | None) -> bool:
    if expected is None or _stat(directory, name) is None:
        return expected is None and _stat(directory, name) is None
    return is_still(directory, name, expected)


def _agreed(root: MirroredDirectory, intent: Placing) -> Agreement | None:
    if intent.remote is None:
        return None
    with suppress(OSError), _Above(root, intent.path) as (above, name):
        found = _stat(above, name)
        if found and _is_staged(found, intent.laid):  # a later edit is one of the placed file
            return agreement(intent.entry, intent.remote, ino=found.st_ino)
    return None


def _restore_modes(root: MirroredDirectory, intents: Sequence[Intent]) -> None:
    for intent in intents:
        if isinstance(intent, Unlocking):
            with suppress(OSError):
                directory = root.open_directory(intent.path)
                try:
                    if stat.S_IMODE(os.fstat(directory).st_mode) == intent.mode | 0o700:
                        os.fchmod(directory, intent.mode)
                finally:
                    os.close(directory)


class _Above:
    """The open directory that contains a path, and the path's name in it. Raises OSError."""

    def __init__(self, root: MirroredDirectory, path: StorePath) -> None:
        self._directory = root.open_directory(parent(path))
        self._name = basename(path)

    def __enter__(self) -> tuple[int, str]:
        return self._directory, self._name

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)


def _stat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_staged(found: os.stat_result | None, laid: Signature) -> bool:
    """Return whether a file is the one that was staged, even if it was written to since."""
    return found is not None and (found.st_ino, stat.S_IFMT(found.st_mode)) == (laid.ino, stat.S_IFMT(laid.mode))
