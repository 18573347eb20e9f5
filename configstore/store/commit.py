"""Makes one commit: writes become steps, steps are packed into txns, and each txn's outcome is found out.

Called by `tree`. The order matters:

1. All content is read, and large content uploaded, before the first txn: what cannot be written stops the whole
   commit while nothing is written yet.
2. The txns are made one after the other, up to the first that fails, so that a set that depends on an earlier one
   is never in the store without it.
3. All tries of one commit use the same write ids. What an earlier try made is found by them, and is not made
   twice.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from configstore.errors import LeaseGoneError, StoreError, StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.record import Entry, Kind, Record, RecordError, encode
from configstore.store.api import (
    CreateRevision,
    Item,
    Kv,
    ModRevision,
    Operation,
    Put,
    TxnResult,
    ValueEquals,
)
from configstore.store.chunks import Chunks
from configstore.store.envelope import NEED_SEAL, PLAIN, Envelope, Envelopes, SealingError, tells
from configstore.store.items import decode_item, items_at, trace
from configstore.store.packing import Step, Superseded, groups
from configstore.store.persist import persist
from configstore.store.retention import add_surplus, surplus_past
from configstore.store.values import Fence, Outcome, Stored, UnreadableRecord, Write, Writer

_ATTEMPTS = 3
"""How often the writes that are left are sent: chunks or a lease may expire meanwhile, or a part was written."""

_FEW = 32
"""With at most so many writes each compares the value that it replaces; with more, the values are read at once.

One more compare for each write would split a set that fits into one txn.
"""

TOMBSTONE_LIFE = 30 * 86400.0
"""Seconds for which a tombstone is kept at least. A replica that was away longer asks a person about its files."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a commit; see `Tree.commit`. patience: seconds for a txn whose answer is lost."""

    retention: float
    keep: int
    fence: Fence | None
    patience: float


class Commit:
    """Writes one list of writes. Made for one call of `make`."""

    def __init__(
        self,
        kv: Kv,
        keys: Keys,
        writer: Writer,
        chunks: Chunks,
        terms: Terms,
        *,
        envelopes: Envelopes,
        step: Callable[[int], None] | None = None,
    ) -> None:
        """`step` is called after each txn with the number of its paths."""
        self._told = step or (lambda _: None)
        self._kv = kv
        self._keys = keys
        self._envelopes = envelopes
        self._writer = writer
        self._chunks = chunks
        self._terms = terms
        self._done: dict[StorePath, int] = {}
        self._lost: set[StorePath] = set()  # of txns whose answer was lost

    def make(self, writes: Sequence[Write]) -> Outcome:
        """Make the writes; see `Tree.commit`."""
        write_ids = {write.path: write.write_id or self._writer.new_id() for write in writes}
        refused = Outcome(done={})
        pending = list(writes)
        try:
            for _ in range(_ATTEMPTS):
                refused = self._send(pending, write_ids)
                left = (write for write in pending if write.path not in self._done)
                pending = [msgspec.structs.replace(write, replaced=None) for write in left]  # now it is read
                if not pending or not refused.complete:
                    return msgspec.structs.replace(refused, done=self._done, write_ids=write_ids)
            raise StoreUnavailableError(
                f"{pending[0].path}: its chunks or retention lease kept expiring; try again"
            )
        except StoreError as error:
            error.done = {str(path): revision for path, revision in self._done.items()}
            error.unknown = tuple(sorted(self._lost - set(self._done)))
            raise

    def _send(self, writes: Sequence[Write], write_ids: dict[StorePath, str]) -> Outcome:
        """Make the txns in order, up to the first that fails; returns what was refused, else an empty outcome."""
        try:
            superseded = self._superseded(writes)
            steps = [self._step(write, write_ids[write.path], superseded.get(write.path)) for write in writes]
            for group in self._groups(steps):
                result = self._txn(group)
                if result.succeeded:
                    self._done |= {step.path: result.revision for step in group}
                    self._told(len(group))
                    continue
                refused = self._judge(group, result)
                if not refused.complete or any(step.path not in self._done for step in group):
                    return refused
        except LeaseGoneError:
            self._chunks.forget_leases()
        return Outcome(done={})

    def _groups(self, steps: Sequence[Step]) -> list[list[Step]]:
        """Pack steps into txns.

        Where comparing the replaced values would split a set, they are read instead, and steps drop that compare.
        """
        packed = list(groups(steps))
        if len(packed) == 1 or not any(step.holds for step in steps):
            return packed
        if _paths(packed) == _paths(groups([step.bare for step in steps])):
            return packed
        there = {item.key: item for item in items_at(self._kv, [step.key for step in steps if step.holds])}
        return list(groups([step.bare if step.holds_in(there.get(step.key)) else step for step in steps]))

    def _judge(self, group: Sequence[Step], result: TxnResult) -> Outcome:
        """Return why a txn failed. A write that an earlier try of ours made is done, even if replaced since."""
        fence = self._terms.fence
        found = {item.key: item for item in result.found}
        stale: dict[StorePath, Stored | None] = {}
        unsure: list[StorePath] = []
        for step in group:
            item = found.get(step.key)
            if (item.mod_revision if item else 0) == step.expected:
                continue
            fate = trace(
                self._kv,
                self._keys,
                self._envelopes,
                step.path,
                {step.write_id},
                after=step.expected,
                current=item,
            )
            if fate.found:
                self._done[step.path] = fate.found.mod_revision
                continue
            now = decode_item(self._keys, self._envelopes, item) if item else None
            stale[step.path] = None if isinstance(now, UnreadableRecord) else now
            if not fate.whole and (step.resent or step.path in self._lost):
                unsure.append(step.path)
        holder = found.get(fence.key) if fence else None
        fenced_out = (
            fence is not None
            and (holder.create_revision if holder else 0) != fence.token
            and any(step.path not in self._done for step in group)
        )
        return Outcome(done={}, stale=stale, unsure=tuple(unsure), fenced_out=fenced_out)

    def _txn(self, group: Sequence[Step]) -> TxnResult:
        fence = self._terms.fence
        fences = (CreateRevision(fence.key, fence.token),) if fence else ()
        return persist(
            self._kv,
            self._terms.patience,
            [*fences, *(compare for step in group for compare in step.compares)],
            [operation for step in group for operation in step.operations],
            otherwise_get=[step.key for step in group] + ([fence.key] if fence else []),
            lost=lambda: self._lost.update(step.path for step in group),
        )

    def _superseded(self, writes: Sequence[Write]) -> dict[StorePath, Superseded]:
        """Return the values that the writes replace; those that the caller does not have are read."""
        found: dict[StorePath, Superseded] = {}
        unread: dict[bytes, Write] = {}
        for write in writes:
            before, replaced = write.previous, write.replaced
            if replaced and replaced.mod_revision == write.expected and len(writes) <= _FEW:
                found[write.path] = self._superseded_in(write.path, replaced, known=True)
                continue
            value = self._at_hand(write) if before and before.mod_revision == write.expected else None
            if before and value is not None:
                found[write.path] = Superseded(
                    value=value, mod_revision=before.mod_revision, version=before.version, record=before.record
                )
            elif write.expected:
                unread[self._keys.file(write.path)] = write
        for item in items_at(self._kv, list(unread)):
            if item.mod_revision == unread[item.key].expected:
                path = unread[item.key].path
                found[path] = self._superseded_in(path, item)
        return found

    def _superseded_in(self, path: StorePath, item: Item, *, known: bool = False) -> Superseded:
        return Superseded(
            value=item.value,
            mod_revision=item.mod_revision,
            version=item.version,
            record=self._replaced(path, item.value),
            known=known,
        )

    def _replaced(self, path: StorePath, value: bytes) -> Record | None:
        """Return a value's record, even a locked one, since its pieces go with it; None if unreadable."""
        try:
            return self._envelopes.peek(path, value)
        except RecordError:
            return None

    def _at_hand(self, write: Write) -> bytes | None:
        """Return the value that a write replaces if the caller has its record; None if it must be read.

        A sealed record is sealed anew, with today's key. It is read if it has pieces: another key gave their
        names.
        """
        record = write.previous.record if write.previous else None
        if record is None or record.seal is None:
            return encode(record) if record else None
        if record.locked or record.chunks:
            return None
        envelope = self._envelopes.writing(write.path)
        return None if envelope is PLAIN else envelope.encode(record)

    def _step(self, write: Write, write_id: str, before: Superseded | None) -> Step:
        terms = self._terms
        old = before.record if before else None
        known = before.value if before and before.known else None
        record, value = self._record(write, write_id, old)
        key = self._keys.file(write.path)
        compares, others = self._chunks.replace(write.path, old, record, retention=terms.retention)
        gone = write.entry.kind is Kind.GONE
        lease = self._chunks.retention_lease(max(terms.retention, TOMBSTONE_LIFE)) if gone else 0
        operations: list[Operation] = [Put(key, value, lease), *others]
        size = len(key) + len(value) + len(known or b"")
        if before and terms.retention:
            past = self._keys.past(write.path, before.mod_revision)
            kept = self._kept(write.path, before)
            operations.append(Put(past, kept, self._chunks.retention_lease(terms.retention)))
            size += len(past) + len(kept)
            add_surplus(operations, surplus_past(self._kv, self._keys, write.path, before.version, terms.keep))
        return Step(
            path=write.path,
            key=key,
            write_id=write_id,
            expected=write.expected,
            compares=(
                ModRevision(key, write.expected),
                # Another store, such as a restored one, may hold something else at the same revision.
                *((ValueEquals(key, known),) if known is not None else ()),
                *compares,
            ),
            operations=tuple(operations),
            size=size,
            set=write.set,
            resent=bool(write.write_id),
        )

    def _kept(self, path: StorePath, before: Superseded) -> bytes:
        """Return the value to keep of a superseded record: as it is, or sealed if it is plain where all is sealed.

        The pieces of large content are still plain then: `seal rotate` seals them together with their record.
        """
        record = before.record
        if record is None or record.seal or record.chunks or not tells(record.entry):
            return before.value
        envelope = self._envelopes.writing(path)
        return before.value if envelope is PLAIN else envelope.encode(record)

    def _record(self, write: Write, write_id: str, old: Record | None) -> tuple[Record, bytes]:
        """Return the record to write and its bytes, after large content was uploaded."""
        fence = self._terms.fence
        origin = self._writer.origin(
            write_id,
            lease=fence.name if fence else None,
            supersedes=write.expected,
            deletion=write.deletion,
        )
        try:
            envelope, entry = self._envelope(write, old)
            inline, names = self._chunks.take(
                write.path, entry, write.content, envelope=envelope, known=old.chunks if old else ()
            )
            record = Record(entry=entry, origin=origin, content=inline, chunks=names)
            return record, envelope.encode(record)
        except RecordError as error:
            raise type(error)(f"{write.path}: {error}") from None

    def _envelope(self, write: Write, old: Record | None) -> tuple[Envelope, Entry]:
        """Return the envelope for a write, and the entry that may be readable in it. Raises SealingError.

        A directory or a tombstone needs no key; without one, its entry shows nothing of what was sealed. Content
        that replaces sealed content may become plain only if we have the old content's key: else the keyring was
        forgotten.
        """
        entry = write.entry
        needs_seal = entry.kind in NEED_SEAL
        try:
            envelope = self._envelopes.writing(write.path)
        except SealingError:
            if needs_seal:
                raise
            envelope = PLAIN
        if envelope is PLAIN and old and old.seal:
            if needs_seal and not self._envelopes.opens(write.path, old):
                raise SealingError(
                    f"it would be plain, where a record lies that is sealed with the key {old.seal.key}: set"
                    " CONFIGSTORE_SEAL_KEYRING"
                )
            entry = entry if needs_seal else msgspec.structs.replace(entry, sha256="")
        return envelope, entry


def _paths(packed: Iterable[Sequence[Step]]) -> list[list[StorePath]]:
    return [[step.path for step in group] for group in packed]
