"""Sends a plan's pushes to the store, as sets. Called by the engine's thread only."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec

from configstore.errors import RefusedError, TooLargeError
from configstore.model.path import StorePath, join
from configstore.model.record import INLINE_MAX, Kind, split
from configstore.store.tree import Tree
from configstore.store.values import Fence, Stored, Write
from sidecar.planner.mapping import Mapping
from sidecar.planner.plan import Push
from sidecar.planner.sides import RemoteEntry

_BATCH = 4 * 1024 * 1024
"""Bytes of small content, which lies in the records, held in memory at once; larger content travels in pieces.
A set within one request's limit never reaches it."""


class Committed(msgspec.Struct, kw_only=True):
    """done: what was written, as it lies in the store now. stale: what the store holds where a compare failed.

    refused: what etcd takes in no transaction, and why. fenced_out: the lease was lost, and no more was written.
    """

    done: dict[StorePath, RemoteEntry] = {}
    stale: dict[StorePath, Stored | None] = {}
    refused: dict[StorePath, str] = {}
    fenced_out: bool = False


def commit(
    tree: Tree,
    mapping: Mapping,
    pushes: Sequence[Push],
    read: Callable[[Push], bytes | None],
    fence: Fence | None = None,
) -> Committed:
    """Write pushes in their order. `read` returns a file's content, or None for what has none.

    Stops at the first failed compare. A set that is too large for this etcd's own limits is taken apart. Raises
    what `read` and `Tree.commit` raise; what was written before that is found out by the watch.
    """
    if mapping.lease is not None and fence is None:
        raise RefusedError(f"{mapping.name}: not written without its lease {mapping.lease}")
    committed = Committed()
    # Chosen once: what a first try of a batch made is recognised when the batch is taken apart.
    write_ids = {push.path: tree.new_write_id() for push in pushes}
    todo = list(reversed(list(_batches(pushes))))
    while todo:
        batch = todo.pop()
        writes = [
            Write(
                path=join(mapping.store, push.path),
                entry=push.entry,
                content=partial(_pieces, read, push) if push.entry.kind is Kind.FILE else None,
                expected=push.expected,
                write_id=write_ids[push.path],
            )
            for push in batch
        ]
        try:
            outcome = tree.commit(writes, retention=mapping.retention, keep=mapping.keep, fence=fence)
        except TooLargeError as error:  # by this etcd's own limits
            if len(batch) == 1:
                committed.refused[batch[0].path] = str(error)
            else:
                todo += [[push] for push in reversed(batch)]
            continue
        for write, push in zip(writes, batch, strict=True):
            if write.path in outcome.done:
                committed.done[push.path] = RemoteEntry(
                    entry=push.entry,
                    mod_revision=outcome.done[write.path],
                    supersedes=push.expected,
                    write_id=outcome.write_ids[write.path],
                )
            if write.path in outcome.stale:
                committed.stale[push.path] = outcome.stale[write.path]
        if not outcome.complete:
            committed.fenced_out = outcome.fenced_out
            break
    return committed


def _pieces(read: Callable[[Push], bytes | None], push: Push) -> Iterator[bytes]:
    return split(read(push) or b"")


def _batches(pushes: Sequence[Push]) -> Iterator[list[Push]]:
    batch: list[Push] = []
    size = 0
    for push in pushes:
        weight = push.entry.size if push.entry.kind is Kind.FILE and push.entry.size <= INLINE_MAX else 0
        if batch and size + weight > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(push)
        size += weight
    if batch:
        yield batch
