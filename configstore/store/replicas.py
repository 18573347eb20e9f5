"""Live replicas as the store knows them, and asking something of them. Called by the command line."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from configstore.errors import StoreError
from configstore.model.keys import Keys, prefix_end
from configstore.model.replica import Ask, ExpectedReplica, Report, Request, decode_expected, decode_report, encode
from configstore.model.untrusted import UntrustedError
from configstore.store.api import CreateRevision, Item, Kv, Put, range_all

REQUEST_TTL = 60
"""Seconds after which an ask or a request ends by itself, should its command have died."""

PATIENCE = 2.0
"""Seconds that replicas have to answer; one that does not is frozen, cut off, or died less than a minute ago."""

MANY = 20
"""Replicas that may all be late without anything being wrong: one of a few is waited for."""

QUIET = 0.5
"""Seconds without an answer of any after which the many that are late are not waited for."""


class Everyone(msgspec.Struct, frozen=True, kw_only=True):
    """All replicas that the store knows of, by key, each with its mod_revision.

    live: the last report of each that lives. expected: those that have not said goodbye, live or not. unread: what
    lies among them and is neither, with the reason.
    """

    live: dict[bytes, tuple[Report, int]] = {}
    expected: dict[bytes, tuple[ExpectedReplica, int]] = {}
    unread: dict[bytes, str] = {}

    def gone(self, keys: Keys) -> dict[bytes, tuple[ExpectedReplica, int]]:
        """Return those that went without a goodbye, but for those whose place another one has taken since."""
        alive = {keys.expected(report.mapping, report.replica) for report, _ in self.live.values()}
        newest = self._newest()
        return {
            key: (each, at)
            for key, (each, at) in self.expected.items()
            if key not in alive and newest[each.place] == key
        }

    def replaced(self, keys: Keys) -> set[bytes]:
        """Return the keys of reports of those in whose place a newer one lives: of a run that died just now."""
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
        """Return who came last to each place. A replica's id is new at each start unless it was set."""
        in_turn = sorted(self.expected.items(), key=lambda each: each[1][1])
        return {each.place: key for key, (each, _) in in_turn}


def expected(kv: Kv, keys: Keys, mapping: str, *, beginning: str = "") -> dict[bytes, tuple[ExpectedReplica, int]]:
    """Return who is expected at a mapping, by key with the mod_revision; of ids that begin so alone.

    Raises StoreError.
    """
    prefix = keys.expected(mapping, beginning)
    return _read_all(kv, keys, prefix, prefix_end(prefix)).expected


def everyone(kv: Kv, keys: Keys) -> Everyone:
    """Return all replicas that the store knows of. Raises StoreError."""
    return _read_all(kv, keys, *keys.replicas())


def _read_all(kv: Kv, keys: Keys, start: bytes, end: bytes) -> Everyone:
    found = Everyone()
    for page in range_all(kv, start, end):
        for item in page.items:
            try:
                if keys.is_expected(item.key):
                    found.expected[item.key] = (_read_expected(keys, item), item.mod_revision)
                else:
                    found.live[item.key] = (read_report(keys, item), item.mod_revision)
            except UntrustedError as error:
                found.unread[item.key] = str(error)
    return found


def live(kv: Kv, keys: Keys) -> dict[bytes, tuple[Report, int]]:
    """Return the reports of all live replicas with the revision of each, by key. Raises StoreError."""
    return everyone(kv, keys).live


def _read_expected(keys: Keys, item: Item) -> ExpectedReplica:
    expected = decode_expected(item.value)
    if item.key != keys.expected(expected.mapping, expected.replica):
        raise UntrustedError("it is about another mapping or replica than its key says")
    return expected


def read_report(keys: Keys, item: Item) -> Report:
    """Return the report that lies under a key. Raises UntrustedError when it is none, or another's."""
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


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What replicas said that were asked.

    fresh: new reports; late: the last ones of those that did not answer, but for those that are replaced. hasty:
    so many were late that they were not waited for.
    """

    fresh: list[Report]
    late: list[Report]
    everyone: Everyone
    hasty: bool = False


def ask_reports(
    kv: Kv,
    keys: Keys,
    patience: float = PATIENCE,
    *,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Answers:
    """Have all live replicas report, and wait `patience` seconds at most for them. Raises StoreError.

    Where more than MANY are late, it is enough that none has answered for QUIET seconds.
    """
    if not _revisions(kv, keys):
        return Answers(fresh=[], late=[], everyone=everyone(kv, keys))
    with asking(kv, keys, Ask(id=uuid.uuid4().hex)) as asked:
        begun = news = clock()
        late, step = -1, 0.01
        while True:
            before, late = late, sum(each <= asked for each in _revisions(kv, keys))
            now = clock()
            news = now if late != before else news
            hasty = late > MANY and now - news >= QUIET
            if not late or now - begun >= patience or hasty:
                break
            pause(step)
            step = min(0.1, 1.5 * step)
        found = everyone(kv, keys)
    replaced = found.replaced(keys)
    return Answers(
        fresh=[report for report, at in found.live.values() if at > asked],
        late=[report for key, (report, at) in found.live.items() if at <= asked and key not in replaced],
        everyone=found,
        hasty=hasty,
    )


def _revisions(kv: Kv, keys: Keys) -> list[int]:
    """Return when each report was written."""
    return [
        item.mod_revision
        for page in range_all(kv, *keys.replicas(), keys_only=True)
        for item in page.items
        if not keys.is_expected(item.key)
    ]
