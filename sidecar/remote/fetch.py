"""Turns what the watch saw into the remote side that the planner compares, and fetches content to apply.

Called by the engine's thread only.
"""

from collections.abc import Iterable
from collections.abc import Mapping as Map

from configstore.errors import StoreError
from configstore.model.path import ROOT, PathError, StorePath, parse_path, relative_to
from configstore.model.record import Kind
from configstore.store.api import Batch, Item
from configstore.store.survey import Survey, survey
from configstore.store.tree import Bad, Listing, Stored, Tree
from sidecar.planner.mapping import Mapping
from sidecar.planner.planner import Sides
from sidecar.planner.sides import Problem, RemoteEntry
from sidecar.remote.lineage import contradiction


class RemoteSide:
    """Keeps `sides.remote` and `sides.remote_problems` at what the store holds, and content until applied."""

    def __init__(self, tree: Tree, mapping: Mapping, sides: Sides) -> None:
        self._tree = tree
        self._mapping = mapping
        self._sides = sides
        self._recent: dict[StorePath, Stored] = {}
        self._news: list[Listing | Batch] = []  # what came in and waits until it is known who answered
        self._verified = 0
        self.revision = 0
        self.listed = False
        self.root_exists = False
        self.went_back: str | None = None

    def absorb(self, seen: Iterable[Listing | Batch]) -> set[StorePath]:
        """Take in what the watch delivered; returns the paths (relative) whose remote side changed.

        After a connection was made, the store is looked at first: when it is not the one that was known, nothing
        is taken in, and `went_back` says why. Raises StoreError; the news then wait for the next call.
        """
        self._news += seen
        if any(isinstance(news, Batch) and news.connected for news in self._news):
            self._survey()
        news, self._news = self._news, []
        changed: set[StorePath] = set()
        for each in news:
            if isinstance(each, Listing):
                changed |= self._absorb_listing(each)
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
        self._verified = self.revision = 0
        self.listed = False
        self.went_back = None

    def verify(self) -> bool:
        """Compare what the watch told with the store; returns whether it must be listed again.

        Raises StoreError.
        """
        now, verified = self._survey(), self._verified
        self._verified = self.revision
        for path, revision in now.mod_revisions.items():
            relative = self._relative(path)
            known = self._sides.remote.get(relative) if relative is not None else None
            if relative is not None and (known.mod_revision if known else verified) < revision <= self.revision:
                return True
        missing = self._sides.remote.keys() - {
            relative_to(path, self._mapping.store) for path in now.mod_revisions
        }
        return any(self._sides.remote[path].mod_revision <= now.revision for path in missing)

    def _survey(self) -> Survey:
        now = survey(self._tree.kv, self._tree.keys, self._mapping.store)
        why = self._contradiction(now.revision, now.cluster_id, now.mod_revisions)
        self.went_back = self.went_back or why  # only a listing ends it: what came in meanwhile was not taken in
        return now

    def _contradiction(self, revision: int, cluster_id: int, found: Map[StorePath, int]) -> str | None:
        """Return why this is not the store that was known, or None."""
        sides = self._sides
        known = {path: agreed.mod_revision for path, agreed in sides.baseline.items()}
        known |= {path: max(known.get(path, 0), remote.mod_revision) for path, remote in sides.remote.items()}
        return contradiction(
            known=known,
            seen=max([self.revision, *known.values()]),
            cluster_id=sides.cluster_id,
            found={relative_to(path, self._mapping.store): at for path, at in found.items()},
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

    def _absorb_listing(self, listing: Listing) -> set[StorePath]:
        sides = self._sides
        self.went_back = self._contradiction(
            listing.revision,
            listing.cluster_id,
            {path: found.mod_revision for path, found in listing.records.items() if path != self._mapping.store},
        )
        if self.went_back:
            return set()
        self.listed = True
        self._verified = listing.revision
        sides.cluster_id = listing.cluster_id
        self.root_exists = self._mapping.store == ROOT or (
            self._mapping.store in listing.records and listing.records[self._mapping.store].entry.kind is Kind.DIR
        )
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
        for event in batch.events:
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

    def _take(self, path: StorePath, found: Stored) -> bool:
        known = self._sides.remote.get(path)
        cleared = self._sides.remote_problems.pop(path, None) is not None
        if known and known.mod_revision >= found.mod_revision:
            return cleared
        self._sides.remote[path] = RemoteEntry(entry=found.entry, mod_revision=found.mod_revision)
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
