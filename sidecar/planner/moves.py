"""Finds what was renamed within a mapping, so that its delete does not wait. Called by the planner."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from configstore.model.path import StorePath, basename, parent
from configstore.model.record import Kind
from sidecar.planner.sides import Agreement, LocalEntry


def moved_inodes(
    paths: Iterable[StorePath], baseline: Mapping[StorePath, Agreement], local: Mapping[StorePath, LocalEntry]
) -> AbstractSet[int]:
    """Return the inodes that are found at a new path among `paths`, and were known at an old path that is gone.

    The kernel gives an inode number to another file once the file that had it is gone. So the number counts only
    if the content is the same, or if the directory was renamed too and the name in it is the same (the file was
    also edited).
    """
    known = set(paths)
    arrived = {local[path].signature.ino: path for path in known if path in local and path not in baseline}
    gone = {baseline[path].ino: path for path in known if path in baseline and path not in local}
    moved: set[int] = set()
    for ino, old in sorted(gone.items(), key=lambda each: each[1]):  # a directory before its entries
        new = arrived.get(ino)
        if not ino or new is None:
            continue
        same = local[new].entry.same_content(baseline[old].local)
        if same or (_same_kind(local[new], baseline[old]) and _directories_moved(old, new, gone, moved, arrived)):
            moved.add(ino)
    return moved


def _same_kind(now: LocalEntry, before: Agreement) -> bool:
    return now.entry.kind is before.local.kind is Kind.FILE


def _directories_moved(
    old: StorePath,
    new: StorePath,
    gone: Mapping[int, StorePath],
    moved: AbstractSet[int],
    arrived: Mapping[int, StorePath],
) -> bool:
    """Return whether the directory of `old` was renamed to that of `new`, and the name in it is the same."""
    if basename(old) != basename(new):
        return False
    above = {arrived[ino]: gone[ino] for ino in moved if ino in gone}
    return above.get(parent(new)) == parent(old)
