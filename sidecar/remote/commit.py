"""Sends a plan's pushes to the store, as sets. Called by `push` in the engine's thread only."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from configstore.errors import RefusedError, StoreError, TooLargeError
from configstore.model.path import StorePath, ancestors, parent
from configstore.model.problem import Problem
from configstore.model.record import INLINE_MAX, Kind, RecordError, Source
from configstore.store.api import Item
from configstore.store.envelope import NEED_SEAL, SealingError
from configstore.store.tree import Tree
from configstore.store.values import Fence, Outcome, Stored, Write
from sidecar.mapping import Mapping
from sidecar.planner.plan import Push
from sidecar.planner.sides import RemoteEntry
from sidecar.planner.three_sides import UNKNOWN_SET

_BATCH = 4 * 1024 * 1024
"""Bytes of small files that are held in memory at once. A set within one request's limit never reaches it; larger
files are sent piece by piece and do not count."""


class PathFailed(Exception):  # noqa: N818  # becomes a value
    """A path could not be read for sending. problem: why; None when it is just not what it was any more."""

    def __init__(self, path: StorePath, problem: Problem | None) -> None:
        super().__init__(path)
        self.path = path
        self.problem = problem


class Committed(msgspec.Struct, kw_only=True):
    """done: what was written, as it lies in the store now. stale: what the store holds where a compare failed.

    unsure: what may have been written all the same. refused: what cannot be written at all, and why. failed:
    paths that could not be read, and why. left: paths that were not written, since a set is sent as a whole or
    since another write came first. fenced_out: the lease was lost, and no more was written. failure: why the store
    took no more.
    """

    done: dict[StorePath, RemoteEntry] = {}
    stale: dict[StorePath, Stored | None] = {}
    refused: dict[StorePath, str] = {}
    failed: dict[StorePath, Problem | None] = {}
    left: set[StorePath] = set()
    unsure: set[StorePath] = set()
    fenced_out: bool = False
    failure: StoreError | None = None


def commit(
    tree: Tree,
    mapping: Mapping,
    pushes: Sequence[Push],
    write_ids: dict[StorePath, str],
    source: Callable[[Push], Source | None],
    *,
    fence: Fence | None = None,
    alone: AbstractSet[StorePath] = frozenset(),
    at_hand: Callable[[StorePath, int], Item | None] = lambda *_: None,
) -> Committed:
    """Write pushes in their order; what became of each is in the result.

    at_hand: returns what lies at a path since a revision, where that is known. source: returns what gives a file's
    content, which raises PathFailed. alone: paths that no other waits for.
    Stops at the first failed compare. A set that is too large for this etcd's own limits is taken apart.
    """
    if mapping.lease is not None and fence is None:
        raise RefusedError(f"{mapping.name}: not written without its lease {mapping.lease}")
    committed = Committed()
    todo = list(reversed(list(_batches(_sealable(tree, mapping, pushes, alone, committed)))))
    while batch := _next(todo, committed):
        sets = _sets(batch)
        writes = [
            _write(
                push,
                mapping,
                write_ids[push.path],
                source(push),
                together=together,
                replaced=at_hand(push.path, push.expected),
            )
            for push, together in zip(batch, sets, strict=True)
        ]
        try:
            outcome = _send(tree, writes, mapping, fence)
        except PathFailed as failure:
            rest = _without(batch, failure, alone, committed)
            todo += [rest] if rest else []
            continue
        except SealingError as error:
            if len(batch) == 1 or _is_one_set(batch):  # no set is taken apart for want of a key
                committed.refused |= {push.path: str(error) for push in batch}
            else:
                todo.extend(reversed(list(_parts(batch))))
            continue
        except (TooLargeError, RecordError) as error:  # by this etcd's own limits; what makes no record
            if len(batch) == 1:
                committed.refused[batch[0].path] = str(error)
            todo += reversed(list(_parts(batch)))
            continue
        except StoreError as error:
            committed.failure = error
            reached = Outcome(
                done={StorePath(path): at for path, at in error.done.items()},
                unsure=tuple(map(StorePath, error.unknown)),
            )
            _take(reached, zip(writes, batch, strict=True), committed)
            committed.left |= {push.path for batch in todo for push in batch}
            return committed
        _take(outcome, zip(writes, batch, strict=True), committed)
        if not outcome.complete:
            committed.fenced_out = outcome.fenced_out
            committed.left |= {push.path for batch in todo for push in batch}
            return committed
    return committed


def _send(tree: Tree, writes: Sequence[Write], mapping: Mapping, fence: Fence | None) -> Outcome:
    """Commit writes; without comparing what they replace where that is too large: no set is cut for it."""
    try:
        return tree.commit(writes, retention=mapping.retention, keep=mapping.keep, fence=fence)
    except TooLargeError:
        if not any(write.replaced for write in writes):
            raise
        bare = [msgspec.structs.replace(write, replaced=None) for write in writes]
        return tree.commit(bare, retention=mapping.retention, keep=mapping.keep, fence=fence)


def _sealable(
    tree: Tree, mapping: Mapping, pushes: Sequence[Push], alone: AbstractSet[StorePath], committed: Committed
) -> list[Push]:
    """Return what can be sealed as the policy wants it. Without the key for one of a set, none of it is sent."""
    rest = list(pushes)
    for push in pushes:
        try:
            if push.entry.kind in NEED_SEAL:
                tree.envelopes.writing(mapping.absolute(push.path))
        except SealingError as error:
            problem = Problem(path=push.path, reason=str(error), sealing=True)
            rest = _without(rest, PathFailed(push.path, problem), alone, committed)
    committed.left -= committed.failed.keys()
    return rest


def _take(outcome: Outcome, writes: Iterable[tuple[Write, Push]], committed: Committed) -> None:
    for write, push in writes:
        if write.path in outcome.done:
            committed.done[push.path] = _as_written(push, outcome.done[write.path], write.write_id)
        else:
            committed.left.add(push.path)
        if write.path in outcome.stale:
            committed.stale[push.path] = outcome.stale[write.path]
        if write.path in outcome.unsure:
            committed.unsure.add(push.path)


def _sets(batch: Sequence[Push]) -> list[int]:
    """Return for each push a number that those have which go into one txn.

    What was changed while nobody looked is of no known set. A txn that must be cut is then cut between
    directories, since what lies in one, such as a certificate and its key, is most likely to belong together.
    """
    spare = itertools.count(max(push.in_set for push in batch) + 1)
    directories: defaultdict[StorePath, int] = defaultdict(lambda: next(spare))
    return [
        push.in_set or (directories[parent(push.path)] if push.entry.kind is Kind.FILE else 0) for push in batch
    ]


def _write(
    push: Push,
    mapping: Mapping,
    write_id: str,
    content: Source | None,
    *,
    together: int,
    replaced: Item | None,
) -> Write:
    return Write(
        path=mapping.absolute(push.path),
        entry=push.entry,
        content=content,
        expected=push.expected,
        replaced=replaced,
        write_id=write_id,
        set=together,
        deletion=push.deletion,
    )


def _as_written(push: Push, revision: int, write_id: str) -> RemoteEntry:
    return RemoteEntry(
        entry=push.entry,
        mod_revision=revision,
        supersedes=push.expected,
        write_id=write_id,
        deletion=push.deletion,
    )


def _without(
    batch: Sequence[Push], failure: PathFailed, alone: AbstractSet[StorePath], committed: Committed
) -> list[Push]:
    """Return what of a batch is sent without a path that could not be read: nothing that belongs to its set."""
    committed.failed[failure.path] = failure.problem
    numbers = {push.in_set for push in batch if push.path == failure.path and push.path not in alone} - {0}
    rest = [push for push in batch if push.path != failure.path and push.in_set not in numbers]
    committed.left |= {push.path for push in batch if push.in_set in numbers} - {failure.path}
    return rest


def _next(todo: list[list[Push]], committed: Committed) -> list[Push]:
    """Take the next batch, without tombstones of directories in which something stays for now; empty at the end.

    The halves of a move wait for each other, and what is left of a file may wait in a directory that is gone here.
    Another replica would meet a deleted directory in which something lives, and write it again for good.
    """
    while todo:
        batch = todo.pop()
        stays = committed.left | committed.failed.keys() | committed.refused.keys()
        lived_in = {above for path in stays for above in ancestors(path)}
        held = {push.path for push in batch if push.entry.kind is Kind.GONE and push.path in lived_in}
        committed.left |= held
        if rest := [push for push in batch if push.path not in held]:
            return rest
    return []


def _is_one_set(batch: Sequence[Push]) -> bool:
    return len({push.in_set for push in batch}) == 1 and batch[0].in_set != UNKNOWN_SET


def _parts(batch: Sequence[Push]) -> Iterator[list[Push]]:
    """Take a batch apart that etcd finds too large: into its sets, and a single set into its paths."""
    sets: dict[int, list[Push]] = {}
    for push in batch:
        sets.setdefault(push.in_set, []).append(push)
    if len(sets) > 1:
        yield from sets.values()
    elif len(batch) > 1:
        yield from ([push] for push in batch)


def _batches(pushes: Sequence[Push]) -> Iterator[list[Push]]:
    """Cut pushes by the memory that they take, between two sets; only a set that is larger by itself is cut."""
    batch: list[Push] = []
    size = 0
    for number, part in _runs(pushes):
        weight = sum(map(_weight, part))
        if batch and size + weight > _BATCH:
            yield batch
            batch, size = [], 0
        if number == 0 or weight > _BATCH:
            for push in part:
                if batch and size + _weight(push) > _BATCH:
                    yield batch
                    batch, size = [], 0
                batch.append(push)
                size += _weight(push)
        else:
            batch += part
            size += weight
    if batch:
        yield batch


def _runs(pushes: Sequence[Push]) -> Iterator[tuple[int, list[Push]]]:
    """Yield the pushes of one set that follow each other."""
    run: list[Push] = []
    for push in pushes:
        if run and run[-1].in_set != push.in_set:
            yield run[0].in_set, run
            run = []
        run.append(push)
    if run:
        yield run[0].in_set, run


def _weight(push: Push) -> int:
    return push.entry.size if push.entry.kind is Kind.FILE and push.entry.size <= INLINE_MAX else 0
