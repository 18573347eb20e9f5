"""Keeps the remote side of `Sides` at what the store holds, and the mapping's `Lifecycle` at how it stands to it.

Called by the engine's thread only. What comes in is held back until it is known who answered; a store that is not
the one that was known changes nothing here (`lineage`).
"""

import itertools
import logging
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Map

from configstore.errors import FutureRevisionError
from configstore.model.path import ROOT, PathError, StorePath, relative_to, shown
from configstore.model.problem import Problem
from configstore.model.record import Entry, Kind
from configstore.model.replica import Take
from configstore.model.selection import Direction
from configstore.store.api import Batch, Item
from configstore.store.history import ExpiredError, record_written_at
from configstore.store.subtree_revisions import revisions_below
from configstore.store.tree import Tree
from configstore.store.values import Listing, Stored, UnreadableRecord
from sidecar.mapping import Mapping
from sidecar.planner.lifecycle import Lifecycle, LifecycleEvent, Phase, rescue, words
from sidecar.planner.sides import RemoteEntry
from sidecar.planner.three_sides import Sides
from sidecar.remote.content import AtHand, Contents
from sidecar.remote.lineage import contradiction, given_away, of_nothing, rewritten
from sidecar.remote.sent import entry_of, settle_sent
from sidecar.remote.watch import RemoteFeed

log = logging.getLogger(__name__)

LISTING_PAUSE = 1.0
"""Seconds between two listings that are asked for."""

_PLAIN_DIRECTORY = (
    "a plain directory came in the place of a sealed file, which stays as it was: if it is meant,"
    " `configstore rm -r` the path, then `configstore mkdir` it; else `configstore restore` it"
)


class RemoteSide:
    """The store's side of one mapping.

    life: how the mapping stands to the store. revision: up to which everything was seen. highest: the newest
    revision that is known of, be it of an own commit that the watch has not told yet; it may be read from any
    thread.
    """

    def __init__(
        self,
        tree: Tree,
        mapping: Mapping,
        sides: Sides,
        *,
        feed: RemoteFeed,
        agree: Callable[[Map[StorePath, RemoteEntry]], None],
        clock: Callable[[], float],
    ) -> None:
        """`agree` is told of records that our own writes made, the answer to which was lost."""
        self._tree = tree
        self._mapping = mapping
        self._sides = sides
        self._feed = feed
        feed.wants = sides.wants
        self._agree = agree
        self._clock = clock
        self._news: list[Listing | Batch] = []  # what came in and waits until it is known who answered
        self.came_in: float | None = None  # when the oldest of it, or of what was taken in last, did
        self._unseen: dict[StorePath, int] = {}  # what the store held and the watch had not told, last time
        self._nothing_there = False  # no record of the mapping, when the store was last looked at as a whole
        self._listing_at = clock() + LISTING_PAUSE  # a feed begins with a listing, asked or not
        self._root_at = 0  # mod_revision of the record at the subtree's root
        self.life = Lifecycle()
        self.revision = 0
        self.highest = max((agreed.mod_revision for agreed in sides.baseline.values()), default=0)
        self.contents = Contents(tree, mapping)
        self.at_hand = AtHand()
        self._top = tree.keys.file(mapping.store)
        self._below, _ = tree.keys.files_below(mapping.store)

    # What the engine asks for

    def absorb(self) -> None:
        """Take in what the watch delivered.

        Raises StoreError; the news then wait for the next call.
        """
        if not self._news:
            self.came_in = self._feed.since
        self._news += self._feed.drain()
        history: str | None = None
        connected = any(isinstance(news, Batch) and news.connected for news in self._news)
        if connected or any(isinstance(news, Listing) for news in self._news):
            history = self._rewritten()
        if connected:
            self.verify()
            if history:
                self._contradicted(history)
        news, self._news = self._news, []
        self.contents.clear()
        for each in news:
            if isinstance(each, Listing):
                self._absorb_listing(each, history)
            elif self.life.phase not in {Phase.FROZEN, Phase.UNKNOWN}:
                self._absorb_batch(each)
            if self.life.phase is not Phase.FROZEN:
                self.revision = max(self.revision, each.revision)
                self.highest = max(self.highest, each.revision)
        settle_sent(self._tree, self._mapping, self._sides, self._agree)
        self._sides.bury_settled(self.revision)

    def ask(self) -> float | None:
        """Ask for what the phase cannot go on without; returns in how many seconds to ask again, None: never."""
        if not self.life.wants_listing:
            return None
        now = self._clock()
        if now >= self._listing_at:
            self._feed.list_again()
            self._listing_at = now + LISTING_PAUSE
        return self._listing_at - now

    @property
    def error(self) -> str | None:
        """Why the store cannot be followed at the moment."""
        return self._feed.error

    @property
    def lost(self) -> bool:
        """Whether the store is not, or may not be, the one that was known."""
        return self.life.phase in {Phase.ROOTLESS, Phase.FROZEN}

    @property
    def held(self) -> int:
        """How many files of a lost store lie here: what was agreed on with it; 0 while it is there."""
        return _files(self._sides.baseline[path].local for path in self._kept()) if self.lost else 0

    def _kept(self) -> set[StorePath]:
        return self._sides.baseline.keys() & self._sides.local.keys()

    @property
    def words(self) -> str | None:
        """What an operator reads about a phase that is not as it should be, with the mend; else None."""
        return words(self.life, self._mapping, held=self.held, replica=self._tree.replica)

    def accept(self, take: Take) -> None:
        """Go on with a store that is not the one that was known; the next listing is believed as it is."""
        self._happened(LifecycleEvent.CHOSEN, take=take)
        self._sides.forget_store()
        self._news.clear()
        self.revision = self.highest = 0

    def write_again(self) -> None:
        """Let the subtree be written again, its root at last, as a person chose."""
        self._happened(LifecycleEvent.WRITE_AGAIN)

    def root_made(self) -> None:
        """Note that the subtree's root lies in the store by our own write."""
        self._happened(LifecycleEvent.ROOT_IS_THERE)

    def sided(self) -> None:
        """Note that the choice of a side was made use of."""
        self.life = self.life.sided()

    def verify(self) -> None:
        """Compare what the watch told with the store; `life` then tells what is wrong. Raises StoreError."""
        now = revisions_below(self._tree, self._mapping.store)
        found = {relative_to(path, self._mapping.store): at for path, at in now.mod_revisions.items()}
        self._nothing_there = not found
        why = self._contradiction(now.revision, now.cluster_id, found)
        if why:
            self._contradicted(why)
        self._sides.forget_graves(found)
        if self._missed(found, now.revision) or self._missed_root():
            self.life = self.life.missed()

    @property
    def doubtful(self) -> bool:
        """Whether the store holds what the watch has not told yet: verify again soon."""
        return bool(self._unseen) and not self.life.stale

    def written(self, path: StorePath, entry: RemoteEntry) -> None:
        """Note our own commit, before the watch reports it."""
        self._sides.written(path, entry)
        self.highest = max(self.highest, entry.mod_revision)

    def learn(self, path: StorePath, found: Stored | None) -> None:
        """Note what a failed compare found instead of what was believed."""
        if found:
            self._take(path, found)
        else:
            self._sides.lost(path)

    # Who answers

    def _happened(self, event: LifecycleEvent, *, reason: str = "", take: Take | None = None) -> None:
        self.life = self.life.after(event, reason=reason, take=take)

    def _contradicted(self, why: str) -> None:
        if self._nothing_there:
            why = of_nothing(why, rescue(self._mapping, held=self._held(), replica=self._tree.replica))
        self._happened(LifecycleEvent.CONTRADICTED, reason=why)

    def _missed(self, found: Map[StorePath, int], revision: int) -> bool:
        """Tell whether the watch has kept something to itself that it should have told by now."""
        remote = self._sides.remote
        before, self._unseen = (
            self._unseen,
            {
                path: at
                for path, at in found.items()
                if (remote[path].mod_revision if path in remote else 0) < at
                and not self._sides.is_buried(path, at)
                and self._selects(path)
            },
        )
        late = any(at <= self.revision or before.get(path) == at for path, at in self._unseen.items())
        return late or any(known.mod_revision <= revision for path, known in remote.items() if path not in found)

    def _missed_root(self) -> bool:
        """Tell whether another record lies at the subtree's root than the watch has told. Raises StoreError."""
        if self._mapping.store == ROOT:
            return False
        return self._tree.mod_revision(self._mapping.store) != self._root_at

    def _selects(self, path: StorePath) -> bool:
        return path not in self._sides.remote_problems and self._relative(self._mapping.absolute(path)) is not None

    def _rewritten(self) -> str | None:
        """Return why the store's history is not the one that was known, or None.

        The newest known record tells: after a restore from before it, its revision was given to another write.
        """
        known = self._known()
        if not known:
            return None
        path = max(known, key=lambda each: (known[each].mod_revision, each))
        try:
            found = record_written_at(self._tree, self._mapping.absolute(path), known[path].mod_revision)
        except (FutureRevisionError, ExpiredError):
            return None  # `_contradiction` says the former better
        if found is None:
            return given_away(path, known[path].mod_revision, self._mapping.name, held=self._held())
        return rewritten(
            known, {path: found} if isinstance(found, Stored) else {}, self._mapping.name, held=self._held()
        )

    def _known(self) -> dict[StorePath, RemoteEntry]:
        """Return the newest record of each path that was seen, or agreed on before this start."""
        known = {
            path: RemoteEntry(entry=agreed.remote, mod_revision=agreed.mod_revision, write_id=agreed.write_id)
            for path, agreed in self._sides.baseline.items()
        }
        buried = self._sides.newest_buried
        for path, remote in itertools.chain(self._sides.remote.items(), [buried] if buried else []):
            if path not in known or known[path].mod_revision < remote.mod_revision:
                known[path] = remote
        return known

    def _held(self) -> int:
        return _files(local.entry for local in self._sides.local.values())

    def _contradiction(
        self, revision: int, cluster_id: int, found: Map[StorePath, int], *, asked_at: int | None = None
    ) -> str | None:
        """Return why this is not the store that was known, or None.

        asked_at: the store's revision that was known when this was asked for; None for all that is known now. What
        is newer than the answer, and was learnt after it had been asked for, contradicts nothing.
        """
        known = {path: remote.mod_revision for path, remote in self._known().items()}
        seen = max([self.highest, *known.values()])
        if asked_at is not None and asked_at <= revision:
            known = {path: at for path, at in known.items() if at <= revision}
            seen = revision
        return contradiction(
            known=known,
            seen=seen,
            cluster_id=self._sides.cluster_id,
            found=found,
            revision=revision,
            found_cluster_id=cluster_id,
            mapping=self._mapping.name,
            held=self._held(),
        )

    # What it says

    def _absorb_listing(self, listing: Listing, history: str | None) -> None:
        sides, top = self._sides, self._mapping.store
        below = {relative_to(path, top): found for path, found in listing.records.items() if path != top}
        revisions = {path: found.mod_revision for path, found in below.items()}
        self._nothing_there = not (below or listing.rest)
        why = (
            history
            or self._contradiction(listing.revision, listing.cluster_id, revisions, asked_at=listing.known)
            or rewritten(self._known(), below, self._mapping.name, held=self._held())
        )
        if why:
            self._contradicted(why)
            return
        self._happened(LifecycleEvent.LISTED)
        self._unseen.clear()
        sides.is_of(listing.cluster_id)
        if top == ROOT:  # a whole tree has no root record: it is there once anything is
            found_any = listing.records or listing.rest
            self._happened(LifecycleEvent.ROOT_IS_THERE if found_any else LifecycleEvent.ROOT_IS_MISSING)
        else:
            unreadable = (bad for bad in listing.bad if bad.path == top)
            self._take_top(listing.records.get(top) or next(unreadable, None))
        told = set()
        for path, (at, deletion) in listing.rest.items():
            sides.bury(relative_to(path, top), at, deletion)
        for path, found in listing.records.items():
            relative = self._relative(path, found.entry.kind)
            if relative is not None:
                self._take(relative, found)
                told.add(relative)
        for bad in listing.bad:
            told |= self._take_bad(bad)
        for path in sides.remote.keys() - told:
            if sides.remote[path].mod_revision <= listing.revision:
                sides.lost(path)
        for path in sides.remote_problems.keys() - told:
            sides.lost(path)

    def _absorb_batch(self, batch: Batch) -> None:
        top, below = self._top, self._below
        for event in batch.events:
            item = event.item
            if item.key == top:
                self._take_top(None if event.deleted else self._tree.decode_item(item))
            if not item.key.startswith(below):
                continue  # a neighbour whose name begins alike
            if event.deleted:
                self._take_vanished(item)
            else:
                self._absorb_item(item, StorePath(item.key[len(below) :].decode("utf-8", "surrogateescape")))

    def _absorb_item(self, item: Item, path: StorePath) -> None:
        """Take in what lies under a key; `path` is what the key says, as the mapping sees it."""
        self.at_hand.note(path, item)
        known = self._sides.remote.get(path)
        if known and known.mod_revision == item.mod_revision and path not in self._sides.remote_problems:
            return  # the echo of our own commit
        found = self._tree.decode_item(item, self._mapping.absolute(path) if known else None)
        if isinstance(found, UnreadableRecord):
            self._take_bad(found)
        elif (relative := self._relative(found.path, found.entry.kind)) is not None:
            self._take(relative, found)

    def _take_top(self, found: Stored | UnreadableRecord | None) -> None:
        """Note what lies at the subtree's root."""
        self._root_at = found.mod_revision if found else 0
        if found is None:
            event = LifecycleEvent.ROOT_IS_MISSING
        elif isinstance(found, Stored) and found.entry.kind is Kind.DIR:
            event = LifecycleEvent.ROOT_IS_THERE
        elif isinstance(found, Stored) and found.gone:
            event = LifecycleEvent.ROOT_IS_DELETED
        else:
            event = LifecycleEvent.ROOT_IS_OTHER
        self._happened(event)

    @property
    def unfit(self) -> str:
        """Why nothing that is written here can be sealed as it must be; "" where it can, or need not."""
        writes = self._mapping.direction is not Direction.PULL
        return self._tree.envelopes.unfit(self._mapping.store) if writes else ""

    def _take(self, path: StorePath, found: Stored) -> None:
        if self._is_in_a_files_place(path, found):
            problem = Problem(path=path, reason=_PLAIN_DIRECTORY, sealing=True)
            self._sides.unreadable(path, problem, found.mod_revision)
            return
        self._tell_of_replay(path, found)
        if self._sides.told(path, entry_of(found)):
            self.contents.note(path, found)

    def _is_in_a_files_place(self, path: StorePath, found: Stored) -> bool:
        """Tell whether a directory that anybody may have made would take a file away, which no guard counts."""
        if found.entry.kind is not Kind.DIR or self._tree.envelopes.proves(found.path, found.record):
            return False
        known, base = self._sides.remote.get(path), self._sides.baseline.get(path)
        before = known.entry if known else base.remote if base else None
        return before is not None and before.kind in {Kind.FILE, Kind.SYMLINK}

    def _tell_of_replay(self, path: StorePath, found: Stored) -> None:
        """Say in the log when a sealed record does not follow upon the one that was known, though it is newer.

        Each write compares the record that it replaces, and says which one. So this is an older one that a hostile
        store has put back; or its path was deleted so long ago that no tombstone is left.
        """
        sides = (self._sides.baseline, self._sides.remote)
        known = max((side[path].mod_revision for side in sides if path in side), default=0)
        supersedes = found.record.origin.supersedes
        if found.record.seal and supersedes < known < found.mod_revision:
            log.warning(
                "a record does not follow upon the one before it: was an older one put back?",
                extra={
                    "mapping": self._mapping.name,
                    "path": path,
                    "revision": found.mod_revision,
                    "supersedes": supersedes,
                    "known": known,
                },
            )

    def _take_bad(self, bad: UnreadableRecord) -> set[StorePath]:
        if bad.key is None:
            relative, word = self._relative(StorePath(bad.path)), ""
        else:  # a key that no path has is only ever shown
            relative, word = StorePath(bad.path), bad.path
        if relative is None:
            return set()
        whose = shown(self._mapping.store) if self._mapping.store else "/"
        mend = "" if bad.sealing else f"; `configstore ls -R {whose}` says what replaces or removes it"
        problem = Problem(path=relative, reason=f"{bad.reason}{mend}", word=word, sealing=bad.sealing)
        self._sides.unreadable(relative, problem, bad.mod_revision)
        return {relative}

    def _take_vanished(self, item: Item) -> None:
        try:
            relative = self._relative(self._tree.keys.path_of_file(item.key))
        except PathError:
            return
        if relative is not None:
            self._sides.lost(relative)

    def _relative(self, path: StorePath, kind: Kind = Kind.GONE) -> StorePath | None:
        """Return the path as the mapping sees it; None for its root and for what it does not select.

        What a deleted path was is not known any more, so it may have been either.
        """
        if path == self._mapping.store:
            return None
        relative = relative_to(path, self._mapping.store)
        known = self._sides.remote.get(relative)
        if known and known.entry.kind is kind:  # it was selected then, and what is selected never changes
            return relative
        possible = {Kind.GONE: (False, True), Kind.DIR: (True,)}.get(kind, (False,))
        return relative if any(self._mapping.selects(relative, is_dir=is_dir) for is_dir in possible) else None


def _files(entries: Iterable[Entry]) -> int:
    return sum(entry.kind is not Kind.DIR for entry in entries)
