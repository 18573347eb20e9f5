"""Live replicas as the store knows them, and asking something of them. Called by the command line."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from configstore.errors import StoreError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.replica import Ask, Report, Request, decode_report, encode
from configstore.model.untrusted import UntrustedError
from configstore.store.api import CreateRevision, Item, Kv, Put, range_all

REQUEST_TTL = 60
"""Seconds after which an ask or a request ends by itself, should its command have died."""


def live(kv: Kv, keys: Keys) -> dict[bytes, tuple[Report, int]]:
    """Return the reports of all live replicas with the revision of each, by key. Raises StoreError."""
    found = {}
    for page in range_all(kv, *keys.replicas()):
        for item in page.items:
            with suppress(UntrustedError):
                report = _read(keys, item)
                found[item.key] = (report, item.mod_revision)
    return found


def unreadable(kv: Kv, keys: Keys) -> dict[bytes, str]:
    """Return what lies among the reports and is none, by key, with the reason. Raises StoreError."""
    found = {}
    for page in range_all(kv, *keys.replicas()):
        for item in page.items:
            try:
                _read(keys, item)
            except UntrustedError as error:
                found[item.key] = str(error)
    return found


def _read(keys: Keys, item: Item) -> Report:
    report = decode_report(item.value)
    if item.key != keys.replica(report.mapping, report.replica):
        raise UntrustedError("it is about another mapping or replica than its key says")
    return report


def named(report: Report) -> str:
    """Return a replica as it is named to who waits for it, with what holds it up."""
    why = report.why()
    return f"{report.replica} on {report.host}" + (f": {why}" if why else "")


@contextmanager
def asking(kv: Kv, keys: Keys, *wanted: Ask | Request) -> Iterator[int]:
    """Let asks or requests stand while the body runs; yields the revision of their making. Raises StoreError."""
    lease = kv.lease_grant(REQUEST_TTL)
    try:
        revision = 0
        for each in wanted:
            key = keys.ask(each.id) if isinstance(each, Ask) else keys.request(each.id)
            revision = kv.txn((CreateRevision(key, 0),), (Put(key, encode(each), lease),)).revision
        yield revision
    finally:
        with suppress(StoreError):  # else its TTL ends it
            kv.lease_revoke(lease)


def wait_applied(
    kv: Kv,
    keys: Keys,
    store: StorePath,
    *,
    revision: int,
    patience: float,
    pause: Callable[[float], None] = time.sleep,
) -> list[Report]:
    """Wait until every live replica of a subtree has applied a revision; returns those that have not in time.

    One that is frozen or cut off is among them until its session ends. Raises StoreError.
    """
    end = time.monotonic() + patience
    with asking(kv, keys, Ask(id=uuid.uuid4().hex, revision=revision)):
        while True:
            late = [
                each for each, _ in live(kv, keys).values() if each.store == store and each.revision < revision
            ]
            if not late or time.monotonic() >= end:
                return late
            pause(0.02)


def fresh_reports(
    kv: Kv, keys: Keys, revision: int, patience: float, pause: Callable[[float], None] = time.sleep
) -> tuple[list[Report], list[Report]]:
    """Return the reports made after a revision, and those of replicas that made none within `patience` seconds.

    A replica that is frozen or cut off is among the latter until its session ends. Raises StoreError.
    """
    end = time.monotonic() + patience
    while True:
        found = live(kv, keys).values()
        late = [report for report, at in found if at <= revision]
        if not late or time.monotonic() >= end:
            return [report for report, at in found if at > revision], late
        pause(0.02)
