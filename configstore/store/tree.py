"""Paths and records on top of a `Kv`: what the command line and the sidecar talk to.

Every change goes through `Tree.commit`, which compares each path's mod_revision (and a lease's fence), moves
the superseded record to `past/` and its chunks under the retention lease, all in one txn, and finds out what an
ambiguous answer meant by reading the write ids back.
"""

import itertools
import time
from collections.abc import Callable, Sequence

import msgspec
import tenacity

from configstore.errors import (
    CompactedError,
    CorruptError,
    LeaseGoneError,
    StoreClosedError,
    StoreUnavailableError,
)
from configstore.model.keys import Keys
from configstore.model.path import PathError, StorePath, printable
from configstore.model.record import Entry, Record, RecordError, decode, encode, sha256
from configstore.store.api import (
    MAX_OPERATIONS,
    CreateRevision,
    Exists,
    Item,
    Kv,
    ModRevision,
    Put,
    Relet,
    TxnResult,
    range_all,
)
from configstore.store.chunks import Chunks, chunk_digests, split_content
from configstore.store.steps import Step, Superseded, groups, is_ours
from configstore.store.surplus import KEEP, surplus_conflicts, surplus_past
from configstore.store.values import Bad, Fence, Listing, Outcome, Stored, Write, Writer

_NEVER = -1  # no key has this create_revision: a txn that compares it only reads


class Tree:
    """The records below one root key. Safe for use by several threads."""

    def __init__(
        self,
        kv: Kv,
        keys: Keys,
        writer: Writer,
        *,
        patience: float = 10.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`patience`: for how many seconds a commit with an ambiguous answer is tried again."""
        self.kv = kv
        self.keys = keys
        self._writer = writer
        self._patience = patience
        self._chunks = Chunks(kv, keys, monotonic=monotonic)

    # Reading

    def read(self, path: StorePath, *, revision: int = 0) -> Stored | None:
        """Return the record of a path, now or as it was at a store revision; None when there is none.

        Raises RecordError (unreadable), CompactedError, FutureRevisionError.
        """
        page = self.kv.range(self.keys.file(path), revision=revision)
        return _stored(path, page.items[0]) if page.items else None

    def list(self, directory: StorePath, *, revision: int = 0) -> Listing:
        """Return a directory's record and all those below it, read at one revision."""
        attempts = 1 if revision else 3  # a compaction between two pages: begin again at a newer revision
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(CompactedError),
            stop=tenacity.stop_after_attempt(attempts),
            reraise=True,
        ):
            with attempt:
                return self._list(directory, revision)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _list(self, directory: StorePath, revision: int) -> Listing:
        page = self.kv.range(self.keys.file(directory), revision=revision)
        revision = revision or page.revision
        records: dict[StorePath, Stored] = {}
        bad: list[Bad] = []
        below = range_all(self.kv, *self.keys.files_below(directory), revision=revision)
        for part in itertools.chain([page] if directory else [], below):
            for item in part.items:
                found = self.decode_item(item)
                if isinstance(found, Bad):
                    bad.append(found)
                else:
                    records[found.path] = found
        return Listing(revision=revision, cluster_id=page.cluster_id, records=records, bad=tuple(bad))

    def remembers(self, path: StorePath, mod_revision: int) -> bool:
        """Tell whether the record that a path had at `mod_revision` was kept when it was superseded."""
        return bool(self.kv.range(self.keys.past(path, mod_revision), keys_only=True).items)

    def decode_item(self, item: Item) -> Stored | Bad:
        """Read what lies under one key below `files/`; what is unusable comes back as a value."""
        try:
            path = self.keys.path_of_file(item.key)
        except PathError as error:
            shown = printable(item.key.decode("utf-8", "backslashreplace"))
            return Bad(path=shown, reason=str(error), mod_revision=item.mod_revision, key=item.key)
        try:
            return _stored(path, item)
        except RecordError as error:
            return Bad(path=path, reason=str(error), mod_revision=item.mod_revision)

    def content(self, found: Stored) -> bytes:
        """Return a file's content, checked against its digest; b"" for everything else.

        Raises CorruptError when a chunk is missing or wrong.
        """
        record = found.record
        if record.content is not None or not record.chunks:
            return record.content or b""
        content = self._chunks.read(found.path, record.chunks)
        if len(content) != record.entry.size or sha256(content) != record.entry.sha256:
            raise CorruptError(f"{found.path}: the chunks do not add up to the digest; put the file again")
        return content

    # Writing

    def commit(
        self, writes: Sequence[Write], *, retention: float, keep: int = KEEP, fence: Fence | None = None
    ) -> Outcome:
        """Write a set: in one txn when it fits into one, else in the given order in as few as possible.

        retention: seconds for which superseded records stay in `past/`; 0 keeps none. keep: how many of a path
        stay at least; of more, the oldest go (a few at a time).
        Raises StoreUnavailableError when it stayed unknown within the patience whether the last txn was made;
        to commit again is safe all the same, since every txn compares. Also TooLargeError, NoSpaceError,
        PermissionDeniedError, and RecordError when an entry does not fit its content.
        """
        done: dict[StorePath, int] = {}
        write_ids: dict[StorePath, str] = {}
        pending = list(writes)
        for _ in range(3):  # again only when chunks or a retention lease expired under our hands
            try:
                outcome = self._commit_once(pending, retention, keep, fence)
            except LeaseGoneError:
                self._chunks.forget_leases()
                continue
            done |= outcome.done
            write_ids |= outcome.write_ids
            pending = [write for write in pending if write.path not in done]
            if not pending or not outcome.complete:
                return msgspec.structs.replace(outcome, done=done, write_ids=write_ids)
        raise StoreUnavailableError(f"{pending[0].path}: its chunks or retention lease kept expiring; try again")

    def keep_conflict(self, path: StorePath, entry: Entry, content: bytes | None, *, retention: float) -> str:
        """Keep the losing side of a conflict under `conflicts/` for `retention` seconds and return its id.

        The id follows from what it is, so that many replicas, or many tries, keep one copy of the same. Of more
        than MAX_CONFLICTS about a path, the oldest go.
        """
        name = conflict_id(entry)
        record = self._record(entry, content)
        try:
            self._put_conflict(path, name, record, content, self._chunks.retention_lease(retention))
        except LeaseGoneError:  # it expired or was revoked, or this is another etcd than the one that granted it
            self._chunks.forget_leases()
            self._put_conflict(path, name, record, content, self._chunks.retention_lease(retention))
        return name

    def _put_conflict(self, path: StorePath, name: str, record: Record, content: bytes | None, lease: int) -> None:
        key, value = self.keys.conflict(path, name), encode(record)
        for digest, chunk in split_content(content).items():
            piece = self.keys.conflict_chunk(path, name, digest)
            if not self.kv.txn((CreateRevision(piece, 0),), (Put(piece, chunk, lease),)).succeeded:
                self.kv.txn((Exists(piece),), (Relet(piece, lease),))
        found = self.kv.range(key, keys_only=True).items
        expected = found[0].mod_revision if found else 0
        surplus = [] if found else surplus_conflicts(self.kv, self.keys, path)
        step = Step(
            path=path,
            key=key,
            write_id=record.origin.write_id,
            expected=expected,
            compares=(ModRevision(key, expected),),
            operations=(Put(key, value, lease), *surplus),
            size=len(value),
        )
        self._txn([step], None)

    def _record(
        self, entry: Entry, content: bytes | None, lease: str | None = None, supersedes: int = 0
    ) -> Record:
        digests = chunk_digests(content)
        return Record(
            entry=entry,
            origin=self._writer.origin(lease, supersedes),
            content=None if digests else content,
            chunks=digests,
        )

    def _commit_once(self, writes: Sequence[Write], retention: float, keep: int, fence: Fence | None) -> Outcome:
        superseded = self._superseded(writes)
        steps = [self._step(write, superseded.get(write.path), retention, keep, fence) for write in writes]
        write_ids = {step.path: step.write_id for step in steps}
        done: dict[StorePath, int] = {}
        for group in groups(steps):
            result = self._txn(group, fence)
            if result.succeeded:
                done |= {step.path: result.revision for step in group}
                continue
            found = {item.key: item for item in result.found}
            landed = {step.path: found[step.key].mod_revision for step in group if is_ours(step, found)}
            done |= landed  # by an earlier try whose answer was lost; what is not there any more is stale
            if len(landed) == len(group):
                continue
            refused = self._refused(group, found, fence, done)
            return msgspec.structs.replace(refused, write_ids=write_ids)
        return Outcome(done=done, write_ids=write_ids)

    def _refused(
        self, group: Sequence[Step], found: dict[bytes, Item], fence: Fence | None, done: dict[StorePath, int]
    ) -> Outcome:
        stale: dict[StorePath, Stored | None] = {}
        for step in group:
            item = found.get(step.key)
            if step.path not in done and (item.mod_revision if item else 0) != step.expected:
                now = self.decode_item(item) if item else None
                stale[step.path] = None if isinstance(now, Bad) else now
        holder = found.get(fence.key) if fence else None
        fenced_out = fence is not None and (holder.create_revision if holder else 0) != fence.token
        return Outcome(done=done, stale=stale, fenced_out=fenced_out)

    def _superseded(self, writes: Sequence[Write]) -> dict[StorePath, Superseded]:
        """Return what the writes replace; what their callers do not have at hand is read."""
        found: dict[StorePath, Superseded] = {}
        unread: dict[bytes, Write] = {}
        for write in writes:
            before = write.previous
            if before and before.mod_revision == write.expected:
                found[write.path] = Superseded(
                    value=encode(before.record),
                    mod_revision=before.mod_revision,
                    version=before.version,
                    record=before.record,
                )
            elif write.expected:
                unread[self.keys.file(write.path)] = write
        keys = list(unread)
        for start in range(0, len(keys), MAX_OPERATIONS):
            part = keys[start : start + MAX_OPERATIONS]
            for item in self.kv.txn((CreateRevision(part[0], _NEVER),), (), otherwise_get=part).found:
                if item.mod_revision == unread[item.key].expected:
                    stored = self.decode_item(item)
                    record = stored.record if isinstance(stored, Stored) else None
                    found[unread[item.key].path] = Superseded(
                        value=item.value, mod_revision=item.mod_revision, version=item.version, record=record
                    )
        return found

    def _step(
        self, write: Write, before: Superseded | None, retention: float, keep: int, fence: Fence | None
    ) -> Step:
        record = self._record(write.entry, write.content, fence.name if fence else None, write.expected)
        key, value = self.keys.file(write.path), encode(record)
        old = before.record if before else None
        self._chunks.send(write.path, write.content, known=old.chunks if old else ())
        compares, operations = self._chunks.settle(write.path, old, record, retention=retention)
        operations = [Put(key, value), *operations]
        size = len(key) + len(value)
        if before and retention:
            past = self.keys.past(write.path, before.mod_revision)
            operations.append(Put(past, before.value, self._chunks.retention_lease(retention)))
            size += len(past) + len(before.value)
            surplus = surplus_past(self.kv, self.keys, write.path, before.version, keep)
            operations += surplus[: MAX_OPERATIONS - len(operations)]
        return Step(
            path=write.path,
            key=key,
            write_id=record.origin.write_id,
            expected=write.expected,
            compares=(ModRevision(key, write.expected), *compares),
            operations=tuple(operations),
            size=size,
        )

    def _txn(self, group: Sequence[Step], fence: Fence | None) -> TxnResult:
        """Make one txn; an answer that leaves its outcome open is followed by the same txn again.

        That is safe: once it landed, its own compares fail, and the write ids found tell so.
        """
        fences = (CreateRevision(fence.key, fence.token),) if fence else ()
        keys = [step.key for step in group] + ([fence.key] if fence else [])
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StoreUnavailableError)
            & tenacity.retry_if_not_exception_type(StoreClosedError),
            stop=tenacity.stop_after_delay(self._patience),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=1),
            reraise=True,
        ):
            with attempt:
                return self.kv.txn(
                    [*fences, *(compare for step in group for compare in step.compares)],
                    [operation for step in group for operation in step.operations],
                    otherwise_get=keys,
                )
        raise AssertionError("unreachable: the last attempt returns or raises")


def _stored(path: StorePath, item: Item) -> Stored:
    return Stored(path=path, record=decode(item.value), mod_revision=item.mod_revision, version=item.version)


def conflict_id(entry: Entry) -> str:
    """Return the id of a losing side, which follows from what it is."""
    return sha256(f"{entry.kind} {entry.mode:o} {entry.sha256} {entry.target}".encode())[:24]
