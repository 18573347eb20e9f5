"""Sends a plan's pushes to the store, as sets. Called by `cycle.push`, in the engine's thread only.

Invariants, beside those of the plan's order (`planner`):

1. A set is sent as a whole or not at all, unless etcd's own limits make that impossible. The transaction also has
   the copy of what is superseded: record and past copy are written together (`configstore.store.commit`).
2. Nothing is sent after a failed compare or a lost lease: the plan was made from a state that is no longer true.
3. The tombstone of a directory is not sent while anything below it was left out (`_next`).
"""

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
"""Bytes of small files that are in memory at once. A set that fits into one request never reaches it. Larger files
are sent in pieces and do not count."""


class PathFailed(Exception):  # noqa: N818  # becomes a value
    """A path could not be read for sending. problem: why; None when it changed since it was planned."""

    def __init__(self, path: StorePath, problem: Problem | None) -> None:
        super().__init__(path)
        self.path = path
        self.problem = problem


class CommitResult(msgspec.Struct, kw_only=True):
    """What was committed, and what was not.

    done: the records that were written. stale: where a compare failed, the record that the store has instead.
    unsure: paths that may have been written although there was no answer. refused: paths that cannot be written at
    all, and why. failed: paths that could not be read, and why. left: paths that were not written because of
    another path of their set, or because nothing more was sent. fenced_out: whether the lease was lost. failure:
    why the store took no more.
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
) -> CommitResult:
    """Write pushes in their order, until a compare fails; the result says what became of each.

    source: returns a file's content, which raises PathFailed. alone: paths that their sets do not wait for.
    at_hand: returns the value that a path has since a revision, or None. A set that is too large for etcd's limits
    is taken apart. Raises RefusedError without the mapping's lease.
    """
    if mapping.lease is not None and fence is None:
        raise RefusedError(f"{mapping.name}: not written without its lease {mapping.lease}")
    committed = CommitResult()
    todo = list(reversed(list(_batches(_sealable(tree, mapping, pushes, alone, committed)))))
    while batch := _next(todo, committed):
        writes = _writes(batch, mapping, write_ids, source, at_hand)
        try:
            outcome = _send(tree, writes, mapping, fence)
        except PathFailed as failure:
            rest = _without(batch, failure, alone, committed)
            todo += [rest] if rest else []
            continue
        except (SealingError, TooLargeError, RecordError) as error:
            todo += reversed(_smaller(batch, error, committed))
            continue
        except StoreError as error:
            committed.failure = error
            done = {StorePath(path): at for path, at in error.done.items()}
            outcome = Outcome(done=done, unsure=tuple(map(StorePath, error.unknown)))
        _take(outcome, zip(writes, batch, strict=True), committed)
        if committed.failure or not outcome.complete:
            committed.fenced_out = outcome.fenced_out
            committed.left |= {push.path for batch in todo for push in batch}
            break
    return committed


def _smaller(
    batch: Sequence[Push], error: SealingError | TooLargeError | RecordError, committed: CommitResult
) -> list[list[Push]]:
    """Return the parts of a batch that cannot be sent as one; a part that cannot be split is refused.

    A set is taken apart if it is over etcd's limits, but not because the key for one of its paths is missing.
    """
    whole = len(batch) == 1 or (isinstance(error, SealingError) and _is_one_set(batch))
    if whole:
        committed.refused |= {push.path: str(error) for push in batch}
        return []
    return list(_parts(batch))


def _send(tree: Tree, writes: Sequence[Write], mapping: Mapping, fence: Fence | None) -> Outcome:
    """Commit writes. If they are too large with the cached values that they replace, commit them without those.

    A transaction compares such a value, which makes it larger; to read the value again is better than to take a
    set apart.
    """
    try:
        return tree.commit(writes, retention=mapping.retention, keep=mapping.keep, fence=fence)
    except TooLargeError:
        if not any(write.replaced for write in writes):
            raise
        bare = [msgspec.structs.replace(write, replaced=None) for write in writes]
        return tree.commit(bare, retention=mapping.retention, keep=mapping.keep, fence=fence)


def _sealable(
    tree: Tree, mapping: Mapping, pushes: Sequence[Push], alone: AbstractSet[StorePath], committed: CommitResult
) -> list[Push]:
    """Return the pushes that can be sealed as the policy demands; without the key for one, none of its set."""
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


def _take(outcome: Outcome, writes: Iterable[tuple[Write, Push]], committed: CommitResult) -> None:
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
    """Return for each push the number of its set; pushes with one number go into one transaction if they fit.

    Files of no known set get one number for each directory: if the transaction must be cut, it is cut between
    directories, since the files of one, such as a certificate and its key, most likely belong together.
    """
    spare = itertools.count(max(push.in_set for push in batch) + 1)
    directories: defaultdict[StorePath, int] = defaultdict(lambda: next(spare))
    return [
        push.in_set or (directories[parent(push.path)] if push.entry.kind is Kind.FILE else 0) for push in batch
    ]


def _writes(
    batch: Sequence[Push],
    mapping: Mapping,
    write_ids: dict[StorePath, str],
    source: Callable[[Push], Source | None],
    at_hand: Callable[[StorePath, int], Item | None],
) -> list[Write]:
    return [
        Write(
            path=mapping.absolute(push.path),
            entry=push.entry,
            content=source(push),
            expected=push.expected,
            replaced=at_hand(push.path, push.expected),
            write_id=write_ids[push.path],
            set=together,
            deletion=push.deletion,
        )
        for push, together in zip(batch, _sets(batch), strict=True)
    ]


def _as_written(push: Push, revision: int, write_id: str) -> RemoteEntry:
    return RemoteEntry(
        entry=push.entry,
        mod_revision=revision,
        supersedes=push.expected,
        write_id=write_id,
        deletion=push.deletion,
    )


def _without(
    batch: Sequence[Push], failure: PathFailed, alone: AbstractSet[StorePath], committed: CommitResult
) -> list[Push]:
    """Return what of a batch is sent without a path that could not be read: no other member of its set."""
    committed.failed[failure.path] = failure.problem
    numbers = {push.in_set for push in batch if push.path == failure.path and push.path not in alone} - {0}
    rest = [push for push in batch if push.path != failure.path and push.in_set not in numbers]
    committed.left |= {push.path for push in batch if push.in_set in numbers} - {failure.path}
    return rest


def _next(todo: list[list[Push]], committed: CommitResult) -> list[Push]:
    """Return the next batch, empty at the end, without the tombstones of directories in which something stays.

    A path that was left out may be in a directory that is gone here. Another replica would find its live record in
    a deleted directory, and write the directory's record again.
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
    """Split a batch that is too large for etcd: into its sets, a single set into its paths."""
    sets: dict[int, list[Push]] = {}
    for push in batch:
        sets.setdefault(push.in_set, []).append(push)
    if len(sets) > 1:
        yield from sets.values()
    elif len(batch) > 1:
        yield from ([push] for push in batch)


def _batches(pushes: Sequence[Push]) -> Iterator[list[Push]]:
    """Split pushes by the memory that they take, between sets; only a set that is too large by itself is split."""
    batch: list[Push] = []
    size = 0
    for number, run in itertools.groupby(pushes, key=lambda push: push.in_set):
        part = list(run)
        weight = sum(map(_weight, part))
        if batch and size + weight > _BATCH:
            yield batch
            batch, size = [], 0
        for unit in [[push] for push in part] if number == UNKNOWN_SET or weight > _BATCH else [part]:
            more = sum(map(_weight, unit))
            if batch and size + more > _BATCH:
                yield batch
                batch, size = [], 0
            batch += unit
            size += more
    if batch:
        yield batch


def _weight(push: Push) -> int:
    return push.entry.size if push.entry.kind is Kind.FILE and push.entry.size <= INLINE_MAX else 0
