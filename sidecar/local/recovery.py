"""Finishes at the next start what a crash left in the middle of a set. Called by `mirror`, before anything else.

What the journal says is compared with what lies in the staging directory and in place, by content too: a group of
which all can be placed is placed, under the conditions of `apply`; of another one everything goes back.
"""

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress

from configstore.model.path import StorePath, basename, parent
from configstore.model.signature import Signature
from sidecar.local.expected import Expected, is_still, unchanged_since
from sidecar.local.journal import Intent, Journal, Placing, Removing, Unlocking
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.rename import exchange, place
from sidecar.planner.sides import Agreed, agreement


def recover(root: MirroredDirectory, journal: Journal) -> dict[StorePath, Agreed]:
    """Finish what the journal speaks of, and return what replica and store agree on by that.

    Afterwards nothing in the staging directory is needed any more. Raises OSError.
    """
    intents = journal.read()
    members = [intent for intent in intents if not isinstance(intent, Unlocking)]
    for group in {member.group: None for member in members}:
        _finish(root, [member for member in members if member.group == group])
    placings = [member for member in members if isinstance(member, Placing)]
    made = {placing.path: _agreed(root, placing) for placing in placings}
    # A set that is not here as a whole is not agreed on in part: an edit of all of it would be sent in part then.
    torn = {placing.group for placing in placings if placing.remote and made[placing.path] is None}
    agreed = {
        placing.path: known for placing in placings if placing.group not in torn and (known := made[placing.path])
    }
    _give_modes_back(root, intents)
    return agreed


def _finish(root: MirroredDirectory, members: Sequence[Placing | Removing]) -> None:
    """Place what is still ready of a group, if all of it can be; else put back what came out, and take back."""
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
    with suppress(OSError), _Above(root, member.path) as (above, name):  # else its directory is gone, too
        act(root.staging_fd, member, above, name)


def _judged(root: MirroredDirectory, members: Sequence[Placing | Removing]) -> bool:
    """Tell whether some of what came out is dropped already: so the whole group had been found to be well."""
    replacing = (member for member in members if isinstance(member, Placing) and member.expected)
    return any(_look(root.staging_fd, member.name) is None and _is_placed(root, member) for member in replacing)


def _fits(root: MirroredDirectory, member: Placing | Removing) -> bool:
    """Tell whether a member is placed or can be, and whether what came out by that is what was expected to."""
    try:
        aside = _look(root.staging_fd, member.name)
        if isinstance(member, Removing):
            return aside is None or is_still(root.staging_fd, member.name, member.expected)
        if aside is None:  # placed and judged, or given up and thrown away
            return _is_placed(root, member)
        if not _is(aside, member.laid):
            return member.expected is not None and is_still(root.staging_fd, member.name, member.expected)
        with _Above(root, member.path) as (above, name):
            return _as_expected(above, name, member.expected)
    except OSError:
        return False


def _is_placed(root: MirroredDirectory, member: Placing) -> bool:
    with suppress(OSError), _Above(root, member.path) as (above, name):
        return _is(_look(above, name), member.laid)
    return False


def _place(staging: int, member: Placing | Removing, above: int, name: str) -> None:
    if isinstance(member, Placing) and _is(_look(staging, member.name), member.laid):
        place(staging, member.name, above, name, replace=member.expected is not None)


def _take_back(staging: int, member: Placing | Removing, above: int, name: str) -> None:
    aside = _look(staging, member.name)
    if isinstance(member, Removing):
        if aside:
            place(staging, member.name, above, name, replace=False)
        return
    there = _look(above, name)
    if there is None or not unchanged_since(member.laid, there):
        return  # somebody was at it since, and that is an edit of what the store holds
    if aside:
        exchange(staging, member.name, above, name)
    elif member.expected is None:
        os.rename(name, member.name, src_dir_fd=above, dst_dir_fd=staging)


def _as_expected(directory: int, name: str, expected: Expected | None) -> bool:
    if expected is None or _look(directory, name) is None:
        return expected is None and _look(directory, name) is None
    return is_still(directory, name, expected)


def _agreed(root: MirroredDirectory, intent: Placing) -> Agreed | None:
    if intent.remote is None:
        return None
    with suppress(OSError), _Above(root, intent.path) as (above, name):
        found = _look(above, name)
        if found and _is(found, intent.laid):  # an edit made since then is an edit of what the store holds
            return agreement(intent.entry, intent.remote, ino=found.st_ino)
    return None


def _give_modes_back(root: MirroredDirectory, intents: Sequence[Intent]) -> None:
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
    """The open directory in which a path lies, and its name there. Raises OSError."""

    def __init__(self, root: MirroredDirectory, path: StorePath) -> None:
        self._directory = root.open_directory(parent(path))
        self._name = basename(path)

    def __enter__(self) -> tuple[int, str]:
        return self._directory, self._name

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)


def _look(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is(found: os.stat_result | None, laid: Signature) -> bool:
    """Tell whether this is what we made, even if somebody has written to it since."""
    return found is not None and (found.st_ino, stat.S_IFMT(found.st_mode)) == (laid.ino, stat.S_IFMT(laid.mode))
