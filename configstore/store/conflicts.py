"""The losing sides of conflicts: looking at them, and ending a conflict by a person's choice.

`Tree.keep_conflict` puts them there. They expire with their retention when nobody comes.
"""

from collections.abc import Iterator
from contextlib import suppress

import msgspec

from configstore.model.keys import prefix_end
from configstore.model.path import PathError, StorePath, is_below
from configstore.model.record import Record, RecordError, decode
from configstore.store.api import MAX_OPERATIONS, Delete, Exists, range_all
from configstore.store.chunks import read_pieces
from configstore.store.tree import Tree


class Loser(msgspec.Struct, frozen=True, kw_only=True):
    """One losing side: of which path, under which id, what it was and who wrote it."""

    path: StorePath
    id: str
    record: Record


def losers(tree: Tree, directory: StorePath) -> list[Loser]:
    """Return the losing sides of a path and of all below it, by path, oldest first. Raises StoreError.

    What is no readable record there is left out: it is of no use to anybody.
    """
    prefix = tree.keys.conflict_root()
    found: list[tuple[StorePath, int, str]] = []
    for page in range_all(tree.kv, prefix, prefix_end(prefix), keys_only=True):
        for item in page.items:
            with suppress(PathError):
                path, name = tree.keys.path_of_conflict(item.key)
                if path == directory or is_below(path, directory):
                    found.append((path, item.create_revision, name))
    return [loser for path, _, name in sorted(found) if (loser := _loser(tree, path, name))]


def _loser(tree: Tree, path: StorePath, name: str) -> Loser | None:
    page = tree.kv.range(tree.keys.conflict(path, name))
    try:
        return Loser(path=path, id=name, record=decode(page.items[0].value)) if page.items else None
    except RecordError:
        return None


def pieces_of(tree: Tree, loser: Loser) -> Iterator[bytes]:
    """Yield a losing file's content, one piece in memory at a time; it is good only when the iteration ended.

    Raises CorruptError, StoreError.
    """
    record = loser.record
    if record.chunks:
        what = f"{loser.path}: the content of its conflict {loser.id} is not whole any more: chunk"
        yield from read_pieces(
            tree.kv,
            record,
            lambda digest: tree.keys.conflict_chunk(loser.path, loser.id, digest),
            what,
            "`configstore resolve` with another side ends the conflict",
        )
    elif record.content:
        yield record.content


def drop(tree: Tree, loser: Loser) -> None:
    """Remove one losing side; it is no error when it is gone already. Raises StoreError."""
    key = tree.keys.conflict(loser.path, loser.id)
    pieces = {tree.keys.conflict_chunk(loser.path, loser.id, digest) for digest in loser.record.chunks}
    deletes = [Delete(each) for each in (key, *sorted(pieces))]
    tree.kv.txn((Exists(key),), deletes[:MAX_OPERATIONS])
