"""Seals again what lies in the store, with the newest keys or not at all, and counts what is sealed with which.

Every change compares what it replaces. Nothing is remembered between two runs but what lies in the store: what is
not sealed as it should be is what is left to do, so that a run that was killed is gone on with by the next one.

- A current record keeps its origin, and supersedes the record that it replaces; that one goes to `past/`, sealed
  anew as well. So whoever looks for a write, or for what was superseded, finds it as before.
- A superseded record is replaced where it lies, under the lease that it has.
- A losing side gets the id that it has under the new key, under the lease that it has.
- Pieces of large content are sent under their new names first. The old ones go in the txn that replaces the last
  record which names them.
"""

import enum
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from configstore.errors import CorruptError, LeaseGoneError, TooLargeError
from configstore.model.keys import prefix_end, removal, shown_key
from configstore.model.path import ROOT, PathError, StorePath, shown
from configstore.model.record import Record, RecordError, decode
from configstore.model.seal import Keyring, SealedKind
from configstore.store.api import (
    MAX_OPERATIONS,
    ChangeLease,
    Compare,
    CreateRevision,
    Delete,
    Exists,
    Item,
    Kv,
    ModRevision,
    Operation,
    Put,
)
from configstore.store.chunks import Chunks
from configstore.store.conflicts import Loser, pieces_of
from configstore.store.envelope import Envelope, tells
from configstore.store.persist import persist
from configstore.store.retention import KEEP, surplus_past
from configstore.store.tree import Tree
from configstore.store.values import Stored

_PAGE = 20
"""Values that are in memory at a time."""

_KEYS = 1000
"""Keys likewise."""

_ATTEMPTS = 10
"""How often a value is looked at again that somebody else writes at the same time; then its next turn comes."""


class Family(enum.StrEnum):
    """Where a value lies."""

    FILES = "files"
    PAST = "past"
    CONFLICTS = "conflicts"


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """What may be sealed. name: which one of its path; strange: it lies under a key that no path has."""

    family: Family
    path: StorePath
    name: str = ""
    item: Item
    strange: bool = False

    @property
    def place(self) -> SealedKind:
        """As what it is sealed."""
        return SealedKind.CONFLICT if self.family is Family.CONFLICTS else SealedKind.RECORD

    def sealed_with(self) -> str:
        """Return the id of the key that it is sealed with; "" for none. Raises RecordError."""
        seal = decode(self.item.value).seal
        return seal.key if seal else ""

    def shown(self) -> str:
        """Return how it is named to a person."""
        at = shown_key(self.item.key) if self.strange else shown(self.path)
        return f"{at} ({self.name})" if self.name else at


def values(tree: Tree) -> Iterator[Value]:
    """Yield what may be sealed, each as it is when its turn comes, a few in memory. Raises StoreError."""
    keys = tree.keys
    for item in _now(tree.kv, *keys.files_below(ROOT)):
        try:
            yield Value(family=Family.FILES, path=keys.path_of_file(item.key), item=item)
        except PathError:
            yield Value(family=Family.FILES, path=ROOT, item=item, strange=True)
    for item in _now(tree.kv, *keys.past_range(ROOT)):
        try:
            path, revision = keys.path_of_past(item.key)
        except PathError:
            yield Value(family=Family.PAST, path=ROOT, item=item, strange=True)
        else:
            yield Value(family=Family.PAST, path=path, name=f"its record of revision {revision}", item=item)
    for path, found in _losing_sides(tree):
        for name in found:
            for item in tree.kv.range(keys.conflict(path, name)).items:
                yield Value(family=Family.CONFLICTS, path=path, name=f"its losing side {name}", item=item)


def _losing_sides(tree: Tree) -> Iterator[tuple[StorePath, list[str]]]:
    """Yield the ids of the losing sides of each path, the oldest first: their order is that of their making."""
    prefix = tree.keys.conflict_root()
    at: StorePath | None = None
    found: list[tuple[int, str]] = []
    for item in _now(tree.kv, prefix, prefix_end(prefix), keys_only=True):
        try:
            path, name = tree.keys.path_of_conflict(item.key)
        except PathError:  # a piece of its content
            continue
        if path != at and at is not None:
            yield at, [each for _, each in sorted(found)]
            found = []
        at = path
        found.append((item.create_revision, name))
    if at is not None:
        yield at, [each for _, each in sorted(found)]


def _now(kv: Kv, start: bytes, end: bytes, *, keys_only: bool = False) -> Iterator[Item]:
    """Yield what lies in a range, each page as it is when it is read: no compaction ends a long run."""
    limit = _KEYS if keys_only else _PAGE
    while True:
        try:
            page = kv.range(start, end, limit=limit, keys_only=keys_only)
        except TooLargeError:
            if limit == 1:
                raise
            limit = 1
            continue
        yield from page.items
        if not page.more:
            return
        if not page.items:
            raise CorruptError("the store announces more keys and shows none: is it an etcd that answers?")
        start = page.items[-1].key + b"\0"


class SealStanding(enum.StrEnum):
    """How a value stands to the keys that are known."""

    FINE = "fine"
    DUE = "due"
    UNKNOWN = "unknown"


def standing(ring: Keyring, path: StorePath, record: Record, *, unseal: bool = False) -> SealStanding:
    """Tell whether a value is to be sealed again. A directory, and a tombstone without a digest, may be plain."""
    if record.seal is None:
        return SealStanding.DUE if tells(record.entry) and not unseal else SealStanding.FINE
    if ring.find(record.seal.key, path) is None:
        return SealStanding.UNKNOWN
    newest = ring.for_writing(path)
    return SealStanding.DUE if unseal or newest is None or newest.id != record.seal.key else SealStanding.FINE


class SealSurvey(msgspec.Struct, kw_only=True):
    """What is sealed with which key. Counts are by family.

    keys: by the keys' ids. plain: what might be read by anybody who reads the store. due: how much is to be sealed
    again; unknown: how much no known key opens. unreadable: what is no record, with the reason, the first ones.
    """

    keys: dict[str, Counter[Family]] = {}
    plain: Counter[Family] = msgspec.field(default_factory=Counter)
    due: int = 0
    unknown: int = 0
    unreadable: dict[str, str] = {}

    def needs(self, key_id: str) -> bool:
        """Tell whether anything is sealed with a key."""
        return key_id in self.keys


NAMED = 100
"""Of so many values it is told why they cannot be read."""


def survey(
    tree: Tree, ring: Keyring | None, *, unseal: bool = False, step: Callable[[], None] = lambda: None
) -> SealSurvey:
    """Count what is sealed and what is plain, by the headers alone; `step` is called for each."""
    found = SealSurvey()
    ring = ring or Keyring(keys=())
    for value in values(tree):
        step()
        try:
            record = None if value.strange else decode(value.item.value)
            why = "a key that no path has"
        except RecordError as error:
            record, why = None, str(error)
        if record is None:
            if len(found.unreadable) < NAMED:
                found.unreadable[value.shown()] = why
            continue
        if record.seal:
            found.keys.setdefault(record.seal.key, Counter())[value.family] += 1
        elif standing(ring, value.path, record) is SealStanding.DUE:
            found.plain[value.family] += 1
        now = standing(ring, value.path, record, unseal=unseal)
        found.due += now is SealStanding.DUE
        found.unknown += now is SealStanding.UNKNOWN
    return found


class LeftError(Exception):
    """A value could not be sealed again; the text says why."""


class Resealing:
    """Seals again what is due. The envelopes of `tree` are lenient, and say how; see `values` for the order."""

    def __init__(
        self, tree: Tree, ring: Keyring, *, unseal: bool, retention: float, clock: Callable[[], float]
    ) -> None:
        """`retention`: seconds for which what a current record was stays. clock: as for `Tree`."""
        self._tree = tree
        self._kv = tree.kv
        self._keys = tree.keys
        self._ring = ring
        self._unseal = unseal
        self._retention = retention
        self._chunks = Chunks(tree.kv, tree.keys, clock=clock)
        self._names: dict[bytes, tuple[int, frozenset[str]]] = {}  # of the superseded records of one path
        self._names_of: StorePath | None = None

    def is_due(self, value: Value) -> bool:
        """Tell whether a value is to be sealed again. Raises LeftError: nobody can tell, or no key opens it."""
        if value.strange:
            raise LeftError(f"a key that no path has; `{removal(value.item.key)}` removes it")
        try:
            record = decode(value.item.value)
        except RecordError as error:
            raise LeftError(f"it cannot be read: {error}") from None
        now = standing(self._ring, value.path, record, unseal=self._unseal)
        if now is SealStanding.UNKNOWN and record.seal:
            raise LeftError(f"no key here opens it: it is sealed with the key {record.seal.key}")
        return now is SealStanding.DUE

    def opens(self, value: Value) -> bool:
        """Tell of what is due whether it opens, with all its pieces. Raises StoreError."""
        try:
            record = self._opened(value.path, value.item, value.place)
            for _ in self._pieces(value, record):
                pass
        except (LeftError, RecordError, CorruptError):
            return False
        return True

    def seal(self, value: Value) -> bool:
        """Seal a value again; tells whether there was need. Raises LeftError, StoreError."""
        for _ in range(_ATTEMPTS):
            if not self.is_due(value):
                return False
            why = ""
            try:
                if self._replace(value):
                    return True
            except LeaseGoneError:
                self._chunks.forget_leases()
            except (RecordError, CorruptError, TooLargeError) as error:
                why = str(error)
            items = self._kv.range(value.item.key).items
            if not items:
                return False
            if why and items[0].mod_revision == value.item.mod_revision:
                raise LeftError(why)
            value = msgspec.structs.replace(value, item=items[0])
        raise LeftError("somebody else writes it all the time")

    def _replace(self, value: Value) -> bool:
        record = self._opened(value.path, value.item, value.place)
        envelope = self._tree.envelopes.writing(value.path, value.place)
        if value.family is Family.CONFLICTS:
            compares, operations = self._side(value, record, envelope)
        else:
            compares, operations = self._record(value, record, envelope)
        return persist(self._kv, self._tree.patience, compares, operations, otherwise_get=()).succeeded

    def _opened(self, path: StorePath, item: Item, place: SealedKind) -> Record:
        record = self._tree.envelopes.decode(path, item.value, place)
        if record.locked:
            raise LeftError(record.locked)
        return record

    def _pieces(self, value: Value, record: Record) -> Iterator[bytes]:
        if value.family is Family.CONFLICTS:
            _, name = self._keys.path_of_conflict(value.item.key)
            return pieces_of(self._tree, Loser(path=value.path, id=name, record=record))
        return self._tree.pieces(Stored(path=value.path, record=record, mod_revision=value.item.mod_revision))

    # Records, current and superseded

    def _record(self, value: Value, record: Record, envelope: Envelope) -> tuple[list[Compare], list[Operation]]:
        path, item = value.path, value.item
        is_current = value.family is Family.FILES
        old, moved = frozenset(record.chunks), record
        if record.chunks:
            content, names = self._chunks.take(
                path, record.entry, partial(self._pieces, value, record), envelope=envelope
            )
            moved = msgspec.structs.replace(record, content=content, chunks=names)
        compares: list[Compare] = [ModRevision(item.key, item.mod_revision)]
        operations: list[Operation] = []
        if is_current:
            origin = msgspec.structs.replace(record.origin, supersedes=item.mod_revision)
            now = msgspec.structs.replace(moved, origin=origin)
            before = self._keys.past(path, item.mod_revision)
            operations.append(Put(item.key, envelope.encode(now), item.lease))
            lease = self._chunks.retention_lease(self._retention)
            operations.append(Put(before, envelope.encode(moved), lease))
        else:
            operations.append(Put(item.key, envelope.encode(moved), item.lease))
        if moved.chunks or old:
            more, settled = self._settle(value, frozenset(moved.chunks), old)
            compares += more
            operations += settled
        if is_current:
            surplus = surplus_past(self._kv, self._keys, path, item.version, KEEP)
            operations += surplus[: MAX_OPERATIONS - len(operations)]
        return compares, operations

    def _settle(
        self, value: Value, new: frozenset[str], old: frozenset[str]
    ) -> tuple[list[Compare], list[Operation]]:
        """Return what becomes of the pieces when a record names the new ones in place of the old ones.

        Whoever writes the path changes its current record: comparing that one, no other record can come to name an
        old piece meanwhile, nor can a new one have become the current record's own.
        """
        path = value.path
        is_current = value.family is Family.FILES
        compares: list[Compare] = []
        current = self._kv.range(self._keys.file(path)).items
        if not is_current:
            compares.append(ModRevision(self._keys.file(path), current[0].mod_revision if current else 0))
        used = self._named_elsewhere(path, value.item, current[0] if current and not is_current else None)
        prefix = self._keys.chunk(path, "")
        leases = {item.key: item.lease for item in _now(self._kv, prefix, prefix_end(prefix), keys_only=True)}
        lease = 0 if is_current else value.item.lease
        operations: list[Operation] = []
        for key in (self._keys.chunk(path, name) for name in sorted(new)):
            compares.append(Exists(key))
            has = leases.get(key, 0)
            if has and has != lease and (not lease or self._left(has) < self._left(lease)):
                operations.append(ChangeLease(key, lease))
        kept = [self._keys.chunk(path, name) for name in sorted((old & used) - new)]
        if is_current and kept:
            longest = self._chunks.longest_lease(path, self._retention)
            compares += [Exists(key) for key in kept]
            operations += [ChangeLease(key, longest) for key in kept]
        operations += [Delete(self._keys.chunk(path, name)) for name in sorted(old - used - new)]
        return compares, operations

    def _named_elsewhere(self, path: StorePath, item: Item, current: Item | None) -> set[str]:
        """Return the pieces that the other records of a path name, one of them in memory at a time."""
        if self._names_of != path:
            self._names, self._names_of = {}, path
        used: set[str] = set(self._chunks_of(path, current)) if current else set()
        prefix = self._keys.past_of(path)
        for each in _now(self._kv, prefix, prefix_end(prefix), keys_only=True):
            if each.key == item.key:
                continue
            known = self._names.get(each.key)
            if known is None or known[0] != each.mod_revision:
                found = self._kv.range(each.key).items
                if not found:
                    continue
                known = found[0].mod_revision, self._chunks_of(path, found[0])
                self._names[each.key] = known
            used |= known[1]
        return used

    def _chunks_of(self, path: StorePath, item: Item) -> frozenset[str]:
        """Return the pieces that a record names; of one that does not open none: its key gave them other names."""
        try:
            return frozenset(self._tree.envelopes.decode(path, item.value).chunks)
        except RecordError:
            return frozenset()

    def _left(self, lease: int) -> float:
        try:
            return self._kv.lease_left(lease) if lease else math.inf
        except LeaseGoneError:
            return 0.0

    # Losing sides

    def _side(self, value: Value, record: Record, envelope: Envelope) -> tuple[list[Compare], list[Operation]]:
        path, item = value.path, value.item
        _, old = self._keys.path_of_conflict(item.key)
        new = envelope.loser(record.entry)
        key, pieces = self._keys.conflict(path, new), self._keys.conflict_chunk(path, new, "")
        compares: list[Compare] = [ModRevision(item.key, item.mod_revision)]
        operations: list[Operation] = []
        if key == item.key or not self._kv.range(key, keys_only=True).items:
            moved = record
            if record.chunks:
                there = _now(self._kv, pieces, prefix_end(pieces), keys_only=True)
                names = self._chunks.upload(
                    record.entry,
                    partial(self._pieces, value, record),
                    lambda name: self._keys.conflict_chunk(path, new, name),
                    envelope=envelope,
                    there={each.key: each.lease for each in there},
                    lease=lambda: item.lease,
                )
                compares += [Exists(self._keys.conflict_chunk(path, new, name)) for name in sorted(set(names))]
                moved = msgspec.structs.replace(record, chunks=names)
            if key != item.key:
                compares.append(CreateRevision(key, 0))
            operations.append(Put(key, envelope.encode(moved), item.lease))
        else:
            compares.append(Exists(key))  # a replica has kept it anew already
        if key != item.key:
            below = self._keys.conflict_chunk(path, old, "")
            doomed = [each.key for each in _now(self._kv, below, prefix_end(below), keys_only=True)]
            operations += [Delete(item.key), *(Delete(each) for each in doomed)]
        return compares, operations[:MAX_OPERATIONS]
