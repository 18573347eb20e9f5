"""What a path was, and a directory as it was: the superseded records under `past/` together with the current ones.

They are ordinary keys, so all of this works after etcd was compacted, as long as the retention lasts.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from itertools import chain, takewhile

import msgspec

from configstore.errors import CompactedError, RefusedError
from configstore.model.path import PathError, StorePath, depth
from configstore.model.record import Entry, Kind, RecordError
from configstore.store.api import Item, range_all
from configstore.store.items import decode_superseded
from configstore.store.tree import Tree
from configstore.store.values import Stored, UnreadableRecord, Write


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a path, oldest first; the last is the current record, if there is one.

    created: the revision at which the path was first written, 0 where that is not known. current: the mod_revision
    that it has now, 0 where no record is left but superseded ones: it was deleted, and the tombstone has expired.
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
        """What was written, oldest first: of a write that was sealed again since, its newest record alone."""
        following = [*self.known[1:], None]
        return tuple(each for each, after in zip(self.known, following, strict=True) if not _is_one(each, after))

    def began(self, found: Stored | UnreadableRecord) -> int:
        """Return the mod_revision that a write had at first; a later one where that is not kept."""
        before = [each for each in self.known if each.mod_revision <= found.mod_revision]
        same = takewhile(lambda each: each is found or _is_one(each, found), reversed(before))
        return min(each.mod_revision for each in same)

    @property
    def newest(self) -> int:
        """The revision of the newest record that is known."""
        return self.known[-1].mod_revision


def _is_one(one: Stored | UnreadableRecord, other: Stored | UnreadableRecord | None) -> bool:
    """Tell whether two records are of one write: sealing again keeps its id."""
    return (
        isinstance(one, Stored)
        and isinstance(other, Stored)
        and one.record.origin.write_id == other.record.origin.write_id
    )


class ExpiredError(LookupError):
    """A superseded record is not kept any more: its retention ended, or many newer ones came."""


def record_written_at(tree: Tree, path: StorePath, revision: int) -> Stored | UnreadableRecord | None:
    """Return the record that was written to a path at just this revision; None when another write has it.

    Raises ExpiredError when that is too long ago to be known, FutureRevisionError when the store has not come that
    far, StoreError.
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
    """Return what is known of one path; None when it was never written. Raises StoreError."""
    return versions_below(tree, path, alone=True).get(path)


def versions_below(tree: Tree, directory: StorePath, *, alone: bool = False) -> dict[StorePath, Versions]:
    """Return what is known of a directory and of every path below it, all at one revision. Raises StoreError.

    alone: only of `directory` itself, be it a file or not.
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
    """Return what is known of a path that has superseded records alone."""
    first = known[0]
    created = first.mod_revision if isinstance(first, Stored) and not first.record.origin.supersedes else 0
    return Versions(path=path, created=created, current=0, known=tuple(known))


def revision_at(found: dict[StorePath, Versions], moment: datetime) -> int:
    """Return the newest revision whose record was written at `moment` or before, by its writer's clock; else 0.

    `moment` has a time zone. A record whose time cannot be read does not count. One that was sealed again says
    when it was written, and so counts by the revision that it had then.
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
    """Yield the writes that bring paths back to what they were at a store revision; their content is read later.

    What did not exist then is deleted; what is the same still is left out, be it readable or not. So is what was
    deleted so long ago that nobody knows whether it existed then.
    Raises ExpiredError, RecordError, RefusedError (no key opens what it was), StoreError.
    """
    later = {
        path: versions
        for path, versions in found.items()
        if versions.current > revision or (not versions.current and versions.newest >= revision)
    }
    wanted = {path: versions.at(revision) for path, versions in later.items()}  # before any content is read
    for path, then in sorted(wanted.items(), key=lambda pair: _order(*pair)):
        now = found[path].now()
        before = now if isinstance(now, Stored) else None
        if then and then.record.locked:
            raise RefusedError(f"{path}: {then.record.locked}; nothing was changed")
        entry = then.entry if then else _tombstone(before)
        if before and (before.entry == entry or (before.gone and entry.kind is Kind.GONE)):
            continue
        content = partial(tree.pieces, then) if then and entry.kind is Kind.FILE else None
        yield Write(path=path, entry=entry, content=content, expected=found[path].current, previous=before)


def _tombstone(before: Stored | None) -> Entry:
    return Entry(
        kind=Kind.GONE, size=before.entry.size if before else 0, sha256=before.entry.sha256 if before else ""
    )


def _order(path: StorePath, then: Stored | None) -> tuple[int, int, StorePath]:
    """Directories first, then files, then links; deletes last, the deepest first."""
    if then is None or then.gone:
        return 3, -depth(path), path
    return {Kind.DIR: 0, Kind.FILE: 1}.get(then.entry.kind, 2), depth(path), path
