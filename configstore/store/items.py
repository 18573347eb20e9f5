"""Reads records under their keys, current and superseded, and finds out what became of a write.

Called by `tree`, `commit` and `history`.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import TypeGuard

import msgspec

from configstore.errors import TooLargeError
from configstore.model.keys import Keys, prefix_end, shown_key
from configstore.model.path import PathError, StorePath
from configstore.model.record import RecordError
from configstore.model.seal import SealingError
from configstore.store.api import MAX_OPERATIONS, CreateRevision, Item, Kv, range_all
from configstore.store.envelope import Envelopes
from configstore.store.values import Stored, UnreadableRecord

_NEVER = -1  # no key has this create_revision: a txn that compares it only reads


def items_at(kv: Kv, keys: Sequence[bytes]) -> Iterator[Item]:
    """Yield the items of keys, many in one call, without absent ones. Raises what `Kv.txn` raises."""
    parts = [keys[start : start + MAX_OPERATIONS] for start in range(0, len(keys), MAX_OPERATIONS)]
    while parts:
        part = parts.pop(0)
        try:
            found = kv.txn((CreateRevision(part[0], _NEVER),), (), otherwise_get=part).found
        except TooLargeError:  # configstore writes no values of that size; read one by one they fit
            if len(part) == 1:
                raise
            parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
            continue
        yield from found


def stored(envelopes: Envelopes, path: StorePath, item: Item) -> Stored:
    """Return the record in an item of a path. Raises RecordError."""
    record = envelopes.decode(path, item.value)
    return Stored(path=path, record=record, mod_revision=item.mod_revision, version=item.version)


def decode_item(
    keys: Keys, envelopes: Envelopes, item: Item, path: StorePath | None = None
) -> Stored | UnreadableRecord:
    """Return the record in an item below `files/`, an unreadable one as a value. path: the key's, if known."""
    try:
        path = path or keys.path_of_file(item.key)
    except PathError as error:
        return UnreadableRecord(
            path=shown_key(item.key), reason=str(error), mod_revision=item.mod_revision, key=item.key
        )
    try:
        return stored(envelopes, path, item)
    except RecordError as error:
        return _bad(path, error, item.mod_revision)


def decode_superseded(keys: Keys, envelopes: Envelopes, item: Item) -> Stored | UnreadableRecord | None:
    """Return the record in an item below `past/`, an unreadable one as a value; None if no path has the key."""
    try:
        path, revision = keys.path_of_past(item.key)
    except PathError:
        return None
    try:
        return Stored(path=path, record=envelopes.decode(path, item.value), mod_revision=revision)
    except RecordError as error:
        return _bad(path, error, revision)


def _bad(path: StorePath, error: RecordError, revision: int) -> UnreadableRecord:
    return UnreadableRecord(
        path=path, reason=str(error), mod_revision=revision, sealing=isinstance(error, SealingError)
    )


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a write.

    found: the record that it made, current or superseded. whole: every record since is known, so a write that was
    not found was not made.
    """

    found: Stored | None
    whole: bool


def trace(
    kv: Kv,
    keys: Keys,
    envelopes: Envelopes,
    path: StorePath,
    write_ids: Collection[str],
    *,
    after: int,
    current: Item | None,
) -> Trace:
    """Look for the newest record of a path that one of these writes made at a mod_revision above `after`.

    current: the item under the path's key, which was read before. Raises StoreError.
    """
    now = decode_item(keys, envelopes, current) if current and current.mod_revision > after else None
    if _is_of(now, write_ids):
        return Trace(found=now, whole=True)
    if _follows(now, after):
        return Trace(found=None, whole=True)  # nothing came in between
    follows, whole = now, now is not None
    # From the current record backwards: one superseded record is in memory at a time, however many there are.
    for key in reversed(_superseded_since(kv, keys, path, after, current)):
        found = next((decode_superseded(keys, envelopes, item) for item in kv.range(key).items), None)
        if _is_of(found, write_ids):
            return Trace(found=found, whole=True)
        whole = whole and found is not None and _follows(follows, found.mod_revision)
        follows = found
    return Trace(found=None, whole=whole and _follows(follows, after))


def _is_of(found: Stored | UnreadableRecord | None, write_ids: Collection[str]) -> TypeGuard[Stored]:
    """Return whether one of these writes made a record. A locked record proves nothing: anybody may write one."""
    return isinstance(found, Stored) and not found.record.locked and found.record.origin.write_id in write_ids


def _superseded_since(kv: Kv, keys: Keys, path: StorePath, after: int, current: Item | None) -> list[bytes]:
    """Return the keys of the records superseded after a revision, oldest first, up to the one read as current."""
    start = keys.past(path, after + 1)
    end = keys.past(path, current.mod_revision) if current else prefix_end(keys.past_of(path))
    pages = range_all(kv, start, end, keys_only=True) if start < end else ()
    return [item.key for page in pages for item in page.items]


def _follows(record: Stored | UnreadableRecord | None, before: int) -> bool:
    """Return whether a record names `before` as the revision that it superseded."""
    return isinstance(record, Stored) and record.record.origin.supersedes == before
