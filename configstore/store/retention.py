"""Which superseded records and losing sides of a path are too many. Called by whoever adds one more.

They are deleted in the txn that adds one, so that a path never has many more than its number.
"""

from collections.abc import Sequence

from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.store.api import MAX_OPERATIONS, Delete, Kv, Operation, items_below

KEEP = 100
"""How many superseded records of a path are kept; of more, the oldest are deleted before their time."""

MAX_CONFLICTS = 20
"""How many losing sides of a path are kept; of more, the oldest are deleted before their time."""

PRUNE_EVERY = 16
"""Writes of a path between two counts of its superseded records: each count reads all their keys."""


def add_surplus(operations: list[Operation], surplus: Sequence[Delete]) -> None:
    """Add as many deletes to a txn as etcd's limit leaves room for; later writes of the path add the others."""
    operations += surplus[: MAX_OPERATIONS - len(operations)]


def surplus_past(kv: Kv, keys: Keys, path: StorePath, version: int, keep: int) -> list[Delete]:
    """Return the deletes of a path's oldest superseded records, so that with one more there are `keep`.

    version: how often the path was written; by it, only every PRUNE_EVERY-th write counts them.
    """
    if version < keep or version % PRUNE_EVERY:
        return []
    past = [item.key for item in items_below(kv, keys.past_of(path), keys_only=True)]
    return [Delete(key) for key in past[: max(0, len(past) - keep + 1)]]


def surplus_conflicts(kv: Kv, keys: Keys, path: StorePath) -> list[Delete]:
    """Return the deletes of a path's oldest losing sides and their pieces; with one more, MAX_CONFLICTS stay."""
    prefix = keys.conflict(path, "")
    items = sorted(items_below(kv, prefix, keys_only=True), key=lambda item: item.create_revision)
    losers = [item.key for item in items if b"/" not in item.key[len(prefix) :]]
    old = losers[: max(0, len(losers) - MAX_CONFLICTS + 1)]
    doomed = [each for each in items if any(each.key == key or each.key.startswith(key + b"//") for key in old)]
    return [Delete(item.key) for item in doomed[: MAX_OPERATIONS - 1]]
