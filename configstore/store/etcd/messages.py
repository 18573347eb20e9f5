"""Translates values of the contract into etcd's messages and back. Called by `client`, `watch` and `accounts`.

Fields that etcd gained after etcd3's last release are unknown to its descriptors. protobuf keeps and sends unknown
fields, so they are written as bytes and read by their numbers (etcd api/etcdserverpb/rpc.proto).

Every answer is checked before it is used: one that no etcd gives raises a StoreError here, so that it cannot cause
an endless loop or a crash later.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from google.protobuf.unknown_fields import UnknownFieldSet

from configstore.errors import StoreError
from configstore.model.path import printable
from configstore.store.api import (
    Compare,
    CreateRevision,
    Delete,
    Event,
    Item,
    MemberStatus,
    ModRevision,
    Operation,
    Page,
    Put,
    TxnResult,
    ValueEquals,
)
from configstore.store.etcd.stubs import Message, rpc

T = TypeVar("T")

_UNBOUNDED = b"\0"  # etcd: a range to the end of the key space
_ABSENT_FROM = 0  # an absent key's create_revision and mod_revision

_CREATE_FRAGMENT = b"\x40\x01"  # WatchCreateRequest.fragment = true: field 8, a varint
_FRAGMENT = 7  # WatchResponse.fragment
_ERRORS, _DB_IN_USE, _LEARNER, _QUOTA = 8, 9, 10, 12  # of StatusResponse; the last from etcd 3.6 on
_ALARM = re.compile(r"alarm:\s*(\w+)")

MAX_REVISION = 2**62
"""A revision that no store reaches, and so far below etcd's own limit that adding to it does not overflow."""

MAX_TTL = 10 * 366 * 86400
"""Seconds of a lease in an answer, at most."""

_MAX_VERSION = 64


def nonsense(what: str) -> StoreError:
    """Return the error for an answer that no etcd gives."""
    return StoreError(f"the server's answer makes no sense: {what}. Is it etcd that answers there, and unharmed?")


def revision_of(answer: Message) -> int:
    """Return the store's revision from an answer's header. Raises StoreError."""
    revision = int(answer.header.revision)
    if not 0 < revision <= MAX_REVISION:
        raise nonsense(f"the store's revision is {revision}")
    return revision


def ttl_of(answer: Message) -> int:
    """Return a lease's seconds from an answer, 0 or less for a lease that is gone. Raises StoreError."""
    if answer.TTL > MAX_TTL:
        raise nonsense(f"a lease of {answer.TTL} seconds")
    return int(answer.TTL)


def watch_create_request(key: bytes, range_end: bytes, start_revision: int) -> Message:
    """Return the request for a watch that reports progress and splits large answers."""
    request = rpc.WatchCreateRequest(
        key=key, range_end=range_end, start_revision=start_revision, progress_notify=True
    )
    request.MergeFromString(_CREATE_FRAGMENT)
    return request


def is_fragment(answer: Message) -> bool:
    """Return whether more of a watch's answer follows."""
    return any(_unknown(answer, _FRAGMENT, int))


def status_of(answer: Message) -> MemberStatus:
    """Return the value of a StatusResponse."""
    errors = [text.decode(errors="replace") for text in _unknown(answer, _ERRORS, bytes)]
    quota = next(_unknown(answer, _QUOTA, int), None)
    return MemberStatus(
        cluster_id=answer.header.cluster_id,
        member_id=answer.header.member_id,
        version=printable(answer.version[:_MAX_VERSION]),
        revision=answer.header.revision,
        db_size=answer.dbSize,
        leader=answer.leader,
        alarms=tuple(dict.fromkeys(name for text in errors for name in _ALARM.findall(text))),
        db_in_use=next(_unknown(answer, _DB_IN_USE, int), 0),
        quota=quota if quota is None or quota < 1 << 63 else 0,  # a negative number switches it off
        raft_index=answer.raftIndex,
        raft_term=answer.raftTerm,
        learner=any(_unknown(answer, _LEARNER, int)),
    )


def _unknown(answer: Message, number: int, kind: type[T]) -> Iterator[T]:
    fields: Iterable[Message] = UnknownFieldSet(answer)  # type: ignore[assignment]  # its stub lacks __iter__
    return (field.data for field in fields if field.field_number == number and isinstance(field.data, kind))


def item_of(stored: Message, *, until: int = MAX_REVISION) -> Item:
    """Return the value of an mvccpb.KeyValue that exists at the store's revision `until`. Raises StoreError."""
    if not 0 < stored.create_revision <= stored.mod_revision <= until or stored.version < 1:
        raise nonsense(
            f"a key of revisions {stored.create_revision} and {stored.mod_revision} and version {stored.version},"
            f" in a store at revision {until}"
        )
    return _item(stored)


def _item(stored: Message) -> Item:
    return Item(
        key=stored.key,
        value=stored.value,
        create_revision=stored.create_revision,
        mod_revision=stored.mod_revision,
        version=stored.version,
        lease=stored.lease,
    )


def page_of(answer: Message, start: bytes, end: bytes | None, limit: int) -> Page:
    """Return the value of a RangeResponse for [start, end), or for the key `start` alone. Raises StoreError.

    Its keys are checked to ascend within the range, so that reading page after page comes to an end.
    """
    revision = revision_of(answer)
    items = tuple(item_of(stored, until=revision) for stored in answer.kvs)
    if answer.more and not items:
        raise nonsense("more keys follow after none")
    if len(items) > (limit or len(items)):
        raise nonsense(f"{len(items)} keys where {limit} were asked for at most")
    before = None
    for item in items:
        if not (item.key == start if end is None else _within(item.key, start, end)):
            raise nonsense("a key that was not asked for")
        if before is not None and item.key <= before:
            raise nonsense("keys out of order")
        before = item.key
    return Page(items=items, revision=revision, cluster_id=answer.header.cluster_id, more=answer.more)


def _within(key: bytes, start: bytes, end: bytes) -> bool:
    return start <= key and (end == _UNBOUNDED or key < end)


def events_of(answer: Message, start: bytes, end: bytes, since: int) -> tuple[Event, ...]:
    """Return the values of a watch's mvccpb.Events on [start, end); type 0 is PUT, 1 is DELETE. Raises StoreError.

    Their revisions are checked to ascend from `since` on.
    """
    events = []
    for event in answer.events:
        deleted = event.type == 1
        item = _item(event.kv) if deleted else item_of(event.kv)
        if not _within(item.key, start, end):
            raise nonsense("a change of a key that is not watched")
        if not since <= item.mod_revision <= MAX_REVISION:
            raise nonsense(f"a change at revision {item.mod_revision} after one at {since} was seen")
        since = item.mod_revision
        events.append(Event(item=item, deleted=deleted))
    return tuple(events)


def compare_message(compare: Compare) -> Message:
    """Build an etcdserverpb.Compare."""
    if isinstance(compare, ModRevision):
        return rpc.Compare(
            result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=compare.key, mod_revision=compare.revision
        )
    if isinstance(compare, CreateRevision):
        return rpc.Compare(
            result=rpc.Compare.EQUAL, target=rpc.Compare.CREATE, key=compare.key, create_revision=compare.revision
        )
    if isinstance(compare, ValueEquals):
        return rpc.Compare(
            result=rpc.Compare.EQUAL, target=rpc.Compare.VALUE, key=compare.key, value=compare.value
        )
    return rpc.Compare(
        result=rpc.Compare.GREATER, target=rpc.Compare.CREATE, key=compare.key, create_revision=_ABSENT_FROM
    )


def operation_message(operation: Operation) -> Message:
    """Build an etcdserverpb.RequestOp."""
    if isinstance(operation, Delete):
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=operation.key))
    if isinstance(operation, Put):
        put = rpc.PutRequest(key=operation.key, value=operation.value, lease=operation.lease)
    else:
        put = rpc.PutRequest(key=operation.key, lease=operation.lease, ignore_value=True)
    return rpc.RequestOp(request_put=put)


def txn_message(
    compares: Sequence[Compare], operations: Sequence[Operation], otherwise_get: Sequence[bytes]
) -> Message:
    """Build a TxnRequest."""
    return rpc.TxnRequest(
        compare=[compare_message(compare) for compare in compares],
        success=[operation_message(operation) for operation in operations],
        failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=key)) for key in otherwise_get],
    )


def txn_result_of(answer: Message, otherwise_get: Sequence[bytes]) -> TxnResult:
    """Return the value of a TxnResponse, of which `otherwise_get` were the keys to read. Raises StoreError."""
    revision = revision_of(answer)
    found: tuple[Item, ...] = ()
    if not answer.succeeded:
        items = (stored for one in answer.responses for stored in one.response_range.kvs)
        found = tuple(item_of(stored, until=revision) for stored in items)
    if len(found) > len(otherwise_get) or not {item.key for item in found} <= set(otherwise_get):
        raise nonsense("a key that was not asked for")
    return TxnResult(succeeded=answer.succeeded, revision=revision, found=found)
