"""Checks a txn before it is sent. Called by each implementation of `Kv`, so that all refuse the same ones."""

from collections.abc import Sequence

from configstore.errors import TooLargeError
from configstore.store.api import MAX_OPERATIONS, Compare, Operation


def check_txn(
    compares: Sequence[Compare], operations: Sequence[Operation], otherwise_get: Sequence[bytes]
) -> None:
    """Raise for a txn that etcd refuses whatever is stored.

    Raises TooLargeError when there are more than MAX_OPERATIONS compares, operations or reads, and ValueError
    when one key is written twice (etcd: "duplicate key given in txn request").
    """
    for count, what in (
        (len(compares), "compares"),
        (len(operations), "operations"),
        (len(otherwise_get), "reads"),
    ):
        if count > MAX_OPERATIONS:
            raise TooLargeError(f"one transaction holds {count} {what}, etcd takes {MAX_OPERATIONS}: split it")
    if len(operations) > 1:
        seen: set[bytes] = set()
        for operation in operations:
            if operation.key in seen:
                raise ValueError(f"key {operation.key!r} is written twice in one transaction")
            seen.add(operation.key)
