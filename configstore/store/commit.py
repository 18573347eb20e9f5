"""One commit on its way: writes → steps → txns, and what became of each. Called by `tree`."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from configstore.errors import LeaseGoneError, StoreError, StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.record import Entry, Kind, Record, RecordError, encode
from configstore.store.api import (
    MAX_OPERATIONS,
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
from configstore.store.retention import surplus_past
from configstore.store.values import Fence, Outcome, Stored, UnreadableRecord, Write, Writer

_ATTEMPTS = 3
"""How often what is left is sent again: chunks or a lease expired under our hands, or a part was there already."""


_FEW = 32
"""Writes of which each may compare the value that it replaces; of more the values are read, in one call: a compare
more for each would cut a set in two that fits into one txn."""

TOMBSTONE_LIFE = 30 * 86400.0
"""Seconds for which a tombstone is kept at least; who was away for longer asks what became of a file."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """On which terms a set is written; see `Tree.commit`. patience: seconds for a txn whose answer is lost."""

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
        self._lost: set[StorePath] = set()  # in txns of which an answer did not come

    def make(self, writes: Sequence[Write]) -> Outcome:
        """Do what `Tree.commit` says."""
        # One id for all tries: what an earlier one made is recognised, however this one ends.
        write_ids = {write.path: write.write_id or self._writer.new_id() for write in writes}
        refused = Outcome(done={})
        pending = list(writes)
        try:
            for _ in range(_ATTEMPTS):
                refused = self._send(pending, write_ids)
                left = (write for write in pending if write.path not in self._done)
                pending = [msgspec.structs.replace(write, replaced=None) for write in left]  # it is read now
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
        """Make the txns in order, up to the first that fails; what it did not refuse is to be sent again."""
        try:
            superseded = self._superseded(writes)
            # All content is read and looked at before the first txn, so that what does not fit stops them all.
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

        No set is cut for the values that are compared: where one would be, they are read instead.
        """
        packed = list(groups(steps))
        if len(packed) == 1 or not any(step.holds for step in steps):
            return packed
        if _paths(packed) == _paths(groups([step.bare for step in steps])):
            return packed
        lie_there = {item.key: item for item in items_at(self._kv, [step.key for step in steps if step.holds])}
        return list(groups([step.bare if step.holds_in(lie_there.get(step.key)) else step for step in steps]))

    def _judge(self, group: Sequence[Step], result: TxnResult) -> Outcome:
        """Tell why a txn failed. What our own earlier try made is done, though somebody wrote over it since."""
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
        """Return what the writes replace; what their callers do not have at hand is read."""
        found: dict[StorePath, Superseded] = {}
        unread: dict[bytes, Write] = {}
        for write in writes:
            before, replaced = write.previous, write.replaced
            if replaced and replaced.mod_revision == write.expected and len(writes) <= _FEW:
                found[write.path] = self._as_it_lies(write.path, replaced, known=True)
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
                found[path] = self._as_it_lies(path, item)
        return found

    def _as_it_lies(self, path: StorePath, item: Item, *, known: bool = False) -> Superseded:
        return Superseded(
            value=item.value,
            mod_revision=item.mod_revision,
            version=item.version,
            record=self._replaced(path, item.value),
            known=known,
        )

    def _replaced(self, path: StorePath, value: bytes) -> Record | None:
        """Return what lies there, be it locked: its pieces go with it all the same. None: it is no record."""
        try:
            return self._envelopes.peek(path, value)
        except RecordError:
            return None

    def _at_hand(self, write: Write) -> bytes | None:
        """Return the value of what a write replaces, where the caller has it: of a sealed one, sealed anew.

        None: it must be read. What is sealed anew gets the key of today, and its pieces have the names of another.
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
        compares, settled = self._chunks.settle(write.path, old, record, retention=terms.retention)
        gone = write.entry.kind is Kind.GONE
        lease = self._chunks.retention_lease(max(terms.retention, TOMBSTONE_LIFE)) if gone else 0
        operations: list[Operation] = [Put(key, value, lease), *settled]
        size = len(key) + len(value) + len(known or b"")
        if before and terms.retention:
            past = self._keys.past(write.path, before.mod_revision)
            kept = self._kept(write.path, before)
            operations.append(Put(past, kept, self._chunks.retention_lease(terms.retention)))
            size += len(past) + len(kept)
            surplus = surplus_past(self._kv, self._keys, write.path, before.version, terms.keep)
            operations += surplus[: MAX_OPERATIONS - len(operations)]
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
        """Return what is kept of a superseded record: it as it lay there, but a plain one sealed where all is.

        Large content is in pieces that are plain still: `seal rotate` seals these with their record.
        """
        record = before.record
        if record is None or record.seal or record.chunks or not tells(record.entry):
            return before.value
        envelope = self._envelopes.writing(path)
        return before.value if envelope is PLAIN else envelope.encode(record)

    def _record(self, write: Write, write_id: str, old: Record | None) -> tuple[Record, bytes]:
        """Return the record to write and its bytes; large content is uploaded on the way."""
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
        """Return the envelope for a write, and what may show of it there. Raises SealingError.

        A directory or a tombstone needs no key, but tells nothing then of what was sealed. Content that replaces
        what was sealed does not become plain by the hand of who has not even the key to that: it was forgotten.
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
