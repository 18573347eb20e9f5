"""Reads and removes the losing sides of conflicts. Called by the commands and the page.

`Tree.keep_conflict` writes them. They expire when their retention ends, or a person's choice removes them.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from configstore.errors import RefusedError
from configstore.model.path import ROOT, PathError, StorePath, is_below, shown
from configstore.model.record import Record, RecordError
from configstore.model.seal import SealedKind
from configstore.store.api import MAX_OPERATIONS, Compare, Delete, Exists, ModRevision, items_below
from configstore.store.chunks import read_pieces
from configstore.store.store import Store
from configstore.store.tree import Tree


class Loser(msgspec.Struct, frozen=True, kw_only=True):
    """One losing side: its path, its id, and its record, which says who wrote it."""

    path: StorePath
    id: str
    record: Record


class Unread(msgspec.Struct, frozen=True, kw_only=True):
    """The value under a losing side's key, when it is unreadable."""

    path: StorePath
    id: str
    reason: str


def losers(tree: Tree, directory: StorePath) -> list[Loser]:
    """Return the losing sides of a path and of all below it, by path, oldest first. Raises StoreError."""
    return [each for each in all_sides(tree, directory) if isinstance(each, Loser)]


def conflict_paths(store: Store, directory: StorePath) -> Iterator[StorePath]:
    """Yield the path of each losing side below a directory; for ROOT, of all. Raises StoreError.

    Reads keys alone, within the range that a service may read which mirrors the directory.
    """
    for item in items_below(store.kv, store.keys.conflicts_at(directory), keys_only=True):
        with suppress(PathError):  # the key of a piece of its content
            yield store.keys.path_of_conflict(item.key)[0]


def all_sides(tree: Tree, directory: StorePath) -> list[Loser | Unread]:
    """Return the losing sides as `losers` does, and those that are unreadable. Raises StoreError."""
    found: list[tuple[StorePath, int, str]] = []
    for item in items_below(tree.kv, tree.keys.conflict_root(), keys_only=True):
        with suppress(PathError):
            path, name = tree.keys.path_of_conflict(item.key)
            if path == directory or is_below(path, directory):
                found.append((path, item.create_revision, name))
    return [side for path, _, name in sorted(found) if (side := _side(tree, path, name))]


def count_sides(store: Store) -> dict[StorePath, int]:
    """Return how many losing sides each path has, without those that have none. Raises StoreError."""
    return dict(Counter(conflict_paths(store, ROOT)))


def _side(tree: Tree, path: StorePath, name: str) -> Loser | Unread | None:
    page = tree.kv.range(tree.keys.conflict(path, name))
    try:
        if not page.items:
            return None
        record = tree.envelopes.decode(path, page.items[0].value, SealedKind.CONFLICT)
        if record.seal and not record.locked:
            envelope = tree.envelopes.reading(path, record, SealedKind.CONFLICT)
            if envelope.loser(record.entry) != name:
                return Unread(path=path, id=name, reason="it is the one of another id, and was moved here")
        return Loser(path=path, id=name, record=record)
    except RecordError as error:
        return Unread(path=path, id=name, reason=str(error))


def pieces_of(tree: Tree, loser: Loser) -> Iterator[bytes]:
    """Yield a losing file's content, one piece in memory at a time; use it only after the iteration has ended.

    Raises CorruptError, RefusedError (it is locked), StoreError.
    """
    record = loser.record
    if record.locked:
        raise RefusedError(f"{shown(loser.path)}: the conflict {loser.id}: {record.locked}")
    if record.chunks:
        yield from read_pieces(
            tree.kv,
            record,
            lambda name: tree.keys.conflict_chunk(loser.path, loser.id, name),
            envelope=tree.envelopes.reading(loser.path, record, SealedKind.CONFLICT),
            what=f"{loser.path}: the content of its conflict {loser.id} is not whole any more: chunk",
            mend="`configstore resolve` with another side ends the conflict",
        )
    elif record.content:
        yield record.content


def drop(tree: Tree, side: Loser | Unread, *, while_at: int | None = None) -> bool:
    """Remove one losing side with its pieces; returns whether it was removed. Raises StoreError.

    while_at: only while the path's record has this mod_revision, 0 for no record.
    """
    key, pieces = tree.keys.conflict(side.path, side.id), tree.keys.conflict_chunk(side.path, side.id, "")
    compares: list[Compare] = [Exists(key)]
    if while_at is not None:
        compares.append(ModRevision(tree.keys.file(side.path), while_at))
    # Each txn compares that the side's own key exists, so it is deleted in the last one.
    doomed = [*(item.key for item in items_below(tree.kv, pieces, keys_only=True)), key]
    return all(
        tree.kv.txn(compares, [Delete(each) for each in doomed[start : start + MAX_OPERATIONS]]).succeeded
        for start in range(0, len(doomed), MAX_OPERATIONS)
    )
