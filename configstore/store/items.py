"""Records as they lie under their keys, current and superseded, and what became of a write. Reading only.

Called by `tree` and what lies beside it.
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
    """Yield what lies under keys, absent ones left out, many in one call. Raises what `Kv.txn` raises."""
    parts = [keys[start : start + MAX_OPERATIONS] for start in range(0, len(keys), MAX_OPERATIONS)]
    while parts:
        part = parts.pop(0)
        try:
            found = kv.txn((CreateRevision(part[0], _NEVER),), (), otherwise_get=part).found
        except TooLargeError:  # of values that nobody of us wrote: one by one they fit
            if len(part) == 1:
                raise
            parts[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
            continue
        yield from found


def stored(envelopes: Envelopes, path: StorePath, item: Item) -> Stored:
    """Return what lies under a record's key. Raises RecordError."""
    record = envelopes.decode(path, item.value)
    return Stored(path=path, record=record, mod_revision=item.mod_revision, version=item.version)


def decode_item(
    keys: Keys, envelopes: Envelopes, item: Item, path: StorePath | None = None
) -> Stored | UnreadableRecord:
    """Read what lies under one key below `files/`; what is unusable comes back as a value.

    path: the key's, where it is known.
    """
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
    """Read what lies under one key below `past/`; None when no path has such a key."""
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
    """What became of a write.

    found: the record that it made, current or superseded. whole: every record since is known, so that a write that
    was not found was not made.
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
    """Look for what one of these writes made of a path at a mod_revision above `after`; of several, the newest.

    current: what lies under the path's key, read before. Raises StoreError.
    """
    now = decode_item(keys, envelopes, current) if current and current.mod_revision > after else None
    if _is_of(now, write_ids):
        return Trace(found=now, whole=True)
    if _follows(now, after):
        return Trace(found=None, whole=True)  # nothing came in between
    follows, whole = now, now is not None
    # Back from the current record; one superseded record is in memory at a time, however many lie there.
    for key in reversed(_superseded_since(kv, keys, path, after, current)):
        found = next((decode_superseded(keys, envelopes, item) for item in kv.range(key).items), None)
        if _is_of(found, write_ids):
            return Trace(found=found, whole=True)
        whole = whole and found is not None and _follows(follows, found.mod_revision)
        follows = found
    return Trace(found=None, whole=whole and _follows(follows, after))


def _is_of(found: Stored | UnreadableRecord | None, write_ids: Collection[str]) -> TypeGuard[Stored]:
    """Tell whether a record is of one of these writes; one that is locked says so to nobody's credit."""
    return isinstance(found, Stored) and not found.record.locked and found.record.origin.write_id in write_ids


def _superseded_since(kv: Kv, keys: Keys, path: StorePath, after: int, current: Item | None) -> list[bytes]:
    """Return the keys of what was superseded after a revision, oldest first, up to what was read as current."""
    start = keys.past(path, after + 1)
    end = keys.past(path, current.mod_revision) if current else prefix_end(keys.past_of(path))
    pages = range_all(kv, start, end, keys_only=True) if start < end else ()
    return [item.key for page in pages for item in page.items]


def _follows(record: Stored | UnreadableRecord | None, before: int) -> bool:
    """Tell whether a record says that it superseded the one of revision `before`."""
    return isinstance(record, Stored) and record.record.origin.supersedes == before
