"""Finds out what the user of a connection may do, without changing anything.

A txn whose compare can never hold changes nothing, and etcd looks at the rights of all that it would do first.
"""

from configstore.errors import PermissionDeniedError
from configstore.model.grants import Grant, Right
from configstore.store.api import CreateRevision, Kv, Put

_NEVER = 2**61
"""A revision to which no store comes."""


def may(kv: Kv, grant: Grant) -> bool:
    """Tell whether a user may do what a grant says. Raises StoreError for any other failure."""
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
    """Return a key of the range that nobody uses, or the one that it is."""
    return grant.start + b"-" if grant.start.endswith(b"/") else grant.start
