"""Encodes values for the store: plain or sealed, as the policy of their path says. Called by the store's modules.

`Envelopes` alone decides this. The cipher is in `sealing`, which is imported only when there is a keyring.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from configstore.model.path import StorePath, shown
from configstore.model.record import Entry, Kind, Record, RecordError, decode, encode, sha256
from configstore.model.seal import Key, Keyring, Policy, SealedKind, identity
from configstore.model.seal import SealingError as SealingError  # noqa: PLC0414 - those who store look for it here


class Envelope(Protocol):
    """Encodes and decodes the values of one path, with one key or plain."""

    def encode(self, record: Record) -> bytes:
        """Return the bytes of a record. Raises RecordError when its entry and its content do not fit."""
        ...

    def name(self, piece: bytes) -> str:
        """Return the name of a piece of content, which is the same for the same piece of this path."""
        ...

    def close_piece(self, name: str, piece: bytes) -> bytes:
        """Return the bytes of a piece."""
        ...

    def open_piece(self, name: str, value: bytes) -> bytes:
        """Return a piece. Raises RecordError when it is not the one of that name."""
        ...

    def loser(self, entry: Entry) -> str:
        """Return the id of a losing side, which is derived from its entry."""
        ...


class Opening(Envelope, Protocol):
    """An envelope with a key."""

    def open(self, record: Record, value: bytes) -> Record:
        """Return a sealed record with what was sealed. Raises RecordError."""
        ...


class Plain:
    """Values as they are."""

    def encode(self, record: Record) -> bytes:
        """As `Envelope` says."""
        return encode(record)

    def name(self, piece: bytes) -> str:
        """As `Envelope` says."""
        return sha256(piece)

    def close_piece(self, name: str, piece: bytes) -> bytes:  # noqa: ARG002 - a sealed one depends on it
        """As `Envelope` says."""
        return piece

    def open_piece(self, name: str, value: bytes) -> bytes:
        """As `Envelope` says."""
        if sha256(value) != name:
            raise RecordError("does not match its digest")
        return value

    def loser(self, entry: Entry) -> str:
        """As `Envelope` says."""
        return sha256(identity(entry))[:24]


PLAIN = Plain()


class Envelopes:
    """Chooses the envelope of each value below one root key. Safe for use by several threads.

    keyring: may be replaced at any time; a write that has begun goes on with the key with which it began.
    """

    def __init__(
        self,
        root: str,
        *,
        keyring: Keyring | None = None,
        policy: Callable[[StorePath], Policy] = lambda _: Policy.OFF,
        lenient: bool = False,
    ) -> None:
        """`lenient`: return a record that must not be used, with the reason in `locked`, for listings."""
        self._root = root
        self._policy = policy
        self._lenient = lenient
        self.keyring = keyring

    def writing(self, path: StorePath, place: SealedKind = SealedKind.RECORD) -> Envelope:
        """Return the envelope for what is written to a path now. Raises SealingError: its key is missing."""
        if self._policy(path) is Policy.OFF:
            return PLAIN
        key = self.keyring.for_writing(path) if self.keyring else None
        if key is None:
            raise SealingError(f"it cannot be sealed: {_UNFIT}")
        return self._sealed(key, path, place)

    def opens(self, path: StorePath, record: Record) -> bool:
        """Return whether the keyring has the key that a record was sealed with; a plain record needs none."""
        return record.seal is None or self._key(path, record) is not None

    def proves(self, path: StorePath, record: Record) -> bool:
        """Return whether a key holder wrote a record, or the policy of its path does not require that."""
        return self._policy(path) is not Policy.REQUIRED or self._key(path, record) is not None

    def unfit(self, subtree: StorePath) -> str:
        """Return why nothing in a subtree can be sealed as its policy requires; "" if it can."""
        if self._policy(subtree) is Policy.OFF or (self.keyring and self.keyring.fits(subtree)):
            return ""
        return f"what is written here cannot be sealed: {_UNFIT}"

    def reading(self, path: StorePath, record: Record, place: SealedKind = SealedKind.RECORD) -> Envelope:
        """Return the envelope of a record's pieces. Raises SealingError: no key opens them."""
        if record.seal is None:
            return PLAIN
        key = self._key(path, record)
        if key is None:
            raise SealingError(self._no_key(path, record))
        return self._sealed(key, path, place)

    def decode(self, path: StorePath, value: bytes, place: SealedKind = SealedKind.RECORD) -> Record:
        """Return the record in a value of a path. Raises RecordError."""
        record = self.peek(path, value, place)
        if record.locked and not self._lenient:
            raise SealingError(record.locked)
        return record

    def peek(self, path: StorePath, value: bytes, place: SealedKind = SealedKind.RECORD) -> Record:
        """Return the record as `decode` does, one that must not be used with the reason in `locked`.

        Raises RecordError.
        """
        record = decode(value)
        if record.seal is None:
            if record.entry.kind in NEED_SEAL and self._policy(path) is Policy.REQUIRED:
                return msgspec.structs.replace(record, locked=_PLAIN)
            return self._unproven(path, record)
        key = self._key(path, record)
        if key:
            return self._sealed(key, path, place).open(record, value)
        if record.entry.kind in NEED_SEAL:
            return msgspec.structs.replace(record, locked=self._no_key(path, record))
        return self._unproven(path, msgspec.structs.replace(record, locked=""))  # believed as a plain one is

    def _unproven(self, path: StorePath, record: Record) -> Record:
        """Return a plain record without what only a key holder may claim: anybody who can write may have made it.

        Where sealing is required, a tombstone counts, but not what it says of its deletion: neither that a person
        confirmed it nor how many tombstones it has. So many plain tombstones are judged by their number.
        """
        if record.origin.deletion is None or self._policy(path) is not Policy.REQUIRED:
            return record
        origin = msgspec.structs.replace(record.origin, deletion=None)
        return msgspec.structs.replace(record, origin=origin)

    def _key(self, path: StorePath, record: Record) -> Key | None:
        """Return the key that opens a record, if the keyring has it and it may open this path.

        Where sealing is required, the key of an outer subtree does not count in a subtree that has a key of its
        own: a service that holds only the outer key could have sealed the record. With `accept` it counts, so that
        an inner subtree can be given its own key.
        """
        if self.keyring is None or record.seal is None:
            return None
        key = self.keyring.find(record.seal.key, path)
        if key and self._policy(path) is Policy.REQUIRED:
            own = self.keyring.for_writing(path)
            return key if own and len(own.subtree) <= len(key.subtree) else None
        return key

    def _no_key(self, path: StorePath, record: Record) -> str:
        outer = self.keyring.find(record.seal.key, path) if self.keyring and record.seal else None
        if outer:
            return (
                f"it is sealed with the key {outer.id} of {shown(outer.subtree) or '/'} around it, and not with"
                " its own: `configstore seal rotate` mends that, the policy `accept` reads it meanwhile"
            )
        return _no_key(record)

    def _sealed(self, key: Key, path: StorePath, place: SealedKind) -> Opening:
        from configstore.store.sealing import SealedEnvelope  # noqa: PLC0415 - the library is needed where there are keys

        return SealedEnvelope(key, self._root, path, place)


NEED_SEAL = frozenset({Kind.FILE, Kind.SYMLINK})
"""The kinds with content. A directory and a tombstone may be plain: nobody needs a key to make or remove one."""


def tells(entry: Entry) -> bool:
    """Return whether a plain record of an entry shows what a sealed one hides: content, a target or a digest."""
    return entry.kind in NEED_SEAL or bool(entry.sha256)


_PLAIN = (
    "it is plain, where only sealed records are believed; `configstore seal rotate` seals what is there already,"
    " the policy `accept` reads it meanwhile"
)


_UNFIT = (
    "the keyring has no key of a subtree around it; `configstore seal keygen --out DIR --subtree PATH` makes one"
    " that has"
)


def _no_key(record: Record) -> str:
    key = record.seal.key if record.seal else ""
    return (
        f"it is sealed with the key {key}, which no keyring here has: bring the keyring that has it;"
        " `configstore seal status` with the master says whose it is"
    )
