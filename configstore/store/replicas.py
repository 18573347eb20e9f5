"""Reads the replicas that the store knows, and asks them for something. Called by commands, page and enrolment."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import msgspec

from configstore.errors import StoreError
from configstore.model.keys import Keys, prefix_end
from configstore.model.replica import Ask, ExpectedReplica, Report, Request, decode_expected, decode_report, encode
from configstore.model.untrusted import UntrustedError
from configstore.store.api import CreateRevision, Delete, Item, ModRevision, Put, range_all
from configstore.store.store import Store

REQUEST_TTL = 60
"""Seconds after which an ask or a request ends by itself, if the command that made it has died."""


class Everyone(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas that the store knows, by key, each with its mod_revision.

    live: the last report of each that is alive. expected: those that have not said goodbye, alive or not.
    unread: the reason why a key among them is neither.
    """

    live: dict[bytes, tuple[Report, int]] = {}
    expected: dict[bytes, tuple[ExpectedReplica, int]] = {}
    unread: dict[bytes, str] = {}

    def alive(self, keys: Keys) -> set[bytes]:
        """Return the keys by which the live replicas are expected."""
        return {keys.expected(report.mapping, report.replica) for report, _ in self.live.values()}

    def gone(self, keys: Keys) -> dict[bytes, tuple[ExpectedReplica, int]]:
        """Return the replicas that ended without a goodbye and that no newer replica has replaced."""
        alive, newest = self.alive(keys), self._newest()
        return {
            key: (each, at)
            for key, (each, at) in self.expected.items()
            if key not in alive and newest[each.place] == key
        }

    def replaced(self, keys: Keys) -> set[bytes]:
        """Return the keys of reports of runs that died just now, and that a newer live replica has replaced."""
        newest = self._newest()
        found = set()
        for key, (report, _) in self.live.items():
            mine = keys.expected(report.mapping, report.replica)
            if mine in self.expected:
                last = newest[self.expected[mine][0].place]
                if last != mine and keys.replica(report.mapping, self.expected[last][0].replica) in self.live:
                    found.add(key)
        return found

    def _newest(self) -> dict[tuple[str, str, str], bytes]:
        """Return the key of the last replica of each place: an id that is not set changes at each start."""
        in_turn = sorted(self.expected.items(), key=lambda each: each[1][1])
        return {each.place: key for key, (each, _) in in_turn}


def expected(store: Store, mapping: str, *, beginning: str = "") -> dict[bytes, tuple[ExpectedReplica, int]]:
    """Return the replicas that are expected at a mapping, by key, each with its mod_revision. Raises StoreError.

    beginning: only those whose ids begin so.
    """
    prefix = store.keys.expected(mapping, beginning)
    return _read_all(store, prefix, prefix_end(prefix)).expected


def everyone(store: Store) -> Everyone:
    """Return all replicas that the store knows. Raises StoreError."""
    return _read_all(store, *store.keys.replicas())


def _read_all(store: Store, start: bytes, end: bytes) -> Everyone:
    keys, found = store.keys, Everyone()
    for page in range_all(store.kv, start, end):
        for item in page.items:
            try:
                if keys.is_expected(item.key):
                    found.expected[item.key] = (_read_expected(keys, item), item.mod_revision)
                else:
                    found.live[item.key] = (read_report(keys, item), item.mod_revision)
            except UntrustedError as error:
                found.unread[item.key] = str(error)
    return found


def report_items(store: Store) -> tuple[list[Item], int]:
    """Return the items of all reports, readable or not, and the store's revision. Raises StoreError."""
    found, revision = [], 0
    for page in range_all(store.kv, *store.keys.replicas()):
        revision = revision or page.revision
        found += [item for item in page.items if not store.keys.is_expected(item.key)]
    return found, revision


def live_reports(store: Store) -> list[Report]:
    """Return the last report of each live replica. Raises StoreError."""
    return [report for report, _ in everyone(store).live.values()]


def forget(store: Store, lost: Mapping[bytes, tuple[ExpectedReplica, int]]) -> list[ExpectedReplica]:
    """Expect replicas no more, if they have not enrolled again since they were read; returns those forgotten.

    Raises StoreError.
    """
    return [
        each
        for key, (each, revision) in lost.items()
        if store.kv.txn((ModRevision(key, revision),), (Delete(key),)).succeeded
    ]


def _read_expected(keys: Keys, item: Item) -> ExpectedReplica:
    expected = decode_expected(item.value)
    if item.key != keys.expected(expected.mapping, expected.replica):
        raise UntrustedError("it is about another mapping or replica than its key says")
    return expected


def read_report(keys: Keys, item: Item) -> Report:
    """Return the report under a key. Raises UntrustedError when it is unreadable, or another replica's."""
    report = decode_report(item.value)
    if item.key != keys.replica(report.mapping, report.replica):
        raise UntrustedError("it is about another mapping or replica than its key says")
    return report


def named(report: Report) -> str:
    """Return a replica's id and host for a person who waits for it, with the reason why it is late."""
    why = report.why()
    return f"{report.replica} on {report.host}" + (f": {why}" if why else "")


@contextmanager
def asking(store: Store, *wanted: Ask | Request) -> Iterator[int]:
    """Keep asks or requests in the store during the body; yields the last one's revision. Raises StoreError."""
    lease = store.kv.lease_grant(REQUEST_TTL)
    try:
        revision = 0
        for each in wanted:
            key = store.keys.ask(each.id) if isinstance(each, Ask) else store.keys.request(each.id)
            revision = store.kv.txn((CreateRevision(key, 0),), (Put(key, encode(each), lease),)).revision
        yield revision
    finally:
        with suppress(StoreError):  # else its TTL ends it
            store.kv.lease_revoke(lease)
