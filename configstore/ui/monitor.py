"""Follows the store for all pages, and judges the overview again and again while a page is open.

Events of records and reports change the `Index`; those of leases and conflicts only cause a new judgement.
Replicas are asked for reports only while a page is open; without the right to ask, the page still works. Started
by `serving`.
"""

import math
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from configstore.errors import ConfigstoreError
from configstore.model.grouping import grouped
from configstore.model.keys import prefix_end
from configstore.model.lease import Intent
from configstore.model.path import ROOT, StorePath, printable
from configstore.model.replica import Ask, Report
from configstore.model.untrusted import UntrustedError
from configstore.overview.facts import OverviewFacts
from configstore.overview.gather import gather
from configstore.overview.judge import Judgement, judge
from configstore.settings import StoreSettings
from configstore.store.api import Batch, Event, Item
from configstore.store.lease_intents import last_intent
from configstore.store.lease_queue import Queued, queues
from configstore.store.replicas import asking, read_report, report_items
from configstore.store.tree import Tree
from configstore.ui.following import Area, Following
from configstore.ui.index import SETS, Index, concerns, without_age, without_content

INTERVAL = 10.0
"""Seconds between two judgements while a page is open and nothing changes."""

MIN_INTERVAL = 1.0
"""Seconds between two judgements at least: each asks all replicas to report."""

ASK_TIME = 8.0
"""Seconds for which replicas are asked to report that they have applied a revision."""

MAX_AGE = 2 * INTERVAL
"""Seconds after which a judgement is too old to be shown; then no page was open meanwhile."""


class HeldLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease with its queue, holder first. intent: what was begun last under it."""

    name: str
    queue: tuple[Queued, ...]
    intent: Intent | None


class Monitor:
    """The threads that keep an `Index` and an overview current.

    notify: called from any thread when something changed that a page may show, with a text for a person or "".
    has_viewers: returns whether a page is open, so that replicas should be asked.
    leases: as last read.
    """

    def __init__(
        self,
        settings: StoreSettings,
        tree: Tree,
        index: Index,
        *,
        notify: Callable[[str], None],
        has_viewers: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._tree = tree
        self._index = index
        self._notify = notify
        self._has_viewers = has_viewers
        self.leases: tuple[HeldLease, ...] = ()
        self._failed = ""
        self._last: tuple[OverviewFacts, Judgement] | None = None
        self._shown: object = None
        self._judged_at = -math.inf
        self._wanted = True
        self._judged = threading.Condition()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._reported = threading.Event()  # a report came since it was cleared
        self._followed = [Following(tree, area, notify) for area in self._areas()]
        self._thread = threading.Thread(target=self._run, name="ui-look", daemon=True)

    def start(self) -> None:
        """List the store, and follow it from that revision on. Raises StoreError."""
        for each in self._followed:
            each.start()
        self._thread.start()

    def close(self) -> None:
        """Tell the threads to end. Closing the connection afterwards ends the calls that they wait for."""
        self._stop.set()
        self._reported.set()
        self._wake.set()
        for each in self._followed:
            each.close()

    @property
    def failure(self) -> str:
        """Why something cannot be followed or judged; "" when everything can."""
        return "; ".join(dict.fromkeys(filter(None, (self._failed, *(each.trouble for each in self._followed)))))

    @property
    def went_back(self) -> bool:
        """Whether the store's revision went back, as after a restored snapshot."""
        return any(each.went_back for each in self._followed)

    # Following

    def _areas(self) -> list[Area]:
        keys = self._tree.keys
        files, queues_of, intents = keys.file(ROOT), keys.lease_queue(""), keys.intent("")
        conflicts = keys.conflict_root()
        return [
            Area(name="files", keys=(files, prefix_end(files)), begin=self._list_files, take=self._take_files),
            Area(name="replicas", keys=keys.replicas(), begin=self._list_reports, take=self._take_reports),
            *(
                Area(
                    name=name,
                    keys=found,
                    begin=partial(self._tree.range_revision, found),
                    take=partial(self._request_judgement, name),
                )
                for name, prefix in (("conflicts", conflicts), ("leases", queues_of), ("intents", intents))
                for found in [(prefix, prefix_end(prefix))]
            ),
        ]

    def _list_files(self) -> int:
        listing = self._tree.list(ROOT, keep=without_content)
        self._index.load(listing.revision, (*listing.records.values(), *listing.bad))
        return listing.revision

    def _take_files(self, batch: Batch) -> str | None:
        revisions = grouped(batch.events, lambda event: event.item.mod_revision)
        texts = [self._take_set(revision, events) for revision, events in revisions.items()]
        if not texts:
            return None
        self._wake.set()  # the next judgement asks the replicas whether they have applied it
        return "; ".join(texts)

    def _take_set(self, revision: int, events: list[Event]) -> str:
        written = [self._tree.decode_item(event.item) for event in events if not event.deleted]
        vanished = [self._tree.keys.text_of_file(event.item.key) for event in events if event.deleted]
        self._index.add_set(revision, written, vanished, awaited=self._has_viewers())
        names = [each.path for each in written] + vanished
        return f"{printable(names[0])} changed" + (f" with {len(names) - 1} more" if len(names) > 1 else "")

    def _list_reports(self) -> int:
        items, revision = report_items(self._tree)
        self._index.load_reports({item.key: self._report(item) for item in items})
        self._reported.set()
        return revision

    def _take_reports(self, batch: Batch) -> str | None:
        news = False
        for event in batch.events:
            if self._tree.keys.is_expected(event.item.key):
                news = True
                continue
            report = None if event.deleted else self._report(event.item)
            news = self._index.put_report(event.item.key, report) or news
        self._reported.set()
        if not news:
            return None
        self._wake.set()
        return ""

    def _report(self, item: Item) -> tuple[Report, int] | str:
        try:
            return read_report(self._tree.keys, item), item.mod_revision
        except UntrustedError as error:
            return str(error)

    def _request_judgement(self, name: str, batch: Batch) -> str | None:
        """Cause a new judgement; the events themselves are not used."""
        if not batch.events:
            return None
        self._wake.set()
        return f"{name} changed"

    # Looking

    def _run(self) -> None:
        """Judge again and again while a page is open, and soon after a change."""
        while not self._stop.is_set():
            if self._has_viewers() or self._wanted:
                self._wanted = False
                try:
                    self._judge()
                except Exception as error:  # noqa: BLE001 - a bug: no page may then say that all is well
                    self._failed = f"the overview could not be made ({type(error).__name__}); it is tried again"
                    self._notify(self._failed)
                else:
                    self._failed = ""
            self._stop.wait(MIN_INTERVAL)
            self._wake.wait(INTERVAL)
            self._wake.clear()

    def _judge(self) -> None:
        facts = gather(self._settings)
        verdict, leases = judge(facts), self._leases_now(facts)
        shown = (_lasting(facts), verdict, leases)
        with self._judged:
            news, self._shown = shown != self._shown, shown
            before = self._last[1].needs if self._last else ()
            self._last, self.leases, self._judged_at = (facts, verdict), leases, time.monotonic()
            self._judged.notify_all()
        if news:
            self._notify("" if verdict.needs == before else f"what needs a person: {len(verdict.needs)}")
        self._await_applied()

    def _leases_now(self, facts: OverviewFacts) -> tuple[HeldLease, ...]:
        """Return the held leases; the last known ones where they cannot be read."""
        if facts.statuses and not facts.cut_off:
            with suppress(ConfigstoreError):
                return tuple(
                    HeldLease(name=name, queue=tuple(places), intent=last_intent(self._tree, name))
                    for name, places in sorted(queues(self._tree).items())
                )
        return self.leases

    def _await_applied(self) -> None:
        """Ask replicas that are behind to report once they have caught up; else the next report shows it."""
        wanted = self._index.revision
        if not self._behind(wanted):
            return
        with suppress(ConfigstoreError):  # without the right to ask, the page waits for the next regular report
            ask = Ask(id=uuid.uuid4().hex, revision=wanted)
            with asking(self._tree, ask):
                end = time.monotonic() + ASK_TIME
                while (left := end - time.monotonic()) > 0:
                    self._reported.clear()  # before the reports are read, so that none is missed
                    if self._stop.is_set() or not self._behind(wanted):
                        return
                    self._reported.wait(left)

    def _behind(self, revision: int) -> bool:
        """Return whether an answering replica has not applied its subtree's sets up to a revision."""
        silent = self.silent()
        return any(
            report.revision < self._newest(report.store, revision)
            for report, _ in self._index.reports().values()
            if (report.mapping, report.replica) not in silent
        )

    def _newest(self, store: StorePath, limit: int) -> int:
        for each in self._index.sets(SETS):
            if each.revision <= limit and concerns(store, each.paths):
                return each.revision
        return 0

    def overview(self, patience: float = 3.5) -> tuple[OverviewFacts, Judgement] | None:
        """Return the last overview; a new one if that is older than MAX_AGE. None when none comes in time."""
        with self._judged:
            asked = time.monotonic()
            if asked - self._judged_at > MAX_AGE:
                self._wanted = True
                self._wake.set()
                self._judged.wait_for(lambda: self._judged_at > asked or self._stop.is_set(), patience)
            return self._last

    def silent(self) -> frozenset[tuple[str, str]]:
        """Return mapping and id of the replicas that did not answer the last request for a report."""
        return (
            frozenset((each.mapping, each.replica) for each in self._last[0].late) if self._last else frozenset()
        )


def _lasting(facts: OverviewFacts) -> OverviewFacts:
    """Return the facts without the figures that differ each time, to compare two of them."""
    endpoints = tuple(
        msgspec.structs.replace(each, latency=0.0, http=msgspec.structs.replace(each.http, clock_ahead=None))
        for each in facts.endpoints
    )
    return msgspec.structs.replace(
        facts,
        now=0.0,
        endpoints=endpoints,
        reports=tuple(map(without_age, facts.reports)),
        late=tuple(map(without_age, facts.late)),
    )
