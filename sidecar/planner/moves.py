"""Recognises what was renamed within a mapping: it did not go, so its delete needs no second thought."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from configstore.model.path import StorePath, basename, parent
from configstore.model.record import Kind
from sidecar.planner.sides import Agreed, LocalEntry


def moved_inodes(
    paths: Iterable[StorePath], baseline: Mapping[StorePath, Agreed], local: Mapping[StorePath, LocalEntry]
) -> AbstractSet[int]:
    """Return the inodes that lie at a new path among `paths` and were known at an old one that is gone.

    An inode may be given to another file once its own is gone; so either the content is the same, or the directory
    was renamed likewise and the file in it was edited besides.
    """
    known = set(paths)
    arrived = {local[path].signature.ino: path for path in known if path in local and path not in baseline}
    gone = {baseline[path].ino: path for path in known if path in baseline and path not in local}
    moved: set[int] = set()
    for ino, old in sorted(gone.items(), key=lambda each: each[1]):  # a directory before what lies in it
        new = arrived.get(ino)
        if not ino or new is None:
            continue
        same = local[new].entry.same_content(baseline[old].local)
        if same or (_same_kind(local[new], baseline[old]) and _directories_moved(old, new, gone, moved, arrived)):
            moved.add(ino)
    return moved


def _same_kind(now: LocalEntry, before: Agreed) -> bool:
    return now.entry.kind is before.local.kind is Kind.FILE


def _directories_moved(
    old: StorePath,
    new: StorePath,
    gone: Mapping[int, StorePath],
    moved: AbstractSet[int],
    arrived: Mapping[int, StorePath],
) -> bool:
    """Tell whether the directory of `old` was renamed to that of `new`, and the name in it is the same."""
    if basename(old) != basename(new):
        return False
    above = {arrived[ino]: gone[ino] for ino in moved if ino in gone}
    return above.get(parent(new)) == parent(old)
