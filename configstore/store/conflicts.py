"""The losing sides of conflicts: looking at them, and ending a conflict by a person's choice.

`Tree.keep_conflict` puts them there. They expire with their retention when nobody comes.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from configstore.errors import RefusedError
from configstore.model.keys import Keys, prefix_end
from configstore.model.path import ROOT, PathError, StorePath, is_below, shown
from configstore.model.record import Record, RecordError
from configstore.model.seal import SealedKind
from configstore.store.api import MAX_OPERATIONS, Compare, Delete, Exists, Kv, ModRevision, range_all
from configstore.store.chunks import read_pieces
from configstore.store.tree import Tree


class Loser(msgspec.Struct, frozen=True, kw_only=True):
    """One losing side: of which path, under which id, what it was and who wrote it."""

    path: StorePath
    id: str
    record: Record


class Unread(msgspec.Struct, frozen=True, kw_only=True):
    """What lies where a losing side would, and cannot be read."""

    path: StorePath
    id: str
    reason: str


def losers(tree: Tree, directory: StorePath) -> list[Loser]:
    """Return the losing sides of a path and of all below it, by path, oldest first. Raises StoreError."""
    return [each for each in all_sides(tree, directory) if isinstance(each, Loser)]


def conflict_paths(kv: Kv, keys: Keys, directory: StorePath) -> Iterator[StorePath]:
    """Yield the path of each losing side of all below a directory, one of ROOT's included. Raises StoreError.

    Asks for keys alone, within what a service may read that mirrors the directory.
    """
    prefix = keys.conflicts_at(directory)
    for page in range_all(kv, prefix, prefix_end(prefix), keys_only=True):
        for item in page.items:
            with suppress(PathError):  # a piece of its content
                yield keys.path_of_conflict(item.key)[0]


def all_sides(tree: Tree, directory: StorePath) -> list[Loser | Unread]:
    """As `losers`, with what cannot be read among them."""
    prefix = tree.keys.conflict_root()
    found: list[tuple[StorePath, int, str]] = []
    for page in range_all(tree.kv, prefix, prefix_end(prefix), keys_only=True):
        for item in page.items:
            with suppress(PathError):
                path, name = tree.keys.path_of_conflict(item.key)
                if path == directory or is_below(path, directory):
                    found.append((path, item.create_revision, name))
    return [side for path, _, name in sorted(found) if (side := _side(tree, path, name))]


def count_sides(kv: Kv, keys: Keys) -> dict[StorePath, int]:
    """Return the paths that have losing sides, with how many each. Raises StoreError."""
    return dict(Counter(conflict_paths(kv, keys, ROOT)))


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
    """Yield a losing file's content, one piece in memory at a time; it is good only when the iteration ended.

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
    """Remove one losing side with its pieces; it is no error when it is gone already. Raises StoreError.

    while_at: only while the path's record has this revision, 0 for none. Tells whether it was removed.
    """
    key, pieces = tree.keys.conflict(side.path, side.id), tree.keys.conflict_chunk(side.path, side.id, "")
    compares: list[Compare] = [Exists(key)]
    if while_at is not None:
        compares.append(ModRevision(tree.keys.file(side.path), while_at))
    below = range_all(tree.kv, pieces, prefix_end(pieces), keys_only=True)
    doomed = [*(item.key for page in below for item in page.items), key]
    return all(
        tree.kv.txn(compares, [Delete(each) for each in doomed[start : start + MAX_OPERATIONS]]).succeeded
        for start in range(0, len(doomed), MAX_OPERATIONS)
    )
