r"""The record of a path, and its format in the store: one line of JSON (the header), a newline, small content.

    {"v":1,"kind":"file","mode":"0600","uid":0,...,"size":6,"sha256":"…","write_id":"…",...}\n
    secret

The header of a sealed record (`"v":2`) lacks the digest, the link's target and the chunks' names, which are sealed
together with the content (`model.seal`). Here such a record is read without being opened.

Only `encode`, `header_line` and `decode` read and write that format; all others use `Record`. Content is never
quoted in an error.
"""

import enum
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import msgspec

from configstore.model import untrusted
from configstore.model.path import StorePath, depth
from configstore.model.untrusted import UntrustedError

PLAIN, SEALED = 1, 2
"""The header versions. A record of a later version is refused: its fields may mean something else."""

INLINE_MAX = 64 * 1024
"""Content up to this many bytes is stored in the record itself, larger content in chunks."""

CHUNK_SIZE = 512 * 1024
"""Bytes of one chunk: a third of etcd's default request limit (1.5 MiB, `--max-request-bytes`)."""

MAX_SIZE = 30 * 1024 * 1024
"""The largest file that is stored, in bytes: 60 chunks, so that one txn can name those of two versions."""

MAX_DELETION = 10_000_000
"""The largest number of tombstones that one deletion may claim to have."""

Source = Callable[[], Iterable[bytes]]
"""A content that need not be in memory: each call returns all of it in pieces of CHUNK_SIZE bytes, the last one
shorter. Its exceptions pass through the functions that read it."""

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_MODE_BITS = 0o777


class RecordError(ValueError):
    """The bytes are not a record that this version can read; the message says why, and quotes no content."""


class Kind(enum.StrEnum):
    """What a path is."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"
    GONE = "gone"


PLACING_ORDER = {Kind.DIR: 0, Kind.FILE: 1, Kind.SYMLINK: 2, Kind.GONE: 3}
"""The order in which the paths of a set change: directories before what they hold, files before links to them."""


def placing_order(path: StorePath, kind: Kind) -> tuple[int, int, StorePath]:
    """Return a change's sort key: by PLACING_ORDER, then from the top down, for deletes from the bottom up."""
    return PLACING_ORDER[kind], -depth(path) if kind is Kind.GONE else depth(path), path


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a path is, without when and by whom it was written; the value that both sides compare.

    mode: permission bits, at most 0o777 (setuid, setgid and sticky are never stored); 0 for links and tombstones.
    uid, gid, user, group: the owner by number and by name; None leaves it to the replica's mapping.
    size, sha256: of the content, in bytes and hexadecimal; of a tombstone, those of the deleted content.
        Otherwise 0 and "".
    target: the target of a symlink; else "".
    """

    kind: Kind
    mode: int = 0
    uid: int | None = None
    gid: int | None = None
    user: str | None = None
    group: str | None = None
    size: int = 0
    sha256: str = ""
    target: str = ""

    def same_content(self, other: "Entry") -> bool:
        """Return whether kind, content and target are equal, whatever mode and owner are."""
        return (self.kind, self.sha256, self.target) == (other.kind, other.sha256, other.target)

    def alike(self, other: "Entry", *, owners: bool = True) -> bool:
        """Return whether both are equal but for the owners' names; an owner that one side leaves open is equal.

        owners: whether owners count at all.
        """
        if not self.same_content(other) or self.mode != other.mode:
            return False
        pairs = ((self.uid, other.uid), (self.gid, other.gid)) if owners else ()
        return all(None in pair or pair[0] == pair[1] for pair in pairs)


def tombstone(of: Entry | None = None) -> Entry:
    """Return the entry of a deleted path; `of`, where it is known, is what was deleted."""
    return Entry(kind=Kind.GONE, size=of.size, sha256=of.sha256) if of else Entry(kind=Kind.GONE)


class Deletion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One deletion as a person made it, with any number of tombstones and transactions.

    id: the same in all its tombstones, at most 64 printable characters. count: the number of its tombstones, so
    that a reader of one of them knows whether it has seen all. confirmed: a person was asked, or named the path.
    """

    id: str
    count: int
    confirmed: bool = False


class Origin(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """By whom and when a write was made.

    write_id: unique for every write; by it the outcome of a txn with a lost answer is found out.
    replica, host: the sidecar's replica id (or "cli") and its host name.
    time: RFC 3339, UTC, for people only: no decision depends on it.
    lease: name of the lease under which it was made, or None.
    supersedes: the mod_revision of the record that it replaced, 0 for none; by it a gap in a history is noticed.
    deletion: the deletion of which a tombstone is a part, or None.
    """

    write_id: str
    replica: str
    host: str
    time: str
    lease: str | None = None
    supersedes: int = 0
    deletion: Deletion | None = None


class Seal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a value is sealed: the algorithm, the key's id, and the nonce in hexadecimal."""

    alg: Annotated[str, msgspec.Meta(max_length=32)]
    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
    nonce: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{48}$")]


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An entry, its origin, and its content: inline, or as the names of its chunks in order.

    seal: how it was sealed in the store; None if it was plain.
    locked: why its content must not be used, and what to do: no key opens it, or it is plain where sealed records
    are required. The digest, target, content and chunks of a locked sealed record are unknown.
    """

    entry: Entry
    origin: Origin
    content: bytes | None = None
    chunks: tuple[str, ...] = ()
    seal: Seal | None = None
    locked: str = ""

    def __repr__(self) -> str:
        """Show everything but the content: it may be a private key, and tracebacks show this text."""
        return f"Record({self.entry!r}, {self.origin!r}, {shown_size(self.content)}, {len(self.chunks)} chunks)"


class _Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    v: int
    kind: Kind
    mode: Annotated[str, msgspec.Meta(pattern="^0[0-7]{3,4}$")] | None = None
    uid: Annotated[int, msgspec.Meta(ge=0, lt=2**32 - 1)] | None = None
    gid: Annotated[int, msgspec.Meta(ge=0, lt=2**32 - 1)] | None = None
    user: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    group: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)] | None = None
    sha256: str = ""
    target: Annotated[str, msgspec.Meta(max_length=4095)] = ""
    chunks: tuple[str, ...] = ()
    write_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    replica: Annotated[str, msgspec.Meta(max_length=256)] = ""
    host: Annotated[str, msgspec.Meta(max_length=256)] = ""
    time: Annotated[str, msgspec.Meta(max_length=64)] = ""
    lease: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    supersedes: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    deletion: Deletion | None = None
    seal: Seal | None = None


class _Version(msgspec.Struct, frozen=True):
    v: int


_header_decoder = msgspec.json.Decoder(_Header)
_version_decoder = msgspec.json.Decoder(_Version)


def encode(record: Record) -> bytes:
    """Return the bytes of a plain record. Raises RecordError when entry and content do not match."""
    check(record)
    return header_line(record) + b"\n" + (record.content or b"")


def header_line(record: Record, *, seal: Seal | None = None) -> bytes:
    """Return the header as it is stored, without the newline. seal: how the remaining fields are sealed."""
    entry, origin = record.entry, record.origin
    return msgspec.json.encode(
        _Header(
            v=SEALED if seal else PLAIN,
            kind=entry.kind,
            mode=f"{entry.mode:04o}" if entry.kind in {Kind.FILE, Kind.DIR} else None,
            uid=entry.uid,
            gid=entry.gid,
            user=entry.user,
            group=entry.group,
            size=entry.size if entry.size or entry.kind is Kind.FILE else None,
            sha256="" if seal else entry.sha256,
            target="" if seal else entry.target,
            chunks=() if seal else record.chunks,
            write_id=origin.write_id,
            replica=origin.replica,
            host=origin.host,
            time=origin.time,
            lease=origin.lease,
            supersedes=origin.supersedes,
            deletion=origin.deletion,
            seal=seal,
        )
    )


def decode(value: bytes) -> Record:
    """Return the record in untrusted bytes; a sealed one as far as it is readable without its key.

    Inline content is checked against its digest. Raises RecordError.
    """
    line, newline, rest = value.partition(b"\n")
    if not newline:
        raise RecordError("not a record: no header line")
    header = _read_header(line)
    kind = header.kind
    has_mode = kind is Kind.FILE or kind is Kind.DIR
    has_size = kind is Kind.FILE or kind is Kind.GONE  # of another kind it is dropped: scanned entries have none
    entry = Entry(
        kind=kind,
        mode=int(header.mode or "0", 8) & _MODE_BITS if has_mode else 0,
        uid=header.uid,
        gid=header.gid,
        user=header.user,
        group=header.group,
        size=(header.size or 0) if has_size else 0,
        sha256=header.sha256 if has_size else "",
        target=header.target,
    )
    origin = Origin(
        write_id=header.write_id,
        replica=header.replica,
        host=header.host,
        time=header.time,
        lease=header.lease,
        supersedes=header.supersedes,
        deletion=header.deletion,
    )
    if header.seal:
        check_deletion(entry, header.deletion)
        return Record(entry=entry, origin=origin, seal=header.seal, locked="it is sealed")
    content = rest if entry.kind is Kind.FILE and not header.chunks else None
    if content is None and rest:
        raise RecordError(f"a {header.kind} record with content behind its header")
    record = Record(entry=entry, origin=origin, content=content, chunks=header.chunks)
    check(record)
    return record


def _read_header(line: bytes) -> _Header:
    try:
        header = untrusted.decode(line, _header_decoder)
    except UntrustedError as error:
        raise RecordError(_later_version(line) or f"not a record: {error}") from None
    if header.v not in {PLAIN, SEALED}:
        raise RecordError(_unknown_version(header.v))
    if (header.v == SEALED) != (header.seal is not None):
        raise RecordError(f"header version {header.v} {'with' if header.seal else 'without'} a seal")
    if header.seal and (header.sha256 or header.target or header.chunks):
        raise RecordError("a sealed record with a digest, target or chunks outside of its seal")
    return header


def _later_version(line: bytes) -> str | None:
    """Return why a header of another version, whose fields may mean something else, is not read; else None."""
    try:
        version = untrusted.decode(line, _version_decoder).v
    except UntrustedError:
        return None
    return _unknown_version(version) if version not in {PLAIN, SEALED} else None


def _unknown_version(version: int) -> str:
    return f"header version {version}; this configstore reads up to {SEALED}: upgrade it"


def check(record: Record) -> None:
    """Raise RecordError when a record's entry and its content do not match."""
    entry, content, chunks = record.entry, record.content, record.chunks
    check_deletion(entry, record.origin.deletion)
    if entry.kind is Kind.SYMLINK:
        if not entry.target or "\0" in entry.target:
            raise RecordError("a symlink record without a usable target")
    elif entry.target:
        raise RecordError(f"a {entry.kind} record with a link target")
    whole = (entry.sha256,) if entry.sha256 or entry.kind is Kind.FILE else ()
    if not all(map(_DIGEST.match, (*whole, *chunks))):
        raise RecordError("a digest is not SHA-256 in hexadecimal")
    if entry.kind is not Kind.FILE:
        if chunks or content is not None:
            raise RecordError(f"a {entry.kind} record with content")
        return
    if chunks:
        if entry.size > MAX_SIZE or content is not None or len(chunks) != -(-entry.size // CHUNK_SIZE):
            raise RecordError("the number of chunks does not fit the size, or a file may not have it")
    elif content is None or len(content) != entry.size or sha256(content) != entry.sha256:
        raise RecordError("the content does not match its size or digest")


def check_deletion(entry: Entry, deletion: Deletion | None) -> None:
    """Raise RecordError when an entry cannot be a part of the deletion that it names."""
    if deletion is None:
        return
    if entry.kind is not Kind.GONE:
        raise RecordError(f"a {entry.kind} record that says it is part of a deletion")
    if not 0 < len(deletion.id) <= 64 or not deletion.id.isprintable():
        raise RecordError("the id of its deletion is not 1 to 64 printable characters")
    if not 0 < deletion.count <= MAX_DELETION:
        raise RecordError(f"the count of its deletion is not between 1 and {MAX_DELETION}")


def shown_size(content: bytes | Source | None) -> str:
    """Return content as it may be shown: by its size."""
    if content is None:
        return "no content"
    return f"<{len(content)} bytes>" if isinstance(content, bytes) else "<content in pieces>"


def sha256(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def is_name(text: str) -> bool:
    """Return whether a text may be a chunk's name, which looks like a SHA-256 in hexadecimal."""
    return bool(_DIGEST.match(text))


def split(content: bytes) -> Iterator[bytes]:
    """Cut large content into its chunks; only the last may be shorter than CHUNK_SIZE."""
    return (content[start : start + CHUNK_SIZE] for start in range(0, len(content), CHUNK_SIZE))


def checked(pieces: Iterable[bytes], entry: Entry) -> Iterator[bytes]:
    """Yield a content's pieces one at a time while they match `entry`.

    Raises RecordError at the first piece of a wrong length, and after the last one when all together do not have
    the entry's size and digest.
    """
    whole, size = hashlib.sha256(), 0
    for piece in pieces:
        if len(piece) != min(CHUNK_SIZE, entry.size - size):
            raise RecordError("the content does not match its size")
        whole.update(piece)
        size += len(piece)
        yield piece
    if size != entry.size or whole.hexdigest() != entry.sha256:
        raise RecordError("the content does not match its size or digest")
