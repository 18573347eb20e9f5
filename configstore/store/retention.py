"""What is kept of a path beyond its number: superseded records in `past/`, and losers in `conflicts/`.

Called by `tree`, which removes it in the txn that adds one more.
"""

from configstore.model.keys import Keys, prefix_end
from configstore.model.path import StorePath
from configstore.store.api import MAX_OPERATIONS, Delete, Item, Kv, range_all

KEEP = 100
"""How many superseded records of a path are kept, however young they are."""

MAX_CONFLICTS = 20
"""How many losing sides of conflicts about a path are kept."""

PRUNE_EVERY = 16
"""Writes of a path between two looks at how many superseded records it has."""


def surplus_past(kv: Kv, keys: Keys, path: StorePath, version: int, keep: int) -> list[Delete]:
    """Return the deletes of the oldest superseded records, so that with one more there are `keep`.

    version: how often the path was written; it spares most writes the look.
    """
    if version < keep or version % PRUNE_EVERY:
        return []
    past = [item.key for item in _below(kv, keys.past_of(path))]
    return [Delete(key) for key in past[: max(0, len(past) - keep + 1)]]


def surplus_conflicts(kv: Kv, keys: Keys, path: StorePath) -> list[Delete]:
    """Return the deletes of the oldest losers and their pieces, so that with one more there are MAX_CONFLICTS."""
    prefix = keys.conflict(path, "")
    items = sorted(_below(kv, prefix), key=lambda item: item.create_revision)
    losers = [item.key for item in items if b"/" not in item.key[len(prefix) :]]
    old = losers[: max(0, len(losers) - MAX_CONFLICTS + 1)]
    doomed = [each for each in items if any(each.key == key or each.key.startswith(key + b"//") for key in old)]
    return [Delete(item.key) for item in doomed[: MAX_OPERATIONS - 1]]


def _below(kv: Kv, prefix: bytes) -> list[Item]:
    return [item for page in range_all(kv, prefix, prefix_end(prefix), keys_only=True) for item in page.items]
