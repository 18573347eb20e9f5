"""Every value that may be sealed, and with which key each is. Called by `resealing` and by `configstore seal`."""

import enum
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from configstore.errors import CorruptError, TooLargeError
from configstore.model.keys import prefix_end, shown_key
from configstore.model.path import ROOT, PathError, StorePath, shown
from configstore.model.record import Record, RecordError, decode
from configstore.model.seal import Keyring, SealedKind
from configstore.store.api import Item, Kv
from configstore.store.envelope import tells
from configstore.store.store import Store

_PAGE = 20
"""Values that are in memory at a time."""

_KEYS = 1000
"""Keys that are in memory at a time."""

NAMED = 100
"""Unreadable values whose reason is kept."""


class Family(enum.StrEnum):
    """The family of keys in which a value is stored."""

    FILES = "files"
    PAST = "past"
    CONFLICTS = "conflicts"


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A value that may be sealed.

    name: which of its path's values it is, as text. strange: no path has its key.
    """

    family: Family
    path: StorePath
    name: str = ""
    item: Item
    strange: bool = False

    @property
    def place(self) -> SealedKind:
        """The kind as which it is sealed."""
        return SealedKind.CONFLICT if self.family is Family.CONFLICTS else SealedKind.RECORD

    def sealed_with(self) -> str:
        """Return the id of the key that it is sealed with; "" for none. Raises RecordError."""
        seal = decode(self.item.value).seal
        return seal.key if seal else ""

    def shown(self) -> str:
        """Return its path and name for a person."""
        at = shown_key(self.item.key) if self.strange else shown(self.path)
        return f"{at} ({self.name})" if self.name else at


def values(store: Store) -> Iterator[Value]:
    """Yield every value that may be sealed, as it is when its turn comes, a few in memory. Raises StoreError."""
    keys = store.keys
    for item in current_items(store.kv, *keys.files_below(ROOT)):
        try:
            yield Value(family=Family.FILES, path=keys.path_of_file(item.key), item=item)
        except PathError:
            yield Value(family=Family.FILES, path=ROOT, item=item, strange=True)
    for item in current_items(store.kv, *keys.past_range(ROOT)):
        try:
            path, revision = keys.path_of_past(item.key)
        except PathError:
            yield Value(family=Family.PAST, path=ROOT, item=item, strange=True)
        else:
            yield Value(family=Family.PAST, path=path, name=f"its record of revision {revision}", item=item)
    for path, found in _losing_sides(store):
        for name in found:
            for item in store.kv.range(keys.conflict(path, name)).items:
                yield Value(family=Family.CONFLICTS, path=path, name=f"its losing side {name}", item=item)


def _losing_sides(store: Store) -> Iterator[tuple[StorePath, list[str]]]:
    """Yield the ids of each path's losing sides, the oldest first, so that they are sealed again in that order.

    The order in which they were made is all that says which of them is the oldest.
    """
    prefix = store.keys.conflict_root()
    at: StorePath | None = None
    found: list[tuple[int, str]] = []
    for item in current_items(store.kv, prefix, prefix_end(prefix), keys_only=True):
        try:
            path, name = store.keys.path_of_conflict(item.key)
        except PathError:  # the key of a piece of its content
            continue
        if path != at and at is not None:
            yield at, [each for _, each in sorted(found)]
            found = []
        at = path
        found.append((item.create_revision, name))
    if at is not None:
        yield at, [each for _, each in sorted(found)]


def current_items(kv: Kv, start: bytes, end: bytes, *, keys_only: bool = False) -> Iterator[Item]:
    """Yield the items of a range, each page as it is when it is read, so that no compaction ends a long run."""
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


class SealState(enum.StrEnum):
    """Whether a value must be sealed again: no, yes, or no known key opens it."""

    FINE = "fine"
    DUE = "due"
    UNKNOWN = "unknown"


def seal_state(ring: Keyring, path: StorePath, record: Record, *, unseal: bool = False) -> SealState:
    """Return whether a value must be sealed again. A directory, and a tombstone without a digest, may be plain."""
    if record.seal is None:
        return SealState.DUE if tells(record.entry) and not unseal else SealState.FINE
    if ring.find(record.seal.key, path) is None:
        return SealState.UNKNOWN
    newest = ring.for_writing(path)
    return SealState.DUE if unseal or newest is None or newest.id != record.seal.key else SealState.FINE


class SealCounts(msgspec.Struct, kw_only=True):
    """How many values are sealed with which key.

    keys: by the key's id and the family. plain: values by family that anybody who reads the store can read.
    due: values that must be sealed again. unknown: values that no known key opens.
    unreadable: the first NAMED values that are no record, with the reason.
    """

    keys: dict[str, Counter[Family]] = {}
    plain: Counter[Family] = msgspec.field(default_factory=Counter)
    due: int = 0
    unknown: int = 0
    unreadable: dict[str, str] = {}

    def needs(self, key_id: str) -> bool:
        """Return whether anything is sealed with a key."""
        return key_id in self.keys


def count_seals(
    store: Store, ring: Keyring | None, *, unseal: bool = False, step: Callable[[], None] = lambda: None
) -> SealCounts:
    """Count what is sealed and what is plain, by headers alone; `step` is called for each. Raises StoreError."""
    found = SealCounts()
    ring = ring or Keyring(keys=())
    for value in values(store):
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
        elif seal_state(ring, value.path, record) is SealState.DUE:
            found.plain[value.family] += 1
        state = seal_state(ring, value.path, record, unseal=unseal)
        found.due += state is SealState.DUE
        found.unknown += state is SealState.UNKNOWN
    return found
