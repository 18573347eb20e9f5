r"""The format of sealed values, and the keys: everything about sealing but the cipher itself (`store.sealing`).

    {"v":2,"kind":"file",…,"size":6,"write_id":"…","seal":{"alg":"xchacha20poly1305","key":"3f…","nonce":"a1…"}}\n
    <ciphertext>

The plaintext is a line of JSON (digest, link target, chunk names), a newline, and small content. The associated
data are a tag for the kind of value, the root key, the path, and the header line as it is stored. So a record that
was moved to another path or store, or given another mode, owner or writer, does not open.

Keys form a tree, each by HKDF-Expand (RFC 5869 §2.3) from the one above it:

    master secret ─ key of a subtree ─┬─ id, public: how a header names the key
                                      ├─ the cipher's key
                                      └─ the key by which chunks and losing sides are named

From a subtree's key, neither the master secret nor another subtree's key can be computed. A record is sealed with
the key of the longest subtree that contains its path.
"""

import enum
import hmac
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated

import msgspec

from configstore.model import untrusted
from configstore.model.path import ROOT, PathError, StorePath, ancestors, is_below, parse_path, shown
from configstore.model.record import Entry, Record, RecordError, Seal, check, header_line
from configstore.model.untrusted import UntrustedError

ALGORITHM = "xchacha20poly1305"
"""The only algorithm: XChaCha20-Poly1305 in its IETF form (draft-irtf-cfrg-xchacha-03), by libsodium's name."""

SECRET = 32
"""Bytes of a master secret, and of every key that is derived from one."""

MAX_KEYRING = 4 * 1024 * 1024
"""Bytes of the longest keyring that is read."""


class Policy(enum.StrEnum):
    """The rule for sealing in a mapping's subtree, or for a command.

    required: all writes are sealed, and plain files and links are not used. accept: all writes are sealed, and
    plain records are used as well, for the time in which a store is being sealed. off: writes are plain; sealed
    records are used if the keyring opens them, for the way back.
    """

    REQUIRED = "required"
    ACCEPT = "accept"
    OFF = "off"


class SealedKind(enum.StrEnum):
    """The kind of a sealed value: neither opens as the other. A superseded record is of the kind RECORD."""

    RECORD = "record"
    CONFLICT = "conflict"


class KeyringError(ValueError):
    """A keyring cannot be used; the message says why, and quotes no secret."""


class SealingError(RecordError):
    """A record must not be used: no key opens it, it was changed or moved, or it is plain and must be sealed."""


class Key(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The key of one subtree. made: when, RFC 3339, for people."""

    subtree: StorePath
    secret: bytes
    made: str = ""

    def __repr__(self) -> str:
        """Show everything but the secret."""
        return f"Key({self.subtree!r}, id={self.id})"

    @cached_property
    def id(self) -> str:
        """The id by which a header names the key; the secret cannot be computed from it."""
        return derive(self.secret, "id").hex()[:16]

    @cached_property
    def cipher(self) -> bytes:
        """The key of the cipher."""
        return derive(self.secret, "cipher")

    @cached_property
    def naming(self) -> bytes:
        """The key by which names are made that reveal nothing about the content."""
        return derive(self.secret, "naming")

    def covers(self, path: StorePath) -> bool:
        """Return whether a path is in the subtree."""
        return self.subtree in (ROOT, path) or is_below(path, self.subtree)


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """One master secret, from which the keys of all subtrees follow. made: when, RFC 3339, for people."""

    secret: bytes
    made: str = ""

    def __repr__(self) -> str:
        """Show everything but the secret."""
        return f"Secret(made={self.made!r})"

    def key(self, subtree: StorePath) -> Key:
        """Return the key of a subtree."""
        return Key(subtree=subtree, secret=derive(self.secret, f"subtree {subtree}"), made=self.made)


class Master(msgspec.Struct, frozen=True, kw_only=True):
    """The master secrets, the newest first, and the subtrees that have keys of their own."""

    secrets: tuple[Secret, ...]
    subtrees: tuple[StorePath, ...] = ()

    def keyring(self) -> "Keyring":
        """Return the keyring that opens the whole store; the root's key is for paths in no listed subtree.

        It also opens values sealed with the key of a subtree that an older copy of the master does not list.
        """
        keys = self.keyring_of((*self.subtrees, ROOT)).keys
        return Keyring(keys=keys, secrets=self.secrets)

    def keyring_of(self, subtrees: Iterable[StorePath]) -> "Keyring":
        """Return the keyring of some subtrees."""
        wanted = sorted(set(subtrees))
        return Keyring(keys=tuple(secret.key(subtree) for secret in self.secrets for subtree in wanted))


class Keyring(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The keys of some subtrees, each subtree's newest first. secrets: the master's, if it was made from one."""

    keys: tuple[Key, ...]
    secrets: tuple[Secret, ...] = ()

    def for_writing(self, path: StorePath) -> Key | None:
        """Return the key to seal a path with: the newest of the longest subtree that contains it; else None."""
        around = (path, *reversed(ancestors(path)), ROOT)
        return next((self._newest[subtree] for subtree in around if subtree in self._newest), None)

    def find(self, key_id: str, path: StorePath) -> Key | None:
        """Return a key by its id; None if there is none, or if its subtree does not contain the path."""
        key = self._by_id.get(key_id)
        if key is None and self.secrets:
            made = (secret.key(subtree) for subtree in (path, *ancestors(path)) for secret in self.secrets)
            key = next((each for each in made if each.id == key_id), None)
        return key if key and key.covers(path) else None

    def fits(self, subtree: StorePath) -> bool:
        """Return whether anything in a subtree can be sealed with it."""
        return bool(self.of(subtree))

    def of(self, subtree: StorePath) -> tuple[Key, ...]:
        """Return the keys of all paths in a subtree, first the one with which the subtree itself is sealed."""
        first = self.for_writing(subtree)
        others = [key for key in self.keys if key.covers(subtree) or is_below(key.subtree, subtree)]
        return tuple(dict.fromkeys([first, *others] if first else others))

    @cached_property
    def _newest(self) -> dict[StorePath, Key]:
        return {key.subtree: key for key in reversed(self.keys)}

    @cached_property
    def _by_id(self) -> dict[str, Key]:
        return {key.id: key for key in self.keys}


def derive(secret: bytes, use: str) -> bytes:
    """Return the key for one use (HKDF-Expand with SHA-256, one block; `secret` is uniformly random already)."""
    return hmac.digest(secret, b"configstore seal " + use.encode() + b"\x01", "sha256")


# Records


class _Inside(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The sealed part of a record's header."""

    sha256: str = ""
    target: Annotated[str, msgspec.Meta(max_length=4095)] = ""
    chunks: tuple[str, ...] = ()


_inside_decoder = msgspec.json.Decoder(_Inside)


def closed(record: Record, seal: Seal) -> tuple[bytes, bytes]:
    """Return a record's header line and the plaintext to seal. Raises RecordError, as `record.encode` does."""
    check(record)
    inside = _Inside(sha256=record.entry.sha256, target=record.entry.target, chunks=record.chunks)
    return header_line(record, seal=seal), msgspec.json.encode(inside) + b"\n" + (record.content or b"")


def opened(record: Record, plaintext: bytes) -> Record:
    """Return a sealed record completed by its plaintext. Raises RecordError."""
    line, _, rest = plaintext.partition(b"\n")
    try:
        inside = untrusted.decode(line, _inside_decoder)
    except UntrustedError as error:
        raise RecordError(f"what is sealed is no record: {error}") from None
    entry = msgspec.structs.replace(record.entry, sha256=inside.sha256, target=inside.target)
    content = rest if entry.kind == "file" and not inside.chunks else None
    if content is None and rest:
        raise RecordError(f"a {entry.kind} record with content behind its header")
    whole = msgspec.structs.replace(record, entry=entry, content=content, chunks=inside.chunks, locked="")
    check(whole)
    return whole


def bound_to(place: SealedKind, root: str, path: StorePath, rest: bytes) -> bytes:
    """Return the bytes that identify one value of one path: the associated data, and the input of a name.

    No path and no root has a NUL, so no two values have the same bytes. rest: a record's header line, or a chunk's
    name.
    """
    return b"\0".join((b"configstore 2", place.encode(), root.encode(), path.encode(), rest))


# Names that show nothing


def piece_name(key: Key, place: SealedKind, root: str, path: StorePath, piece: bytes) -> str:
    """Return the name of a piece of content: equal only for equal pieces of one path and one kind."""
    return hmac.digest(key.naming, b"piece\0" + bound_to(place, root, path, piece), "sha256").hex()


def loser_name(key: Key, root: str, path: StorePath, entry: Entry) -> str:
    """Return the id of a losing side, which is derived from its entry."""
    what = bound_to(SealedKind.CONFLICT, root, path, identity(entry))
    return hmac.digest(key.naming, b"loser\0" + what, "sha256").hex()[:24]


def identity(entry: Entry) -> bytes:
    """Return the bytes that are equal for two losing sides of a path that count as one."""
    return f"{entry.kind} {entry.mode:o} {entry.sha256} {entry.target}".encode()


# Keyrings as files


class _KeyLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    subtree: str
    secret: str
    id: str = ""
    made: str = ""


class _SecretLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    secret: str
    made: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A keyring has keys; a master's file has secrets and subtrees."""

    keyring: int
    keys: tuple[_KeyLine, ...] = ()
    secrets: tuple[_SecretLine, ...] = ()
    subtrees: tuple[str, ...] = ()


_file_decoder = msgspec.json.Decoder(_File)


def dump(ring: Keyring | Master) -> bytes:
    """Return the bytes of a keyring's file, which people can read and print."""
    if isinstance(ring, Master):
        secrets = tuple(_SecretLine(secret=each.secret.hex(), made=each.made) for each in ring.secrets)
        file = _File(keyring=1, secrets=secrets, subtrees=tuple(path or "/" for path in ring.subtrees))
    else:
        file = _File(keyring=1, keys=tuple(_key_line(key) for key in ring.keys))
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def _key_line(key: Key) -> _KeyLine:
    return _KeyLine(id=key.id, subtree=key.subtree or "/", secret=key.secret.hex(), made=key.made)


def parse(text: bytes) -> Keyring | Master:
    """Return the keyring or master in a file's text. Raises KeyringError."""
    try:
        file = untrusted.decode(text, _file_decoder, limit=MAX_KEYRING)
    except UntrustedError as error:
        raise KeyringError(f"no keyring: {error}") from None
    if file.keyring != 1:
        raise KeyringError(f"a keyring of version {file.keyring}; this configstore reads 1: upgrade it")
    if bool(file.keys) == bool(file.secrets):
        raise KeyringError("no keyring: expected either keys or secrets")
    if file.secrets:
        secrets = tuple(Secret(secret=_secret(each.secret), made=each.made) for each in file.secrets)
        return Master(secrets=secrets, subtrees=tuple(_subtree(path) for path in file.subtrees))
    return Keyring(keys=tuple(_key(line) for line in file.keys))


def _key(line: _KeyLine) -> Key:
    key = Key(subtree=_subtree(line.subtree), secret=_secret(line.secret), made=line.made)
    if line.id != key.id:
        raise KeyringError(f"the id of the key of {shown(key.subtree) or '/'} is not that of its secret")
    return key


def _subtree(text: str) -> StorePath:
    try:
        return ROOT if text == "/" else parse_path(text)
    except PathError as error:
        raise KeyringError(f"a subtree of it: {error}") from None


def _secret(text: str) -> bytes:
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != SECRET or len(text) != 2 * SECRET:
        raise KeyringError(f"a secret of it is not {SECRET} bytes in hexadecimal")
    return secret
