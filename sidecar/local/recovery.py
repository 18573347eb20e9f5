"""Finishes at the next start what a crash left in the middle of a set. Called by `mirror`, before anything else.

What the journal says is compared with what lies in the staging directory and in place: whatever was ready is put
in place under the conditions of `apply`, and an edit that had come out in exchange goes back.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from configstore.model.path import StorePath, parent
from configstore.model.signature import Signature
from sidecar.local.journal import Intent, Journal, Placing, Removing, Unlocking
from sidecar.local.rename import exchange, place, unchanged_since
from sidecar.local.root import Root
from sidecar.planner.sides import Agreed, agreement


def recover(root: Root, journal: Journal) -> dict[StorePath, Agreed]:
    """Finish what the journal speaks of, and return what replica and store agree on by that.

    Afterwards nothing in the staging directory is needed any more. Raises OSError.
    """
    intents = journal.read()
    placings = [intent for intent in intents if isinstance(intent, Placing)]
    for intent in intents:
        if isinstance(intent, Removing):
            _finish_removal(root, intent)
    for placing in placings:
        _undo_or_end_exchange(root, placing)
    for group in {placing.group: None for placing in placings}:
        _place_rest(root, [placing for placing in placings if placing.group == group])
    agreed = {placing.path: made for placing in placings if (made := _agreed(root, placing))}
    _give_modes_back(root, intents)
    return agreed


def _finish_removal(root: Root, intent: Removing) -> None:
    found = _look(root.staging_fd, intent.name)
    if found is None:
        return
    if unchanged_since(intent.expected)(found):
        os.unlink(intent.name, dir_fd=root.staging_fd)
        return
    with suppress(OSError), _Above(root, intent.path) as (above, name):  # else its directory is gone, too
        place(root.staging_fd, intent.name, above, name, None)


def _undo_or_end_exchange(root: Root, intent: Placing) -> None:
    """See what came out when a file changed places: remove what was expected, put back what was not."""
    out = _look(root.staging_fd, intent.name)
    if out is None or _is(out, intent.laid):
        return
    with suppress(OSError), _Above(root, intent.path) as (above, name):
        edited = intent.expected is None or not unchanged_since(intent.expected)(out)
        if edited and _is(_look(above, name), intent.laid):
            exchange(root.staging_fd, intent.name, above, name)
        os.unlink(intent.name, dir_fd=root.staging_fd)


def _place_rest(root: Root, group: Sequence[Placing]) -> None:
    """Put in place what is still ready of a group, if all of it can be."""
    ready = [intent for intent in group if _is(_look(root.staging_fd, intent.name), intent.laid)]
    with suppress(OSError):
        for intent in ready:
            with _Above(root, intent.path) as (above, name):
                if not _as_expected(_look(above, name), intent.expected):
                    return
        for intent in ready:
            with _Above(root, intent.path) as (above, name):
                there = intent.expected if _look(above, name) else None
                place(root.staging_fd, intent.name, above, name, unchanged_since(there) if there else None)


def _as_expected(found: os.stat_result | None, expected: Signature | None) -> bool:
    if found is None or expected is None:
        return found is None and expected is None
    return unchanged_since(expected)(found)


def _agreed(root: Root, intent: Placing) -> Agreed | None:
    if intent.remote is None:
        return None
    with suppress(OSError), _Above(root, intent.path) as (above, name):
        found = _look(above, name)
        if found and _is(found, intent.laid):  # an edit made since then is an edit of what the store holds
            return agreement(intent.entry, intent.remote, ino=found.st_ino)
    return None


def _give_modes_back(root: Root, intents: Sequence[Intent]) -> None:
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

    def __init__(self, root: Root, path: StorePath) -> None:
        self._directory = root.open_directory(parent(path))
        self._name = path.rpartition("/")[2]

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
