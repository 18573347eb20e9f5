"""The cipher, in the only module that knows PyNaCl. `model.seal` describes the format. Called by `envelope`."""

import secrets

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from configstore.model.path import StorePath
from configstore.model.record import Entry, Record, Seal
from configstore.model.seal import (
    ALGORITHM,
    Key,
    SealedKind,
    SealingError,
    bound_to,
    closed,
    loser_name,
    opened,
    piece_name,
)

NONCE = 24
"""Bytes of a nonce: so many that two random ones are never equal."""


class SealedEnvelope:
    """The envelope of one path with one key; see `envelope.Envelope`."""

    def __init__(self, key: Key, root: str, path: StorePath, place: SealedKind) -> None:
        self._key = key
        self._root = root
        self._path = path
        self._place = place

    def encode(self, record: Record) -> bytes:
        """Return the bytes of a record. Raises RecordError when its entry and its content do not fit."""
        nonce = secrets.token_bytes(NONCE)
        line, inside = closed(record, Seal(alg=ALGORITHM, key=self._key.id, nonce=nonce.hex()))
        return line + b"\n" + self._encrypt(inside, line, nonce)

    def open(self, record: Record, value: bytes) -> Record:
        """Return a sealed record with what was sealed. Raises SealingError, RecordError."""
        if record.seal is None or record.seal.alg != ALGORITHM:
            raise SealingError(f"sealed by another algorithm than {ALGORITHM}; a later configstore may know it")
        line, _, sealed = value.partition(b"\n")
        return opened(record, self._decrypt(sealed, line, bytes.fromhex(record.seal.nonce)))

    def name(self, piece: bytes) -> str:
        """Return the name of a piece of content, which is the same for the same piece of this path."""
        return piece_name(self._key, self._place, self._root, self._path, piece)

    def close_piece(self, name: str, piece: bytes) -> bytes:
        """Return the bytes of a piece: its nonce and the ciphertext."""
        nonce = secrets.token_bytes(NONCE)
        return nonce + self._encrypt(piece, b"piece\0" + name.encode(), nonce)

    def open_piece(self, name: str, value: bytes) -> bytes:
        """Return a piece. Raises RecordError when it is not the one of that name."""
        return self._decrypt(value[NONCE:], b"piece\0" + name.encode(), value[:NONCE])

    def loser(self, entry: Entry) -> str:
        """Return the id of a losing side, which is derived from its entry."""
        return loser_name(self._key, self._root, self._path, entry)

    def _encrypt(self, plaintext: bytes, rest: bytes, nonce: bytes) -> bytes:
        return crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, self._bound(rest), nonce, self._key.cipher)

    def _decrypt(self, sealed: bytes, rest: bytes, nonce: bytes) -> bytes:
        try:
            return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, self._bound(rest), nonce, self._key.cipher)
        except (CryptoError, ValueError, TypeError):  # the latter two of what has an impossible length
            raise SealingError(
                f"it does not open with its key {self._key.id}: it was changed, or moved here from another path;"
                " `configstore restore` or `put` replaces it"
            ) from None

    def _bound(self, rest: bytes) -> bytes:
        return bound_to(self._place, self._root, self._path, rest)
