"""Turns what the watch saw into the remote side that the planner compares, and fetches content to apply.

Called by the engine's thread only.
"""

from collections.abc import Iterable
from collections.abc import Mapping as Map

from configstore.errors import FutureRevisionError, StoreError
from configstore.model.path import ROOT, PathError, StorePath, parse_path, relative_to
from configstore.model.record import Kind
from configstore.store.api import Batch, Item
from configstore.store.history import ExpiredError, record_written_at
from configstore.store.survey import survey
from configstore.store.tree import Tree
from configstore.store.values import Bad, Listing, Stored
from sidecar.planner.mapping import Mapping
from sidecar.planner.planner import Sides
from sidecar.planner.sides import Problem, RemoteEntry
from sidecar.remote.lineage import contradiction, given_away, rewritten


class RemoteSide:
    """Keeps `sides.remote` and `sides.remote_problems` at what the store holds, and content until applied."""

    def __init__(self, tree: Tree, mapping: Mapping, sides: Sides) -> None:
        self._tree = tree
        self._mapping = mapping
        self._sides = sides
        self._recent: dict[StorePath, Stored] = {}
        self._news: list[Listing | Batch] = []  # what came in and waits until it is known who answered
        self.revision = 0
        self.listed = False
        self.stale = False  # something was missed, so a new listing is needed
        self._unseen: dict[StorePath, int] = {}  # what the store held and the watch had not told, last time
        self.root_exists = False
        self.root_deleted = False  # by a tombstone: what it left is pulled, and nothing pushed any more
        self.root_taken = False  # by something else than a directory
        self.went_back: str | None = None

    def absorb(self, seen: Iterable[Listing | Batch]) -> set[StorePath]:
        """Take in what the watch delivered; returns the paths (relative) whose remote side changed.

        After a connection was made, the store is looked at first: when it is not the one that was known, nothing
        is taken in, and `went_back` says why. Raises StoreError; the news then wait for the next call.
        """
        self._news += seen
        history: str | None = None
        connected = any(isinstance(news, Batch) and news.connected for news in self._news)
        if connected or any(isinstance(news, Listing) for news in self._news):
            history = self._rewritten()
        if connected:
            self.verify()
            self.went_back = self.went_back or history
        news, self._news = self._news, []
        changed: set[StorePath] = set()
        for each in news:
            if isinstance(each, Listing):
                changed |= self._absorb_listing(each, history)
            elif not self.went_back:
                changed |= self._absorb_batch(each)
            if not self.went_back:
                self.revision = max(self.revision, each.revision)
        return changed

    def begin_anew(self) -> None:
        """Forget the store that was known; the next listing is believed, whatever it says."""
        self._sides.remote.clear()
        self._sides.remote_problems.clear()
        self._sides.cluster_id = 0
        self._recent.clear()
        self._news.clear()
        self.revision = 0
        self.listed = self.stale = False
        self.went_back = None

    def verify(self) -> None:
        """Compare what the watch told with the store; `stale` or `went_back` then tell what is wrong.

        Raises StoreError.
        """
        now = survey(self._tree.kv, self._tree.keys, self._mapping.store)
        found = {relative_to(path, self._mapping.store): at for path, at in now.mod_revisions.items()}
        why = self._contradiction(now.revision, now.cluster_id, found)
        self.went_back = self.went_back or why  # only a listing ends it: what came in meanwhile was not taken in
        self.stale = self.stale or self._missed(found, now.revision)

    @property
    def doubtful(self) -> bool:
        """Whether the store holds what the watch has not told yet: verify again soon."""
        return bool(self._unseen) and not self.stale

    def _missed(self, found: Map[StorePath, int], revision: int) -> bool:
        """Tell whether the watch has kept something to itself that it should have told by now."""
        remote = self._sides.remote
        before, self._unseen = (
            self._unseen,
            {
                path: at
                for path, at in found.items()
                if (remote[path].mod_revision if path in remote else 0) < at and self._selects(path)
            },
        )
        late = any(at <= self.revision or before.get(path) == at for path, at in self._unseen.items())
        return late or any(known.mod_revision <= revision for path, known in remote.items() if path not in found)

    def _selects(self, path: StorePath) -> bool:
        return path not in self._sides.remote_problems and self._relative(self._absolute(path)) is not None

    def _rewritten(self) -> str | None:
        """Return why the store's history is not the one that was known, or None.

        The newest known record tells: after a restore from before it, its revision was given to another write.
        """
        known = self._known()
        if not known:
            return None
        path = max(known, key=lambda each: (known[each].mod_revision, each))
        try:
            found = record_written_at(self._tree, self._absolute(path), known[path].mod_revision)
        except (FutureRevisionError, ExpiredError):
            return None  # `_contradiction` says the former better
        if found is None:
            return given_away(path, known[path].mod_revision, self._mapping.name)
        return rewritten(known, {path: found} if isinstance(found, Stored) else {}, self._mapping.name)

    def _known(self) -> dict[StorePath, RemoteEntry]:
        """Return the newest record of each path that was seen, or agreed on before this start."""
        known = {
            path: RemoteEntry(entry=agreed.remote, mod_revision=agreed.mod_revision, write_id=agreed.write_id)
            for path, agreed in self._sides.baseline.items()
        }
        for path, remote in self._sides.remote.items():
            if path not in known or known[path].mod_revision < remote.mod_revision:
                known[path] = remote
        return known

    def _contradiction(self, revision: int, cluster_id: int, found: Map[StorePath, int]) -> str | None:
        """Return why this is not the store that was known, or None."""
        sides = self._sides
        known = {path: remote.mod_revision for path, remote in self._known().items()}
        return contradiction(
            known=known,
            seen=max([self.revision, *known.values()]),
            cluster_id=sides.cluster_id,
            found=found,
            revision=revision,
            found_cluster_id=cluster_id,
            mapping=self._mapping.name,
        )

    def content(self, path: StorePath, wanted: RemoteEntry) -> bytes | None:
        """Return the content of a record version; None when the store holds another version by now.

        Raises StoreError, RecordError.
        """
        found = self._recent.get(path)
        if not found or found.mod_revision != wanted.mod_revision:
            found = self._tree.read(self._absolute(path))
        if not found or found.mod_revision != wanted.mod_revision:
            return None
        try:
            return self._tree.content(found)
        except StoreError:
            now = self._tree.read(found.path)
            if now and now.mod_revision == found.mod_revision:
                raise
            return None  # superseded while it was read, so its chunks are gone

    def remembers(self, path: StorePath, mod_revision: int) -> bool:
        """Tell whether the store still has the record that a path had at a revision. Raises StoreError."""
        return self._tree.remembers(self._absolute(path), mod_revision)

    def written(self, path: StorePath, entry: RemoteEntry) -> None:
        """Note our own commit, before the watch reports it."""
        known = self._sides.remote.get(path)
        if not known or known.mod_revision < entry.mod_revision:
            self._sides.remote[path] = entry

    def learn(self, path: StorePath, found: Stored | None) -> None:
        """Note what a failed compare found instead of what was believed."""
        if found:
            self._take(path, found)
        else:
            self._sides.remote.pop(path, None)

    def release(self, paths: Iterable[StorePath]) -> None:
        """Forget content that has been applied."""
        for path in paths:
            self._recent.pop(path, None)

    def _absorb_listing(self, listing: Listing, history: str | None) -> set[StorePath]:
        sides = self._sides
        below = {
            relative_to(path, self._mapping.store): found
            for path, found in listing.records.items()
            if path != self._mapping.store
        }
        why = (
            history
            or self._contradiction(
                listing.revision, listing.cluster_id, {path: found.mod_revision for path, found in below.items()}
            )
            or rewritten(self._known(), below, self._mapping.name)
        )
        self.went_back = why and (self.went_back or why)  # whoever chooses has read the first one
        if why:
            return set()
        self.listed, self.stale = True, False
        self._unseen.clear()
        sides.cluster_id = listing.cluster_id
        unreadable = (bad for bad in listing.bad if bad.path == self._mapping.store)
        self._take_top(listing.records.get(self._mapping.store) or next(unreadable, None))
        self.root_exists |= self._mapping.store == ROOT and bool(listing.records)
        before = dict(sides.remote)
        changed = set(sides.remote_problems)
        sides.remote_problems.clear()
        for path, found in listing.records.items():
            relative = self._relative(path, found.entry.kind)
            if relative is not None and self._take(relative, found):
                changed.add(relative)
            if relative is not None:
                before.pop(relative, None)
        for path, known in before.items():
            if known.mod_revision <= listing.revision:
                del sides.remote[path]
                changed.add(path)
        for bad in listing.bad:
            changed |= self._take_bad(bad)
        return changed

    def _absorb_batch(self, batch: Batch) -> set[StorePath]:
        changed: set[StorePath] = set()
        top = self._tree.keys.file(self._mapping.store)
        below, _ = self._tree.keys.files_below(self._mapping.store)
        for event in batch.events:
            if event.item.key == top:
                self._take_top(None if event.deleted else self._tree.decode_item(event.item))
            if not event.item.key.startswith(below):
                continue  # a neighbour whose name begins alike
            if event.deleted:
                changed |= self._take_vanished(event.item)
                continue
            found = self._tree.decode_item(event.item)
            if isinstance(found, Bad):
                changed |= self._take_bad(found)
                continue
            relative = self._relative(found.path, found.entry.kind)
            if relative is not None and self._take(relative, found):
                changed.add(relative)
        return changed

    def _take_top(self, found: Stored | Bad | None) -> None:
        """Note whether the subtree has its root."""
        self.root_exists = _is(Kind.DIR, found)
        self.root_deleted = _is(Kind.GONE, found)
        self.root_taken = found is not None and not (self.root_exists or self.root_deleted)

    def _take(self, path: StorePath, found: Stored) -> bool:
        known = self._sides.remote.get(path)
        cleared = self._sides.remote_problems.pop(path, None) is not None
        if known and known.mod_revision >= found.mod_revision:
            return cleared
        self._sides.remote[path] = RemoteEntry(
            entry=found.entry,
            mod_revision=found.mod_revision,
            supersedes=found.record.origin.supersedes,
            write_id=found.record.origin.write_id,
        )
        if found.record.content is not None:
            self._recent[path] = found
        return True

    def _take_bad(self, bad: Bad) -> set[StorePath]:
        try:
            relative = self._relative(parse_path(bad.path))
        except PathError:
            relative = StorePath(bad.path)  # only ever shown
        if relative is None:
            return set()
        self._sides.remote_problems[relative] = Problem(path=bad.path, reason=bad.reason)
        return {relative}

    def _take_vanished(self, item: Item) -> set[StorePath]:
        try:
            relative = self._relative(self._tree.keys.path_of_file(item.key))
        except PathError:
            return set()
        if relative is None:
            return set()
        self._sides.remote.pop(relative, None)
        self._sides.remote_problems.pop(relative, None)
        return {relative}

    def _relative(self, path: StorePath, kind: Kind = Kind.GONE) -> StorePath | None:
        """Return the path as the mapping sees it; None for its root and for what it does not select.

        What a deleted path was is not known any more, so it may have been either.
        """
        if path == self._mapping.store:
            return None
        relative = relative_to(path, self._mapping.store)
        possible = {Kind.GONE: (False, True), Kind.DIR: (True,)}.get(kind, (False,))
        return relative if any(self._mapping.selects(relative, is_dir=is_dir) for is_dir in possible) else None

    def _absolute(self, path: StorePath) -> StorePath:
        return StorePath(f"{self._mapping.store}/{path}" if self._mapping.store else path)


def _is(kind: Kind, found: Stored | Bad | None) -> bool:
    return isinstance(found, Stored) and found.entry.kind is kind
