"""Records as they lie under their keys, current and superseded, and what became of a write. Reading only.

Called by `tree` and what lies beside it.
"""

from collections.abc import Collection, Sequence

import msgspec

from configstore.model.keys import Keys, prefix_end
from configstore.model.path import PathError, StorePath, printable
from configstore.model.record import RecordError, decode
from configstore.store.api import Item, Kv, range_all
from configstore.store.values import Bad, Stored


def stored(path: StorePath, item: Item) -> Stored:
    """Return what lies under a record's key. Raises RecordError."""
    return Stored(path=path, record=decode(item.value), mod_revision=item.mod_revision, version=item.version)


def decode_item(keys: Keys, item: Item) -> Stored | Bad:
    """Read what lies under one key below `files/`; what is unusable comes back as a value."""
    try:
        path = keys.path_of_file(item.key)
    except PathError as error:
        shown = printable(item.key.decode("utf-8", "backslashreplace"))
        return Bad(path=shown, reason=str(error), mod_revision=item.mod_revision, key=item.key)
    try:
        return stored(path, item)
    except RecordError as error:
        return Bad(path=path, reason=str(error), mod_revision=item.mod_revision)


def decode_superseded(keys: Keys, item: Item) -> Stored | Bad | None:
    """Read what lies under one key below `past/`; None when no path has such a key."""
    try:
        path, revision = keys.path_of_past(item.key)
    except PathError:
        return None
    try:
        return Stored(path=path, record=decode(item.value), mod_revision=revision)
    except RecordError as error:
        return Bad(path=path, reason=str(error), mod_revision=revision)


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a write.

    found: the record that it made, current or superseded. whole: every record since is known, so that a write that
    was not found was not made.
    """

    found: Stored | None
    whole: bool


def trace(
    kv: Kv, keys: Keys, path: StorePath, write_ids: Collection[str], *, after: int, current: Item | None
) -> Trace:
    """Look for what one of these writes made of a path at a mod_revision above `after`; of several, the newest.

    current: what lies under the path's key, read before. Raises StoreError.
    """
    now = decode_item(keys, current) if current and current.mod_revision > after else None
    if isinstance(now, Stored) and now.record.origin.write_id in write_ids:
        return Trace(found=now, whole=True)
    if isinstance(now, Stored) and now.record.origin.supersedes == after:
        return Trace(found=None, whole=True)  # nothing came in between
    known = _superseded_after(kv, keys, path, after)
    for each in reversed(known):
        if isinstance(each, Stored) and each.record.origin.write_id in write_ids:
            return Trace(found=each, whole=True)
    return Trace(found=None, whole=now is not None and _is_chain([*known, now], after))


def _superseded_after(kv: Kv, keys: Keys, path: StorePath, after: int) -> list[Stored | Bad]:
    start, end = keys.past(path, after + 1), prefix_end(keys.past_of(path))
    items = (item for page in range_all(kv, start, end) for item in page.items)
    return [each for item in items if (each := decode_superseded(keys, item))]


def _is_chain(records: Sequence[Stored | Bad], after: int) -> bool:
    """Tell whether each record superseded the one before it, and the first of them the one at `after`."""
    befores = [after, *(each.mod_revision for each in records[:-1])]
    return all(
        isinstance(each, Stored) and each.record.origin.supersedes == before
        for each, before in zip(records, befores, strict=True)
    )
