"""The history of a path or a directory: its superseded records under `past/` together with the current ones.

They are ordinary keys, so history survives a compaction of etcd, until their retention ends. Called by the
commands.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from itertools import chain, takewhile

import msgspec

from configstore.errors import CompactedError, RefusedError
from configstore.model.path import PathError, StorePath
from configstore.model.record import Kind, RecordError, placing_order, tombstone
from configstore.store.api import Item, range_all
from configstore.store.items import decode_superseded
from configstore.store.tree import Tree
from configstore.store.values import Stored, UnreadableRecord, Write


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """All known records of a path, oldest first; the last is the current one, if there is one.

    created: the revision at which the path was first written, 0 if that is not known. current: its mod_revision, 0
    if only superseded records are left because it was deleted and its tombstone has expired.
    """

    path: StorePath
    created: int
    current: int
    known: tuple[Stored | UnreadableRecord, ...]

    def at(self, revision: int) -> Stored | None:
        """Return the path's record as of a store revision; None when there was none yet.

        Raises ExpiredError when it is not kept any more, RecordError when it cannot be read.
        """
        before = [each for each in self.known if each.mod_revision <= revision]
        if not before:
            if self.created <= revision:
                raise ExpiredError(f"{self.path}: its record of revision {revision} is not kept any more")
            return None
        found = before[-1]
        if not self.current and revision > self.known[-1].mod_revision:
            raise ExpiredError(f"{self.path}: when it was deleted after revision {found.mod_revision} is not kept")
        after = self.known[len(before)] if len(before) < len(self.known) else None
        if after and not (isinstance(after, Stored) and after.record.origin.supersedes == found.mod_revision):
            raise ExpiredError(f"{self.path}: its record of revision {revision} is not kept any more")
        if isinstance(found, UnreadableRecord):
            raise RecordError(f"{self.path}: unreadable record at revision {found.mod_revision}: {found.reason}")
        return found

    def now(self) -> Stored | UnreadableRecord | None:
        """Return the current record; None where there is none any more."""
        return self.known[-1] if self.current else None

    @property
    def writes(self) -> tuple["Stored | UnreadableRecord", ...]:
        """The records of writes, oldest first; of a write that was sealed again since, the newest record alone."""
        following = [*self.known[1:], None]
        return tuple(each for each, after in zip(self.known, following, strict=True) if not _is_one(each, after))

    def began(self, found: Stored | UnreadableRecord) -> int:
        """Return the mod_revision that a write had at first, or the oldest that is kept if it was sealed again."""
        before = [each for each in self.known if each.mod_revision <= found.mod_revision]
        same = takewhile(lambda each: each is found or _is_one(each, found), reversed(before))
        return min(each.mod_revision for each in same)

    @property
    def newest(self) -> int:
        """The mod_revision of the newest known record."""
        return self.known[-1].mod_revision


def _is_one(one: Stored | UnreadableRecord, other: Stored | UnreadableRecord | None) -> bool:
    """Return whether two records are of one write, whose id stays the same when it is sealed again."""
    return (
        isinstance(one, Stored)
        and isinstance(other, Stored)
        and one.record.origin.write_id == other.record.origin.write_id
    )


class ExpiredError(LookupError):
    """A superseded record is not kept any more: its retention ended, or there are too many newer ones."""


def record_written_at(tree: Tree, path: StorePath, revision: int) -> Stored | UnreadableRecord | None:
    """Return the record that was written to a path at exactly this revision; None if it was another path's write.

    Raises ExpiredError when it is not kept any more, FutureRevisionError when the store has not reached the
    revision, StoreError.
    """
    try:
        found = tree.kv.range(tree.keys.file(path), revision=revision).items
    except CompactedError:
        found = tree.kv.range(tree.keys.file(path)).items
        if not found or found[0].mod_revision != revision:
            kept = tree.kv.range(tree.keys.past(path, revision)).items
            if not kept:
                raise ExpiredError(f"{path}: its record of revision {revision} is not kept any more") from None
            return decode_superseded(tree.keys, tree.envelopes, kept[0])
    return tree.decode_item(found[0]) if found and found[0].mod_revision == revision else None


def versions(tree: Tree, path: StorePath) -> Versions | None:
    """Return the known records of one path; None if it was never written. Raises StoreError."""
    return versions_below(tree, path, alone=True).get(path)


def versions_below(tree: Tree, directory: StorePath, *, alone: bool = False) -> dict[StorePath, Versions]:
    """Return the known records of a directory and of every path below it, at one revision. Raises StoreError.

    alone: only those of `directory` itself, which may be a file.
    """
    own = tree.kv.range(tree.keys.file(directory))
    revision = own.revision
    current = list(own.items) if directory else []
    past_range = tree.keys.past_range(directory, alone=alone)
    if not alone:
        below = range_all(tree.kv, *tree.keys.files_below(directory), revision=revision)
        current += [item for page in below for item in page.items]
    past: dict[StorePath, list[Stored | UnreadableRecord]] = {}
    for item in chain.from_iterable(page.items for page in range_all(tree.kv, *past_range, revision=revision)):
        found = decode_superseded(tree.keys, tree.envelopes, item)
        if found:
            past.setdefault(StorePath(found.path), []).append(found)
    made = {each.path: each for item in current if (each := _versions(tree, item, past))}
    return made | {path: _deleted(path, known) for path, known in past.items() if path not in made}


def _versions(tree: Tree, item: Item, past: dict[StorePath, list[Stored | UnreadableRecord]]) -> Versions | None:
    try:
        path = tree.keys.path_of_file(item.key)
    except PathError:
        return None  # no command can name it
    known = (*past.get(path, ()), tree.decode_item(item))
    return Versions(path=path, created=item.create_revision, current=item.mod_revision, known=known)


def _deleted(path: StorePath, known: list[Stored | UnreadableRecord]) -> Versions:
    """Return the known records of a path that has no current one."""
    first = known[0]
    created = first.mod_revision if isinstance(first, Stored) and not first.record.origin.supersedes else 0
    return Versions(path=path, created=created, current=0, known=tuple(known))


def revision_at(found: dict[StorePath, Versions], moment: datetime) -> int:
    """Return the newest revision whose record was written at `moment` or before, by its writer's clock; else 0.

    `moment` has a time zone. A record whose time is unreadable does not count. A record that was sealed again
    keeps the time of its write, so it counts with the revision that it had then.
    """
    records = (
        (versions, each) for versions in found.values() for each in versions.writes if isinstance(each, Stored)
    )
    return max((versions.began(each) for versions, each in records if _written(each, moment)), default=0)


def _written(found: Stored, moment: datetime) -> bool:
    try:
        return datetime.fromisoformat(found.record.origin.time) <= moment
    except (ValueError, TypeError):  # no time, or one without a zone
        return False


def restoring(tree: Tree, found: dict[StorePath, Versions], revision: int) -> Iterator[Write]:
    """Yield the writes that restore paths as they were at a store revision; their content is read later.

    A path that did not exist then is deleted. Left out are paths that are still the same, readable or not, and
    paths that were deleted so long ago that it is not known whether they existed.
    Raises ExpiredError, RecordError, RefusedError (no key opens the record of then), StoreError.
    """
    later = {
        path: versions
        for path, versions in found.items()
        if versions.current > revision or (not versions.current and versions.newest >= revision)
    }
    wanted = {path: versions.at(revision) for path, versions in later.items()}  # before any content is read
    for path, then in sorted(wanted.items(), key=_order):
        now = found[path].now()
        before = now if isinstance(now, Stored) else None
        if then and then.record.locked:
            raise RefusedError(f"{path}: {then.record.locked}; nothing was changed")
        entry = then.entry if then else tombstone(before.entry if before else None)
        if before and (before.entry == entry or (before.gone and entry.kind is Kind.GONE)):
            continue
        content = partial(tree.pieces, then) if then and entry.kind is Kind.FILE else None
        yield Write(path=path, entry=entry, content=content, expected=found[path].current, previous=before)


def _order(pair: tuple[StorePath, Stored | None]) -> tuple[int, int, StorePath]:
    path, then = pair
    return placing_order(path, then.entry.kind if then else Kind.GONE)
