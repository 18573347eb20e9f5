"""The store's side of one mapping: takes in listings and events, and keeps the mapping's phase.

Called by the engine's thread only. Invariants:

1. Nothing that was received is believed before the store was recognised (`known_store`). One that is not the known
   store changes nothing here but the phase, and the phase forbids everything else.
2. What was received is kept until the recognition succeeded: an error in between loses no event.
3. Own writes without an answer are resolved only after everything received was taken in, since a record's write id
   is what resolves them.
"""

from collections.abc import Callable
from collections.abc import Mapping as Map

from configstore.model.path import ROOT, PathError, StorePath, relative_to, shown
from configstore.model.problem import Problem
from configstore.model.record import Kind
from configstore.model.replica import Take
from configstore.model.selection import Direction
from configstore.store.api import Batch, Item
from configstore.store.subtree_revisions import revisions_below
from configstore.store.tree import Tree
from configstore.store.values import Listing, Stored, UnreadableRecord
from sidecar.mapping import Mapping
from sidecar.planner.lifecycle import Lifecycle, LifecycleEvent, Phase, phase_text
from sidecar.planner.sides import RemoteEntry
from sidecar.planner.three_sides import ThreeSides
from sidecar.remote.content import AtHand, Contents
from sidecar.remote.known_store import KnownStore, file_count
from sidecar.remote.sealed import plain_directory_over_file, warn_of_replay
from sidecar.remote.sent import entry_of, resolve_sent
from sidecar.remote.watch import RemoteFeed

LISTING_PAUSE = 1.0
"""Seconds between two listings that are requested."""


class RemoteSide:
    """The store's side of one mapping.

    lifecycle: the mapping's phase. revision: up to which all changes were taken in. highest: the newest revision
    that is known of, which may be that of an own commit that the watch has not reported yet; readable from any
    thread. received_at: when the oldest event that was taken in last was received.
    """

    def __init__(
        self,
        tree: Tree,
        mapping: Mapping,
        sides: ThreeSides,
        *,
        feed: RemoteFeed,
        agree: Callable[[Map[StorePath, RemoteEntry]], None],
        clock: Callable[[], float],
    ) -> None:
        """`agree` is called with the records that own writes made, whose answers were lost."""
        self._tree = tree
        self._mapping = mapping
        self._sides = sides
        self._feed = feed
        feed.wants = sides.wants
        self._agree = agree
        self._clock = clock
        self._received: list[Listing | Batch] = []  # waits until the store is recognised
        self.received_at: float | None = None
        self._unreported: dict[StorePath, int] = {}  # what the watch had not reported at the last comparison
        self._listing_at = clock() + LISTING_PAUSE  # a feed begins with a listing by itself
        self._root_at = 0  # mod_revision of the root record
        self._known = KnownStore(tree, mapping, sides)
        self.lifecycle = Lifecycle()
        self.revision = 0
        self.highest = max((agreed.mod_revision for agreed in sides.baseline.values()), default=0)
        self.contents = Contents(tree, mapping)
        self.at_hand = AtHand()
        self._root_key = tree.keys.file(mapping.store)
        self._prefix, _ = tree.keys.files_below(mapping.store)

    # Called by the engine

    def absorb(self) -> None:
        """Take in what the feed received. Raises StoreError; it is then taken in by the next call."""
        if not self._received:
            self.received_at = self._feed.since
        self._received += self._feed.drain()
        history: str | None = None
        connected = any(isinstance(each, Batch) and each.connected for each in self._received)
        if connected or any(isinstance(each, Listing) for each in self._received):
            history = self._known.rewritten_at_newest()
        if connected:
            self.verify()
            if history:
                self._contradicted(history)
        received, self._received = self._received, []  # invariant 2: nothing was raised until here
        self.contents.clear()
        for each in received:
            if isinstance(each, Listing):
                self._absorb_listing(each, history)
            elif self.lifecycle.phase not in {Phase.FROZEN, Phase.UNKNOWN}:
                self._absorb_batch(each)
            if self.lifecycle.phase is not Phase.FROZEN:
                self.revision = max(self.revision, each.revision)
                self.highest = max(self.highest, each.revision)
        resolve_sent(self._tree, self._mapping, self._sides, self._agree)
        self._sides.bury_applied(self.revision)

    def request_listing(self) -> float | None:
        """Request a listing if the phase needs one; returns the seconds until the next request, None for none."""
        if not self.lifecycle.wants_listing:
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
        return self.lifecycle.phase in {Phase.ROOTLESS, Phase.FROZEN}

    @property
    def held(self) -> int:
        """How many files of a lost store are here, by the baseline; 0 while the store is not lost."""
        kept = self._sides.baseline.keys() & self._sides.local.keys() if self.lost else ()
        return file_count(self._sides.baseline[path].local for path in kept)

    @property
    def phase_text(self) -> str | None:
        """What an operator reads about any phase but FOLLOWING, with what to do; else None."""
        return phase_text(self.lifecycle, self._mapping, held=self.held, replica=self._tree.replica)

    @property
    def unfit(self) -> str:
        """Why local changes cannot be sealed as they must be; "" where they can, or need not."""
        writes = self._mapping.direction is not Direction.PULL
        return self._tree.envelopes.unfit(self._mapping.store) if writes else ""

    def accept(self, take: Take) -> None:
        """Go on with a store that is not the known one, as a person chose; the next listing is believed."""
        self._happened(LifecycleEvent.CHOSEN, take=take)
        self._sides.forget_store()
        self._received.clear()
        self.revision = self.highest = 0

    def write_again(self) -> None:
        """Let the subtree be written again, its root record last, as a person chose."""
        self._happened(LifecycleEvent.WRITE_AGAIN)

    def root_made(self) -> None:
        """Note that an own write made the root record."""
        self._happened(LifecycleEvent.ROOT_IS_THERE)

    def side_taken(self) -> None:
        """Note that a person's choice of a side was used."""
        self.lifecycle = self.lifecycle.side_taken()

    def verify(self) -> None:
        """Compare the store with what the watch reported; the outcome is in `lifecycle`. Raises StoreError."""
        now = revisions_below(self._tree, self._mapping.store)
        found = {relative_to(path, self._mapping.store): at for path, at in now.mod_revisions.items()}
        self._known.nothing_there = not found
        why = self._known.contradiction(self.highest, found, revision=now.revision, cluster_id=now.cluster_id)
        if why:
            self._contradicted(why)
        self._sides.buried.keep_only(found)
        if self._missed(found, now.revision) or self._missed_root():
            self.lifecycle = self.lifecycle.missed()

    @property
    def doubtful(self) -> bool:
        """Whether the last comparison found changes that the watch may still report: compare again soon."""
        return bool(self._unreported) and not self.lifecycle.stale

    def note_committed(self, path: StorePath, entry: RemoteEntry) -> None:
        """Take in an own commit before the watch reports it."""
        self._sides.note_committed(path, entry)
        self.highest = max(self.highest, entry.mod_revision)

    def learn(self, path: StorePath, found: Stored | None) -> None:
        """Take in the record that a failed compare found; None: there was none."""
        if found:
            self._take(path, found)
        else:
            self._sides.note_missing_record(path)

    # The phase

    def _happened(self, event: LifecycleEvent, *, reason: str = "", take: Take | None = None) -> None:
        self.lifecycle = self.lifecycle.after(event, reason=reason, take=take)

    def _contradicted(self, why: str) -> None:
        self._happened(LifecycleEvent.CONTRADICTED, reason=self._known.text(why))

    def _missed(self, found: Map[StorePath, int], revision: int) -> bool:
        """Return whether the watch missed a change.

        A record that the watch did not report is missed if its revision is one up to which all was taken in, or if
        it was unreported at the last comparison, too. A record that is known and was not found is missed as well.
        """
        remote = self._sides.remote
        before = self._unreported
        self._unreported = {
            path: at
            for path, at in found.items()
            if (remote[path].mod_revision if path in remote else 0) < at
            and not self._sides.buried.has(path, at)
            and self._selects(path)
        }
        late = any(at <= self.revision or before.get(path) == at for path, at in self._unreported.items())
        return late or any(known.mod_revision <= revision for path, known in remote.items() if path not in found)

    def _missed_root(self) -> bool:
        """Return whether the watch missed a change of the root record. Raises StoreError."""
        if self._mapping.store == ROOT:
            return False
        return self._tree.mod_revision(self._mapping.store) != self._root_at

    def _selects(self, path: StorePath) -> bool:
        return path not in self._sides.remote_problems and self._relative(self._mapping.absolute(path)) is not None

    # Listings and events

    def _absorb_listing(self, listing: Listing, history: str | None) -> None:
        sides, top = self._sides, self._mapping.store
        below = {relative_to(path, top): found for path, found in listing.records.items() if path != top}
        revisions = {path: found.mod_revision for path, found in below.items()}
        self._known.nothing_there = not (below or listing.rest)
        why = (
            history
            or self._known.contradiction(
                self.highest,
                revisions,
                revision=listing.revision,
                cluster_id=listing.cluster_id,
                asked_at=listing.known,
            )
            or self._known.rewritten_in(below)
        )
        if why:
            self._contradicted(why)
            return
        self._happened(LifecycleEvent.LISTED)
        self._unreported.clear()
        sides.cluster_id = listing.cluster_id
        self._take_root_of(listing)
        for path, (at, deletion) in listing.rest.items():
            sides.buried.add(relative_to(path, top), at, deletion)
        listed = set()
        for path, found in listing.records.items():
            relative = self._relative(path, found.entry.kind)
            if relative is not None:
                self._take(relative, found)
                listed.add(relative)
        for unreadable in listing.bad:
            listed |= self._take_unreadable(unreadable)
        # A record that is newer than the listing was committed after it: its absence means nothing.
        unlisted = [path for path in sides.remote if sides.remote[path].mod_revision <= listing.revision]
        for path in {*unlisted, *sides.remote_problems} - listed:
            sides.note_missing_record(path)

    def _take_root_of(self, listing: Listing) -> None:
        top = self._mapping.store
        if top == ROOT:  # the whole tree has no root record: it exists once it has any record
            found_any = listing.records or listing.rest
            self._happened(LifecycleEvent.ROOT_IS_THERE if found_any else LifecycleEvent.ROOT_IS_MISSING)
        else:
            unreadable = (each for each in listing.bad if each.path == top)
            self._take_root(listing.records.get(top) or next(unreadable, None))

    def _absorb_batch(self, batch: Batch) -> None:
        for event in batch.events:
            item = event.item
            if item.key == self._root_key:
                self._take_root(None if event.deleted else self._tree.decode_item(item))
            if not item.key.startswith(self._prefix):
                continue  # a sibling of the subtree whose name begins with the subtree's
            if event.deleted:
                self._take_vanished(item)
            else:
                path = StorePath(item.key[len(self._prefix) :].decode("utf-8", "surrogateescape"))
                self._absorb_item(item, path)

    def _absorb_item(self, item: Item, path: StorePath) -> None:
        """Take in a changed key; `path` is the key as a path of the mapping."""
        self.at_hand.note(path, item)
        known = self._sides.remote.get(path)
        if known and known.mod_revision == item.mod_revision and path not in self._sides.remote_problems:
            return  # an own commit, which is known already
        found = self._tree.decode_item(item, self._mapping.absolute(path) if known else None)
        if isinstance(found, UnreadableRecord):
            self._take_unreadable(found)
        elif (relative := self._relative(found.path, found.entry.kind)) is not None:
            self._take(relative, found)

    def _take_root(self, found: Stored | UnreadableRecord | None) -> None:
        """Take in the root record."""
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

    def _take(self, path: StorePath, found: Stored) -> None:
        problem = plain_directory_over_file(self._tree, self._sides, path, found)
        if problem:
            self._sides.note_unreadable(path, problem, found.mod_revision)
            return
        warn_of_replay(self._sides, self._mapping.name, path, found)
        if self._sides.note_record(path, entry_of(found)):
            self.contents.note(path, found)

    def _take_unreadable(self, found: UnreadableRecord) -> set[StorePath]:
        """Note that a record cannot be read; returns its path, or nothing when the mapping does not select it."""
        if found.key is None:
            relative, word = self._relative(StorePath(found.path)), ""
        else:  # the key is no path, so it is only ever shown
            relative, word = StorePath(found.path), found.path
        if relative is None:
            return set()
        subtree = shown(self._mapping.store) if self._mapping.store else "/"
        mend = "" if found.sealing else f"; `configstore ls -R {subtree}` says what replaces or removes it"
        problem = Problem(path=relative, reason=f"{found.reason}{mend}", word=word, sealing=found.sealing)
        self._sides.note_unreadable(relative, problem, found.mod_revision)
        return {relative}

    def _take_vanished(self, item: Item) -> None:
        try:
            relative = self._relative(self._tree.keys.path_of_file(item.key))
        except PathError:
            return
        if relative is not None:
            self._sides.note_missing_record(relative)

    def _relative(self, path: StorePath, kind: Kind = Kind.GONE) -> StorePath | None:
        """Return the path relative to the subtree; None for the subtree itself and for what is not selected.

        A tombstone does not say whether the path was a file or a directory, so it is selected if either would be.
        """
        if path == self._mapping.store:
            return None
        relative = relative_to(path, self._mapping.store)
        known = self._sides.remote.get(relative)
        if known and known.entry.kind is kind:  # the selection never changes while the sidecar runs
            return relative
        possible = {Kind.GONE: (False, True), Kind.DIR: (True,)}.get(kind, (False,))
        return relative if any(self._mapping.selects(relative, is_dir=is_dir) for is_dir in possible) else None
