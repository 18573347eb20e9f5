"""The contract of a key-value store as configstore needs it: etcd's model, and nothing more of it.

`memory.MemoryKv` is the reference for tests and simulation, `etcd.EtcdKv` the real one; one contract suite
(tests/store/test_kv_contract.py) passes on both. There is no plain put on purpose: every write is a `txn` that
compares.

Revisions are store-wide and grow by one with every txn that changes something. Errors are those of
`configstore.errors`; each method says which. Any call may raise StoreUnavailableError, PermissionDeniedError
or AuthenticationError, and CorruptError when the server says that it lost data.
"""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

import msgspec

from configstore.errors import CorruptError, StoreError, TooLargeError


class Item(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One key with its value.

    create_revision: the revision at which the key came into being (again).
    mod_revision: that of its last change; what a compare-and-swap compares.
    version: number of writes since it was created.
    lease: id of the etcd lease whose end deletes the key; 0 for none.
    """

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int = 1
    lease: int = 0

    def __repr__(self) -> str:
        """Show everything but the value: it may hold a private key, and a traceback may show us."""
        return (
            f"Item({self.key!r}, <{len(self.value)} bytes>, mod_revision={self.mod_revision}, lease={self.lease})"
        )


class ModRevision(msgspec.Struct, frozen=True):
    """Compare: the key was last changed at `revision`; 0 means that it does not exist."""

    key: bytes
    revision: int


class CreateRevision(msgspec.Struct, frozen=True):
    """Compare: the key came into being at `revision`; 0 means that it does not exist. Fencing uses this."""

    key: bytes
    revision: int


class Exists(msgspec.Struct, frozen=True):
    """Compare: the key exists, at whatever revision."""

    key: bytes


class ValueEquals(msgspec.Struct, frozen=True):
    """Compare: the key holds a value."""

    key: bytes
    value: bytes


Compare = ModRevision | CreateRevision | Exists | ValueEquals


class Put(msgspec.Struct, frozen=True):
    """Operation: write a value; `lease` (0 for none) becomes the key's lease."""

    key: bytes
    value: bytes
    lease: int = 0

    def __repr__(self) -> str:
        """Show everything but the value."""
        return f"Put({self.key!r}, <{len(self.value)} bytes>, lease={self.lease})"


class ChangeLease(msgspec.Struct, frozen=True):
    """Operation: give an existing key another lease (0 for none) without sending its value again.

    etcd calls this a put with `ignore_value`. On an absent key the whole txn fails: compare `Exists` first.
    """

    key: bytes
    lease: int = 0


class Delete(msgspec.Struct, frozen=True):
    """Operation: remove one key; removing an absent key is no error and no change."""

    key: bytes


Operation = Put | ChangeLease | Delete


class TxnResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a txn.

    succeeded: whether all compares held and the operations were made.
    revision: the store's revision after it; on success that of everything it wrote.
    found: when it did not succeed, the current items of the keys in `otherwise_get`, absent ones left out.
    """

    succeeded: bool
    revision: int
    found: tuple[Item, ...] = ()


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a range, sorted by key. `more` says that keys follow after the last one."""

    items: tuple[Item, ...]
    revision: int
    cluster_id: int = 0
    more: bool = False


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A change seen by a watch. For a deleted key `item.value` is empty and `deleted` true."""

    item: Item
    deleted: bool = False


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """All events of one or more whole revisions, in order; never a part of a revision.

    revision: everything in the range up to this revision has now been seen. With no events it is a sign of
    life and progress. connected: a connection was made, so what answers may be another store than before.
    """

    revision: int
    events: tuple[Event, ...] = ()
    connected: bool = False


class Watch(Protocol):
    """A running watch. Iterating blocks until the next batch and ends after `close`.

    It survives restarts and failovers of the server by itself: nothing is lost, repeated or reordered. Raises
    CompactedError when revisions it still had to deliver are gone (list, then watch again), and
    FutureRevisionError when the store's revision went backwards.
    """

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches until closed."""
        ...

    def close(self) -> None:
        """End it, from any thread; a blocked iteration returns."""
        ...


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the answering member says of itself. Sizes in bytes; `version` such as `3.5.16`.

    db_size: of the database's file, which is what the quota limits. db_in_use: what a defragmentation would leave.
    quota: None where the member does not say (before etcd 3.6), 0 for none.
    raft_index, raft_term: how far the member is in the log, and in whose reign. learner: it has no vote yet.
    """

    cluster_id: int
    member_id: int
    version: str
    revision: int
    db_size: int = 0
    leader: int = 0
    alarms: tuple[str, ...] = ()
    db_in_use: int = 0
    quota: int | None = None
    raft_index: int = 0
    raft_term: int = 0
    learner: bool = False


class Contact(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the store can be worked with: whether writes and linearizable reads are answered.

    A refusal is an answer. What a single member says while it has lost the others is none.
    connected: the last answer came a few seconds ago at most; False before the first one. last: when it came, in
    seconds since 1970 by this machine's time of day, for people; 0.0 for never. silent: seconds since then, or
    without one since the connection was made, those of a suspend included. reason: why there was none since; empty
    while connected.
    """

    connected: bool
    last: float
    silent: float = 0.0
    reason: str = ""


class Kv(Protocol):
    """A connection to the store. Safe for use by several threads."""

    def range(
        self,
        start: bytes,
        end: bytes | None = None,
        *,
        revision: int = 0,
        limit: int = 0,
        keys_only: bool = False,
    ) -> Page:
        """Read one key, or with `end` the keys of [start, end), sorted.

        revision: read as of that revision (0: the latest; linearizable). limit: at most so many items (0: all).
        keys_only leaves values empty.
        Raises CompactedError, FutureRevisionError.
        """
        ...

    def txn(
        self,
        compares: Sequence[Compare],
        operations: Sequence[Operation],
        *,
        otherwise_get: Sequence[bytes] = (),
    ) -> TxnResult:
        """Make all operations at once if all compares hold; else none, and read `otherwise_get`.

        StoreUnavailableError leaves open whether it was made. It is tried **once**: whoever calls repeats it
        with what makes a repetition safe (see `tree.Tree.commit`).
        Raises TooLargeError (over 128 compares or operations, or too many bytes), NoSpaceError, LeaseGoneError
        (an operation names a lease that is gone), ValueError (one key written twice).
        """
        ...

    def watch(self, start: bytes, end: bytes, *, start_revision: int, aside: bool = False) -> Watch:
        """Watch [start, end) from `start_revision` (inclusive) on; returns at once and connects by itself.

        aside: it seldom hears anything and need not be quick: what many of them cost the store is kept small.
        """
        ...

    def lease_grant(self, ttl: int) -> int:
        """Make a lease of `ttl` seconds and return its id."""
        ...

    def lease_keepalive(self, lease: int) -> int:
        """Renew a lease once; returns its new TTL in seconds. Raises LeaseGoneError."""
        ...

    def lease_left(self, lease: int) -> int:
        """Return how many seconds a lease has left. Raises LeaseGoneError."""
        ...

    def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys. Raises LeaseGoneError."""
        ...

    def status(self) -> MemberStatus:
        """Ask the member in use about itself."""
        ...

    def contact(self) -> Contact:
        """Tell whether the store answers, at once and from what is known: nothing is sent.

        Where neither a watch runs nor `follow_contact` was called, nobody asks the store for a sign of life, and
        its last answer may be old for want of a question.
        """
        ...

    def follow_contact(self, told: Callable[[Contact], None]) -> None:
        """From now on, ask for a sign of life where nothing else is heard, and tell what changes.

        `told` is called, from a thread of the connection's, within 5 s of the store falling silent, and once it
        answers again. One follower at a time.
        """
        ...

    def close(self) -> None:
        """End connections and watches."""
        ...

    def __enter__(self) -> Self:
        """Return itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...


MAX_OPERATIONS = 128
"""etcd's default `--max-txn-ops`, for compares and for operations alike."""

MAX_REQUEST = 1024 * 1024
"""Bytes of keys and values that we put into one request; etcd's default limit is 1.5 MiB."""


LONGEST_PAGE = 1000
"""Keys of a page at most."""

FIRST_PAGE = 100
"""Keys of a first page, from which the size of those that follow is reckoned."""

PAGE_BYTES = 1024 * 1024
"""Bytes of keys and values that a page shall have: it is in memory as a whole, several times over."""

MAX_KEYS = 1_000_000
"""Keys of one range; more of them no replica has the memory for."""


def range_all(kv: Kv, start: bytes, end: bytes, *, revision: int = 0, keys_only: bool = False) -> Iterator[Page]:
    """Read a whole range in pages, all of one revision, and each of a bounded size.

    The first page fixes the revision. Raises what `Kv.range` raises; a CompactedError in the middle means to
    begin again. StoreError: there are more than MAX_KEYS. CorruptError: the server announces more and does not go
    on.
    """
    limit = FIRST_PAGE
    keys = 0
    while True:
        try:
            page = kv.range(start, end, revision=revision, limit=limit, keys_only=keys_only)
        except TooLargeError:
            if limit == 1:
                raise
            limit = max(1, limit // 4)
            continue
        keys += len(page.items)
        if keys > MAX_KEYS:
            raise StoreError(f"more than {MAX_KEYS} keys below one prefix of the store")
        yield page
        if not page.more:
            return
        after = page.items[-1].key + b"\0" if page.items else start
        if after <= start:
            raise CorruptError("the store announces more keys and shows none: is it an etcd that answers?")
        size = sum(1 + len(item.key) + len(item.value) for item in page.items)
        limit = max(1, min(LONGEST_PAGE, PAGE_BYTES * len(page.items) // size))
        revision, start = revision or page.revision, after
