"""Follows the store for all pages at once, and looks now and then at how all is.

Started by `serving`. Events of records and reports change the `Index`; those of leases and conflicts only say that
the pages must look again. Asking goes on only while somebody looks, and a page works without the right to it.
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

ROUND = 10.0
"""Seconds between two looks while somebody looks."""

SPACING = 1.0
"""Seconds between two looks at least, whatever changes: each asks all replicas to report."""

STANDS = 8.0
"""Seconds for which an ask waits for a revision to be applied."""

OLD = 2 * ROUND
"""Seconds after which a look is too old to be shown: nobody has looked meanwhile."""


class HeldLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease with its queue, the holder first, and what was begun last under it."""

    name: str
    queue: tuple[Queued, ...]
    intent: Intent | None


class Watching:
    """The threads that keep an `Index` current, and an overview.

    told: called, from any thread, with words for a person when something changed that a page may show.
    looked_at: whether somebody looks, so that replicas are worth asking.
    leases: as they were known last.
    """

    def __init__(
        self,
        settings: StoreSettings,
        tree: Tree,
        index: Index,
        *,
        told: Callable[[str], None],
        looked_at: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._tree = tree
        self._index = index
        self._told = told
        self._looked_at = looked_at
        self.leases: tuple[HeldLease, ...] = ()
        self._failed = ""
        self._last: tuple[OverviewFacts, Judgement] | None = None
        self._looks: object = None
        self._looked = -math.inf
        self._wanted = True
        self._news = threading.Condition()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._reported = threading.Event()  # a report came since it was cleared
        self._followed = [Following(tree, area, told) for area in self._areas()]
        self._thread = threading.Thread(target=self._look, name="ui-look", daemon=True)

    def start(self) -> None:
        """List the store once, and follow it from there. Raises StoreError."""
        for each in self._followed:
            each.start()
        self._thread.start()

    def close(self) -> None:
        """End the threads; whoever closes the connection afterwards ends what they wait for."""
        self._stop.set()
        self._reported.set()
        self._wake.set()
        for each in self._followed:
            each.close()

    @property
    def trouble(self) -> str:
        """Why something cannot be followed; empty when everything is."""
        return "; ".join(dict.fromkeys(filter(None, (self._failed, *(each.trouble for each in self._followed)))))

    @property
    def went_back(self) -> bool:
        """Whether the store turned out to be an older one than before."""
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
                    take=partial(self._look_again, name),
                )
                for name, prefix in (("conflicts", conflicts), ("leases", queues_of), ("intents", intents))
                for found in [(prefix, prefix_end(prefix))]
            ),
        ]

    def _list_files(self) -> int:
        listing = self._tree.list(ROOT, keep=without_content)
        self._index.begin(listing.revision, (*listing.records.values(), *listing.bad))
        return listing.revision

    def _take_files(self, batch: Batch) -> str | None:
        revisions: dict[int, list[Event]] = {}
        for event in batch.events:
            revisions.setdefault(event.item.mod_revision, []).append(event)
        said = [self._take_set(revision, events) for revision, events in revisions.items()]
        if not said:
            return None
        self._wake.set()  # the replicas are asked whether they have it
        return "; ".join(said)

    def _take_set(self, revision: int, events: list[Event]) -> str:
        written = [self._tree.decode_item(event.item) for event in events if not event.deleted]
        vanished = [self._tree.keys.text_of_file(event.item.key) for event in events if event.deleted]
        self._index.take(revision, written, vanished, awaited=self._looked_at())
        names = [each.path for each in written] + vanished
        return f"{printable(names[0])} changed" + (f" with {len(names) - 1} more" if len(names) > 1 else "")

    def _list_reports(self) -> int:
        items, revision = report_items(self._tree)
        self._index.begin_reports({item.key: self._report(item) for item in items})
        self._reported.set()
        return revision

    def _take_reports(self, batch: Batch) -> str | None:
        news = False
        for event in batch.events:
            if self._tree.keys.is_expected(event.item.key):
                news = True
                continue
            said = None if event.deleted else self._report(event.item)
            news = self._index.hear(event.item.key, said) or news
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

    def _look_again(self, name: str, batch: Batch) -> str | None:
        """Events of these carry no facts: it is looked at how it is."""
        if not batch.events:
            return None
        self._wake.set()
        return f"{name} changed"

    # Looking

    def _look(self) -> None:
        """Judge how all is, again and again while somebody looks, and soon after whatever changed."""
        while not self._stop.is_set():
            if self._looked_at() or self._wanted:
                self._wanted = False
                try:
                    self._judge()
                except Exception as error:  # noqa: BLE001 - a fault of ours: no page may say that all is well
                    self._failed = f"the look at how all is failed ({type(error).__name__}); it is tried again"
                    self._told(self._failed)
                else:
                    self._failed = ""
            self._stop.wait(SPACING)
            self._wake.wait(ROUND)
            self._wake.clear()

    def _judge(self) -> None:
        facts = gather(self._settings)
        verdict, leases = judge(facts), self._leases_now(facts)
        looks = (_lasting(facts), verdict, leases)
        with self._news:
            news, self._looks = looks != self._looks, looks
            before = self._last[1].needs if self._last else ()
            self._last, self.leases, self._looked = (facts, verdict), leases, time.monotonic()
            self._news.notify_all()
        if news:
            self._told("" if verdict.needs == before else f"what needs a person: {len(verdict.needs)}")
        self._await_applied()

    def _leases_now(self, facts: OverviewFacts) -> tuple[HeldLease, ...]:
        """Return who holds what; what was known last where it cannot be read."""
        if facts.statuses and not facts.cut_off:
            with suppress(ConfigstoreError):
                return tuple(
                    HeldLease(name=name, queue=tuple(places), intent=last_intent(self._tree, name))
                    for name, places in sorted(queues(self._tree).items())
                )
        return self.leases

    def _await_applied(self) -> None:
        """Have replicas that are behind say so once they have caught up; without that their next report tells."""
        wanted = self._index.revision
        if not self._behind(wanted):
            return
        with suppress(ConfigstoreError):  # read rights are enough for a page
            ask = Ask(id=uuid.uuid4().hex, revision=wanted)
            with asking(self._tree, ask):
                end = time.monotonic() + STANDS
                while (left := end - time.monotonic()) > 0:
                    self._reported.clear()  # before what it stands for is read, so that nothing is missed
                    if self._stop.is_set() or not self._behind(wanted):
                        return
                    self._reported.wait(left)

    def _behind(self, revision: int) -> bool:
        """Tell whether a replica that answers has not applied what its subtree had up to a revision."""
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
        """Return how all was at the last look; if that is long ago, how it is. None when it takes too long."""
        with self._news:
            asked = time.monotonic()
            if asked - self._looked > OLD:
                self._wanted = True
                self._wake.set()
                self._news.wait_for(lambda: self._looked > asked or self._stop.is_set(), patience)
            return self._last

    def silent(self) -> frozenset[tuple[str, str]]:
        """Return mapping and id of the replicas that did not answer when they were asked last."""
        return (
            frozenset((each.mapping, each.replica) for each in self._last[0].late) if self._last else frozenset()
        )


def _lasting(facts: OverviewFacts) -> OverviewFacts:
    """Return the facts without what changes from look to look although nothing has changed."""
    endpoints = tuple(
        msgspec.structs.replace(each, latency=0.0, web=msgspec.structs.replace(each.web, clock_ahead=None))
        for each in facts.endpoints
    )
    return msgspec.structs.replace(
        facts,
        now=0.0,
        endpoints=endpoints,
        reports=tuple(map(without_age, facts.reports)),
        late=tuple(map(without_age, facts.late)),
    )
