"""The contenders of a lease in their order, and ending one of them. Called by `leases` and by the commands."""

from collections.abc import Iterable
from datetime import datetime

import msgspec

from configstore.clock import span
from configstore.errors import LeaseGoneError
from configstore.model.lease import HeldUp, QueueEntry, decode_contender
from configstore.model.path import printable
from configstore.store.api import CreateRevision, Delete, Item, items_below
from configstore.store.lease_intents import intents, last_intent
from configstore.store.store import Store

USUAL = 1800.0
"""Seconds for which a lease may be held before a person is told: certbot and a round of fetchmail take minutes."""


class Queued(msgspec.Struct, frozen=True, kw_only=True):
    """One contender in a lease's queue; the first one holds. contender: None if configstore did not make it."""

    name: str
    key: bytes
    token: int
    etcd_lease: int
    contender: QueueEntry | None

    @property
    def text(self) -> str:
        """Who it is and since when, safe to print."""
        since = self.contender.time if self.contender else f"revision {self.token}"
        return printable(f"{self.what} (since {since})")

    @property
    def what(self) -> str:
        """Who it is, safe to print."""
        if not self.contender and not self.etcd_lease:
            return "a key that no etcd lease ends, put there by hand"
        if not self.contender:
            return "somebody without a name, such as `etcdctl lock`"
        what = f" for {self.contender.command}" if self.contender.command else ""
        return printable(f"{self.contender.text}{what}")


def queue(store: Store, name: str) -> list[Queued]:
    """Return a lease's contenders, the holder first. Raises StoreError."""
    return queues(store, name).get(name, [])


def queues(store: Store, only: str = "") -> dict[str, list[Queued]]:
    """Return each lease's contenders by its name, the holder first; `only`: of that lease. Raises StoreError."""
    top = store.keys.lease_queue("")
    prefix = store.keys.lease_queue(only) + b"/" if only else top
    found: dict[str, list[Queued]] = {}
    for item in items_below(store.kv, prefix):
        name, slash, _ = item.key[len(top) :].decode("utf-8", "backslashreplace").partition("/")
        if slash:
            found.setdefault(name, []).append(_queued(name, item))
    return {name: sorted(queued, key=lambda each: each.token) for name, queued in found.items()}


def _queued(name: str, item: Item) -> Queued:
    return Queued(
        name=name,
        key=item.key,
        token=item.create_revision,
        etcd_lease=item.lease,
        contender=decode_contender(item.value),
    )


def break_lease(store: Store, queued: Queued) -> bool:
    """End a contender's etcd lease, and with it its key; returns False when that was gone already.

    A key that no etcd lease ends is deleted if it is still the one that was seen. A holder notices at once, and
    stops what it runs. Raises StoreError.
    """
    if not queued.etcd_lease:
        return store.kv.txn((CreateRevision(queued.key, queued.token),), (Delete(queued.key),)).succeeded
    try:
        store.kv.lease_revoke(queued.etcd_lease)
    except LeaseGoneError:
        return False
    return True


def held_up(store: Store, now: float, only: Iterable[str] | None = None) -> list[HeldUp]:
    """Return the leases that are held for longer than USUAL, or by a key that nothing ends; `only`: those names.

    now: in seconds since the epoch. It is compared with times of the holders' clocks. Raises StoreError.
    """
    found = []
    if only is None:
        begun_last, queued = intents(store), queues(store)
    else:
        names = sorted(only)
        begun_last = {name: each for name in names if (each := last_intent(store, name))}
        queued = {name: contenders for name in names if (contenders := queue(store, name))}
    for name, contenders in sorted(queued.items()):
        holder, intent = contenders[0], begun_last.get(name)
        begun = intent.begun if intent and intent.token == holder.token else ""
        seconds = _since(begun or (holder.contender.time if holder.contender else ""), now)
        if holder.etcd_lease and seconds < USUAL:
            continue
        how_long = f" for {span(seconds)}, longer than is usual," if holder.etcd_lease else ""
        waiting = f" ({len(contenders) - 1} waiting)" if len(contenders) > 1 else ""
        text = f"lease {printable(name)} is held{how_long} by {holder.text}{waiting}"
        found.append(HeldUp(name=name, found=text))
    return found


def _since(time: str, now: float) -> float:
    """Return the seconds since a time in RFC 3339; 0 when the text is not one."""
    try:
        return now - datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0
