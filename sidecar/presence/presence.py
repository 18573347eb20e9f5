"""Reports to the store that this replica lives and what its mappings do, and takes requests made there.

Three threads for the process. `presence` keeps an etcd lease alive, and writes under it a report for each mapping
when the state changed, when a command asks, and with a renewal when only the revision has advanced; a quiet
replica writes nothing. `asks` follows the asks for reports, `requests` the requests of persons: below two
prefixes, since any service may write an ask, which causes nothing but a report. Mirroring never waits for these
threads and works without them: reports are for people, and for programs that wait.

Two sidecars with one replica id (rivals) overwrite each other's reports. How both come to know:
1. A sidecar whose report was overwritten by another session knows for certain.
2. A sidecar that finds a report of another session at its start cannot tell a rival from a run that died. It
   writes an ask for its own id, to which only a living sidecar answers, by overwriting the report; then 1 holds.
3. While a rival is known, each writes its report again every RIVAL_PERIOD, so that the other sees it (1).
"""

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Map
from contextlib import suppress
from operator import itemgetter
from typing import TypeVar

import msgspec

from configstore.clock import boottime
from configstore.errors import (
    ConfigstoreError,
    LeaseGoneError,
    PermissionDeniedError,
    StoreError,
    StoreUnavailableError,
)
from configstore.model.keys import shown_key
from configstore.model.path import printable
from configstore.model.replica import Ask, Report, Request, decode_ask, decode_report, decode_request, encode
from configstore.model.untrusted import UntrustedError
from configstore.store.api import Item, ModRevision, Put
from configstore.store.follower import ItemFollower
from configstore.store.store import Store
from sidecar.presence.enrolment import Enrolment
from sidecar.reporting.contact import is_silence

log = logging.getLogger(__name__)

T = TypeVar("T")

TTL = 60
"""Seconds after which a replica that died is no longer listed as alive."""

RENEW = TTL / 2
"""Seconds between two renewals; a failed one is tried twice more before the session ends."""

RETRY = 10.0
SPACING = 0.1
"""Seconds between two rounds of reports, so that a burst of changes makes one."""

RIVAL_PERIOD = 3.0
"""Seconds between two rounds of reports while another sidecar has, or may have, the same replica id."""

GONE = 10
"""Seconds without a rival's report after which it is gone, or never lived."""

_NO_REPORTS = "cannot report to the store, so `configstore status` does not show what is here"
_NOT_EXPECTED = "cannot say in the store that it is expected, so nobody would notice its loss"
_NO_ASKS = "cannot read who asks in the store, so `configstore status` takes it for silent"
_NO_REQUESTS = "cannot read what is asked for in the store, such as `configstore resume`"

_FIGURES = ("revision", "paths", "pending", "pending_seconds", "behind", "held", "time")


class _Rival(msgspec.Struct, kw_only=True):
    """Another sidecar that has, or may have (not `certain`), this replica id.

    seen: when its report was found last. asked: whether it was asked to report.
    """

    host: str
    replica: str
    seen: float
    certain: bool
    asked: bool = False


class Presence:
    """This process's session in the store."""

    def __init__(
        self,
        store: Store,
        reports: Callable[[str], Sequence[Report]],
        deliver: Callable[[Request], None],
        *,
        directories: Map[str, str] = {},
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what returns the reports of a session, given its id, and what takes each request.

        directories: the local directory of each mapping.
        """
        self._kv = store.kv
        self._keys = store.keys
        self._reports = reports
        self._deliver = deliver
        self._clock = clock
        self._session = secrets.token_hex(8)
        self._replica = ""
        self._lease = 0
        self._renewed = 0.0
        self._reported: dict[bytes, tuple[Report, int]] = {}  # as the store has them, with the mod_revision
        self._asked = threading.Event()
        self._awaited: dict[bytes, Ask] = {}  # by key: the asks that name a revision
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._error: ConfigstoreError | None = None  # of the last attempt to report
        self._logged = False
        self._rival: _Rival | None = None
        self._enrolment = Enrolment(store, directories)
        self._thread = threading.Thread(target=self._keep, name="presence", daemon=True)
        self._asks = ItemFollower(
            store,
            store.keys.asks(),
            "asks",
            put=self._take_ask,
            deleted=self._forget_ask,
            begin=self._awaited.clear,
        )
        self._requests = ItemFollower(store, store.keys.requests(), "requests", put=self._take_request)

    def start(self) -> None:
        """Start the threads."""
        for each in (self._thread, self._asks, self._requests):
            each.start()

    def changed(self) -> None:
        """Note that a report may have changed; from any thread, and cheap."""
        self._wake.set()

    def advanced(self) -> None:
        """Note that a mapping's revision advanced; from any thread. Only a waiting ask has it reported at once."""
        if self._awaited:
            self._wake.set()

    def notes(self) -> list[str]:
        """Return what is wrong with this session, a sentence each, with the mend; from any thread."""
        found = []
        if (rival := self._rival) and rival.certain:
            found.append(
                f"another sidecar, on {printable(rival.host)}, has the same replica id: each hides the other; give"
                " each its own CONFIGSTORE_REPLICA, or none"
            )
        keys = self._keys
        for error, right, (start, _), what in (
            (self._error, "readwrite", keys.replicas(), _NO_REPORTS),
            (self._enrolment.error, "readwrite", keys.replicas(), _NOT_EXPECTED),
            (self._asks.refused, "readwrite", keys.asks(), _NO_ASKS),
            (self._requests.refused, "read", keys.requests(), _NO_REQUESTS),
        ):
            # Of a silent store the log, and each line of `/readyz`, say enough.
            if error and not isinstance(error, StoreUnavailableError):
                found.append(f"{what}: {_with_mend(error, right, start)}")
        return found

    def close(self) -> None:
        """End the session, so that the replica is not listed any more."""
        self._stop.set()
        self._wake.set()
        for each in (self._asks, self._requests):
            each.close(SPACING + 1.0)
        if self._thread.ident:
            self._thread.join(SPACING + 1.0)
        if self._error is None or self._kv.contact().connected:
            with suppress(StoreError):
                self._enrolment.leave()  # before the reports end: an expected replica without one counts as lost
            if self._lease:
                with suppress(StoreError):
                    self._kv.lease_revoke(self._lease)

    def _keep(self) -> None:
        due = 0.0
        while not self._stop.is_set():
            self._wake.wait(due)
            self._wake.clear()
            if self._stop.is_set():
                return
            begun = boottime()
            try:
                self._report(progress=self._renew())
                self._enrolment.keep(map(itemgetter(0), self._reported.values()), self._clock())
                self._ask_rival()
                self._forget_rival()
                due = max(0.0, self._renewed + RENEW - self._clock())
                if self._rival:
                    due = min(due, RIVAL_PERIOD)
                self._error, self._logged = None, False
            except LeaseGoneError:
                self._lease, self._reported, due = 0, {}, 0.0
                self._enrolment.again()
            except ConfigstoreError as error:
                silence = is_silence(error, self._kv.contact(), begun)
                if not self._logged and not silence and not self._stop.is_set():
                    self._logged = True
                    log.warning("cannot report to the store; mirroring goes on", extra={"reason": str(error)})
                self._error, due = error, RETRY
            self._stop.wait(SPACING)

    def _renew(self) -> bool:
        """Renew the session if that is due; returns whether it was."""
        due = bool(self._lease) and self._clock() - self._renewed >= RENEW
        if not self._lease:
            self._lease = self._kv.lease_grant(TTL)
            # The first renewal comes earlier, by a random time: sidecars that began together must not renew
            # together.
            self._renewed = self._clock() - random.uniform(0.0, RENEW / 3)  # noqa: S311 # spreads load
        elif due:
            asked = self._clock()
            self._kv.lease_keepalive(self._lease)
            self._renewed = asked  # only after success: a failed renewal stays due
        return due

    def _report(self, *, progress: bool) -> None:
        """Write the reports that say something new; with `progress` also those with only a new revision."""
        everything = self._asked.is_set() or self._rival is not None
        self._asked.clear()
        for report in self._reports(self._session):
            self._replica = report.replica
            key = self._keys.replica(report.mapping, report.replica)
            last, revision = self._reported.get(key, (None, 0))
            further = progress and last is not None and last.revision != report.revision
            if everything or further or last is None or not _same(last, report) or self._is_awaited(last, report):
                self._write(key, report, revision)

    def _is_awaited(self, last: Report, now: Report) -> bool:
        """Return whether an ask waits for a revision that was reached since the last report."""
        asks = tuple(self._awaited.values())
        return any(last.revision < each.revision <= now.revision for each in asks)

    def _write(self, key: bytes, report: Report, expected: int) -> None:
        """Write one report, over what another sidecar of the same id wrote in between."""
        for _ in range(2):
            put = Put(key, encode(report), self._lease)
            result = self._kv.txn((ModRevision(key, expected),), (put,), otherwise_get=(key,))
            if result.succeeded:
                self._reported[key] = (report, result.revision)
                return
            expected = result.found[0].mod_revision if result.found else 0
            other = _read(result.found[0].value) if result.found else None
            if other and other.session != self._session:
                self._meet(report, other, certain=key in self._reported)

    def _meet(self, ours: Report, other: Report, *, certain: bool) -> None:
        """Note that another session reports under this id; if not `certain`, it may be that of a run that died."""
        before = self._rival
        if certain or not before:
            self._rival = _Rival(host=other.host, replica=ours.replica, seen=self._clock(), certain=certain)
        if certain and not (before and before.certain):
            log.warning(
                "another sidecar reports under the same replica id: give each its own",
                extra={"mapping": ours.mapping, "replica": ours.replica, "host": other.host},
            )
            self._wake.set()  # the reports name the rival

    def _ask_rival(self) -> None:
        """Ask a possible rival to report; a living one overwrites this replica's report, which is there by now."""
        rival = self._rival
        if not rival or rival.certain or rival.asked:
            return
        rival.asked = True
        ask = Ask(id=secrets.token_hex(16), replica=rival.replica)
        key = self._keys.ask(ask.id)
        with suppress(StoreError):  # without the ask it is noticed later, when either has something to report
            put = Put(key, encode(ask), self._kv.lease_grant(GONE))
            self._kv.txn((ModRevision(key, 0),), (put,))

    def _forget_rival(self) -> None:
        rival = self._rival
        if rival and self._clock() - rival.seen > GONE:
            self._rival = None
            if rival.certain:
                log.info("the other sidecar with the same replica id is gone", extra={"host": rival.host})
                self._wake.set()

    def _take_ask(self, item: Item) -> None:
        ask = _decoded(item, decode_ask, "what is no ask for a report is ignored")
        if ask is None or ask.replica not in {"", self._replica}:
            return
        if ask.revision:
            self._awaited[item.key] = ask
        self._asked.set()
        self._wake.set()

    def _forget_ask(self, key: bytes) -> None:
        self._awaited.pop(key, None)

    def _take_request(self, item: Item) -> None:
        if request := _decoded(item, decode_request, "an unreadable request in the store is ignored"):
            self._deliver(request)


def _decoded(item: Item, decode: Callable[[bytes], T], ignored: str) -> T | None:
    """Return an item's value; None for one that is unreadable, which is logged as `ignored`."""
    try:
        return decode(item.value)
    except UntrustedError as error:
        extra = {"key": shown_key(item.key), "revision": item.mod_revision, "reason": str(error)}
        log.warning(ignored, extra=extra)
        return None


def _with_mend(error: ConfigstoreError, right: str, start: bytes) -> str:
    if not isinstance(error, PermissionDeniedError):
        return str(error)
    where = printable(start.decode("utf-8", "replace"))
    return f"{error}; it needs {right} on all keys that begin with {where}"


def _read(text: bytes) -> Report | None:
    """Return the report that a value is; None for an unreadable one, which is overwritten."""
    try:
        return decode_report(text)
    except UntrustedError:
        return None


def _same(last: Report, now: Report) -> bool:
    """Return whether two reports differ at most in figures, which change with every file or with time."""
    return msgspec.structs.replace(last, **{name: getattr(now, name) for name in _FIGURES}) == now
