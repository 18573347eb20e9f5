"""Finds out what a connection's user may do, without changing anything. Called by `doctor` and `access`.

A txn whose compare can never hold changes nothing, but etcd first checks the rights to all its operations.
"""

from configstore.errors import PermissionDeniedError
from configstore.model.grants import Grant, Right
from configstore.store.api import CreateRevision, Kv, Put

_NEVER = 2**61
"""A revision that no store reaches."""


def may(kv: Kv, grant: Grant) -> bool:
    """Return whether the user has a right on a range. Raises StoreError for any other failure."""
    try:
        if grant.right is not Right.WRITE:
            kv.range(grant.start, grant.end or None, limit=1, keys_only=True)
        if grant.right is not Right.READ:
            key = _key_in(grant)
            kv.txn((CreateRevision(key, _NEVER),), (Put(key, b""),))
    except PermissionDeniedError:
        return False
    return True


def _key_in(grant: Grant) -> bytes:
    """Return a key in the grant's range that nobody uses, or its only key."""
    return grant.start + b"-" if grant.start.endswith(b"/") else grant.start
