"""Values of the contract into etcd's messages and back.

Fields that etcd gained after etcd3's last release are unknown to its descriptors. protobuf keeps and sends
unknown fields, so they are written as bytes and read by their numbers (etcd api/etcdserverpb/rpc.proto).
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.unknown_fields import UnknownFieldSet

from configstore.store.api import (
    Compare,
    CreateRevision,
    Delete,
    Event,
    Item,
    ModRevision,
    Operation,
    Page,
    Put,
    Status,
    TxnResult,
)
from configstore.store.etcd.stubs import Message, rpc

_ABSENT_FROM = 0  # an absent key's create_revision and mod_revision

_CREATE_FRAGMENT = b"\x40\x01"  # WatchCreateRequest.fragment = true: field 8, a varint
_FRAGMENT = 7  # WatchResponse.fragment
_ERRORS, _DB_IN_USE, _LEARNER, _QUOTA = 8, 9, 10, 12  # of StatusResponse; the last from etcd 3.6 on
_ALARM = re.compile(r"alarm:\s*(\w+)")


def watch_create_request(key: bytes, range_end: bytes, start_revision: int) -> Message:
    """Return the request for a watch that reports progress, with large answers in several parts."""
    request = rpc.WatchCreateRequest(
        key=key, range_end=range_end, start_revision=start_revision, progress_notify=True
    )
    request.MergeFromString(_CREATE_FRAGMENT)
    return request


def is_fragment(answer: Message) -> bool:
    """Tell whether more of a watch's answer follows."""
    return any(_unknown(answer, _FRAGMENT))


def status_of(answer: Message) -> Status:
    """Read a StatusResponse."""
    errors = [text.decode(errors="replace") for text in _unknown(answer, _ERRORS)]
    quota = next(_unknown(answer, _QUOTA), None)
    return Status(
        cluster_id=answer.header.cluster_id,
        member_id=answer.header.member_id,
        version=answer.version,
        revision=answer.header.revision,
        db_size=answer.dbSize,
        leader=answer.leader,
        alarms=tuple(dict.fromkeys(name for text in errors for name in _ALARM.findall(text))),
        db_in_use=next(_unknown(answer, _DB_IN_USE), 0),
        quota=quota if quota is None or quota < 1 << 63 else 0,  # a negative number switches it off
        raft_index=answer.raftIndex,
        raft_term=answer.raftTerm,
        learner=any(_unknown(answer, _LEARNER)),
    )


def _unknown(answer: Message, number: int) -> Iterator[Message]:
    fields: Iterable[Message] = UnknownFieldSet(answer)  # type: ignore[assignment]  # its stub lacks __iter__
    return (field.data for field in fields if field.field_number == number)


def item_of(stored: Message) -> Item:
    """Read an mvccpb.KeyValue."""
    return Item(
        key=stored.key,
        value=stored.value,
        create_revision=stored.create_revision,
        mod_revision=stored.mod_revision,
        version=stored.version,
        lease=stored.lease,
    )


def page_of(answer: Message) -> Page:
    """Read a RangeResponse."""
    return Page(
        items=tuple(item_of(stored) for stored in answer.kvs),
        revision=answer.header.revision,
        cluster_id=answer.header.cluster_id,
        more=answer.more,
    )


def events_of(events: Iterable[Message]) -> tuple[Event, ...]:
    """Read mvccpb.Events; type 0 is PUT, 1 is DELETE."""
    return tuple(Event(item=item_of(event.kv), deleted=event.type == 1) for event in events)


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


def txn_result_of(answer: Message) -> TxnResult:
    """Read a TxnResponse."""
    found: tuple[Item, ...] = ()
    if not answer.succeeded:
        found = tuple(item_of(stored) for one in answer.responses for stored in one.response_range.kvs)
    return TxnResult(succeeded=answer.succeeded, revision=answer.header.revision, found=found)
