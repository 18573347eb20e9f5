"""What was begun under a lease, and how it ended. Called by `leases`, `lease_queue` and the commands."""

from contextlib import suppress

import msgspec

from configstore.model.lease import Intent, decode_intent
from configstore.model.untrusted import UntrustedError
from configstore.store.api import items_below
from configstore.store.store import Store


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a lease's earlier holders.

    others: the store revision at which another replica was last known to hold it; 0 for none.
    unended: the intent that was written last, if it is not known to have ended.
    unfinished: what was begun and is not known to have ended, as text for a person.
    """

    others: int = 0
    unended: Intent | None = None
    unfinished: str = ""


def last_intent(store: Store, name: str) -> Intent | None:
    """Return what was begun last under a lease; None when nothing was, or it is unreadable. Raises StoreError."""
    return read_intent(store, name)[0]


def read_intent(store: Store, name: str) -> tuple[Intent | None, int]:
    """Return a lease's last intent, and its mod_revision, which is 0 when there is none. Raises StoreError."""
    for item in store.kv.range(store.keys.intent(name)).items:
        try:
            return decode_intent(item.value), item.mod_revision
        except UntrustedError:
            return None, item.mod_revision
    return None, 0


def intents(store: Store) -> dict[str, Intent]:
    """Return the last intent of each lease by name, without those that are unreadable. Raises StoreError."""
    found = {}
    prefix = store.keys.intent("")
    for item in items_below(store.kv, prefix):
        with suppress(UntrustedError):
            found[item.key[len(prefix) :].decode("utf-8", "backslashreplace")] = decode_intent(item.value)
    return found
