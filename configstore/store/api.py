"""The contract of a connection to the store: the part of etcd's model that configstore needs.

`etcd.EtcdKv` implements it; so does the reference store of tests and simulation (tests/memory_store). One suite,
tests/store/test_kv_contract.py, passes on both. On purpose there is no plain put: every write is a `txn` that
compares.

Revisions are store-wide and grow by one with every txn that changes something. Errors are those of
`configstore.errors`; each method names them. Any call may also raise StoreUnavailableError, PermissionDeniedError
or AuthenticationError, and CorruptError when the server reports lost data.
"""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import msgspec

from configstore.errors import CorruptError, StoreError, TooLargeError
from configstore.model.keys import prefix_end

if TYPE_CHECKING:  # sidecars have no use for them
    from configstore.store.accounts import Accounts


class Item(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One key with its value.

    create_revision: the revision at which the key was created; the latest such one if it was deleted in between.
    mod_revision: the revision of its last change, which a compare-and-swap compares.
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
        """Show everything but the value: it may be a private key, and tracebacks show this text."""
        return (
            f"Item({self.key!r}, <{len(self.value)} bytes>, mod_revision={self.mod_revision}, lease={self.lease})"
        )


class ModRevision(msgspec.Struct, frozen=True):
    """Compare: the key was last changed at `revision`; 0 means that it does not exist."""

    key: bytes
    revision: int


class CreateRevision(msgspec.Struct, frozen=True):
    """Compare: the key was created at `revision`; 0 means that it does not exist. Fencing uses this."""

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
    """A part of a range, sorted by key. more: whether keys follow after the last one."""

    items: tuple[Item, ...]
    revision: int
    cluster_id: int = 0
    more: bool = False


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A change that a watch reports. For a deleted key `item.value` is empty and `deleted` true."""

    item: Item
    deleted: bool = False


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """All events of one or more whole revisions, in order; never a part of a revision.

    revision: all changes in the range up to this revision have been reported now. A batch without events is a sign
    of life and of progress. connected: a connection was made, so it may be another store that answers.
    """

    revision: int
    events: tuple[Event, ...] = ()
    connected: bool = False


class Watch(Protocol):
    """A running watch. Iterating blocks until the next batch and ends after `close`.

    It survives restarts and failovers of the server: no change is lost, repeated or reordered. Raises
    CompactedError when changes that it has not reported yet were compacted (list, then watch again), and
    FutureRevisionError when the store's revision went backwards.
    """

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches until closed."""
        ...

    def close(self) -> None:
        """End it, from any thread; a blocked iteration returns."""
        ...


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of the member that answered. Sizes in bytes; `version` such as `3.5.16`.

    db_size: of the database's file, which the quota limits. db_in_use: the size after a defragmentation.
    quota: None if the member does not report it (before etcd 3.6), 0 for none.
    raft_index, raft_term: the member's position in etcd's log, and the term of its leader. learner: it has no
    vote.
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
    """Whether the store answers writes and linearizable reads.

    A refusal counts as an answer; the answer of a single member that has lost the others does not.
    connected: the last answer came a few seconds ago at most; False before the first one. last: when it came, in
    seconds since 1970 by this machine's time of day, for people; 0.0 for never. silent: seconds since then, or
    since the connection was made, those of a suspend included. reason: why no answer came since; empty while
    connected.
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

        StoreUnavailableError leaves open whether it was made. It is sent **once**: only the caller can know what
        makes it safe to send it again (see `persist.persist`).
        Raises TooLargeError (over 128 compares or operations, or too many bytes), NoSpaceError, LeaseGoneError
        (an operation names a lease that is gone), ValueError (one key written twice).
        """
        ...

    def watch(self, start: bytes, end: bytes, *, start_revision: int, aside: bool = False) -> Watch:
        """Watch [start, end) from `start_revision` (inclusive) on; returns at once and connects in the background.

        aside: changes are rare and need not be reported quickly; in return, many such watches cost the store
        little.
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

    def login(self) -> bool:
        """Log in as the configured user; returns False without one, or with access control switched off.

        Raises AuthenticationError.
        """
        ...

    @property
    def accounts(self) -> "Accounts":
        """The store's users and roles."""
        ...

    def contact(self) -> Contact:
        """Return whether the store answers, by what is known already: nothing is sent.

        While no watch runs and `follow_contact` was not called, the connection asks for no sign of life, so the
        last answer may be old only because nothing was asked.
        """
        ...

    def follow_contact(self, told: Callable[[Contact], None]) -> None:
        """From now on, ask for a sign of life whenever nothing else is heard, and report each change.

        `told` is called in a thread of the connection's, within 5 s of the store falling silent, and once it
        answers again. There is one follower at a time.
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
"""Bytes of keys and values in one request, at most; etcd's default limit is 1.5 MiB."""

LONGEST_PAGE = 1000
"""Keys of a page, at most."""

FIRST_PAGE = 100
"""Keys of the first page; the size of the later ones is computed from the bytes of the one before."""

PAGE_BYTES = 1024 * 1024
"""Bytes of keys and values that a page should have: all of it is in memory, several times over."""

MAX_KEYS = 1_000_000
"""Keys of one range, at most; a replica does not have the memory for more."""


def items_below(kv: Kv, prefix: bytes, *, keys_only: bool = False) -> Iterator[Item]:
    """Yield the items of all keys that begin with `prefix`, read at one revision. Raises as `range_all` does."""
    for page in range_all(kv, prefix, prefix_end(prefix), keys_only=keys_only):
        yield from page.items


def range_all(kv: Kv, start: bytes, end: bytes, *, revision: int = 0, keys_only: bool = False) -> Iterator[Page]:
    """Read a range in pages of bounded size, all at the revision of the first one.

    Raises what `Kv.range` raises, of which a CompactedError means to begin again; StoreError when there are more
    than MAX_KEYS keys; CorruptError when the server announces more keys and does not send any.
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
