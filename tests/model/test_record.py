"""Records: what goes in comes out, and hostile bytes never do."""

import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configstore.model.record import (
    CHUNK_SIZE,
    MAX_DELETION,
    MAX_SIZE,
    Deletion,
    Entry,
    Kind,
    Origin,
    Record,
    RecordError,
    checked,
    decode,
    encode,
    sha256,
    split,
)

ORIGIN = Origin(write_id="w1", replica="front-1", host="node-1", time="2026-01-01T00:00:00Z", lease=None)


def file_record(content=b"secret", **fields):
    entry = Entry(kind=Kind.FILE, mode=0o600, size=len(content), sha256=sha256(content), **fields)
    return Record(entry=entry, origin=ORIGIN, content=content)


def header_of(record):
    return json.loads(encode(record).partition(b"\n")[0])


def altered(**fields):
    header = header_of(file_record()) | fields
    return json.dumps({name: value for name, value in header.items() if value is not ...}).encode() + b"\nsecret"


def test_a_person_can_read_the_header():
    record = file_record(uid=100, gid=101, user="mailu", group="mailu")
    assert header_of(record) == {
        "v": 1,
        "kind": "file",
        "mode": "0600",
        "uid": 100,
        "gid": 101,
        "user": "mailu",
        "group": "mailu",
        "size": 6,
        "sha256": sha256(b"secret"),
        "write_id": "w1",
        "replica": "front-1",
        "host": "node-1",
        "time": "2026-01-01T00:00:00Z",
    }
    assert encode(record).endswith(b"\nsecret")


def test_the_header_of_an_empty_file_says_its_size_too():
    assert header_of(file_record(b""))["size"] == 0
    assert "size" not in header_of(Record(entry=Entry(kind=Kind.DIR, mode=0o700), origin=ORIGIN))


def test_a_record_of_an_empty_file_without_its_size_can_be_read():
    record = file_record(b"")
    header = {name: value for name, value in header_of(record).items() if name != "size"}
    assert decode(json.dumps(header).encode() + b"\n") == record


@given(st.binary(max_size=2000))
def test_any_content_survives(content):
    record = file_record(content)
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    "entry",
    [
        Entry(kind=Kind.DIR, mode=0o700, uid=0, gid=0),
        Entry(kind=Kind.SYMLINK, target="../../archive/mailu/cert1.pem"),
        Entry(kind=Kind.GONE, size=6, sha256=sha256(b"secret")),
    ],
)
def test_what_has_no_content_survives(entry):
    record = Record(entry=entry, origin=ORIGIN)
    assert decode(encode(record)) == record


def test_large_content_is_named_by_its_chunks():
    content = b"x" * (2 * CHUNK_SIZE + 1)
    entry = Entry(kind=Kind.FILE, mode=0o600, size=len(content), sha256=sha256(content))
    record = Record(entry=entry, origin=ORIGIN, chunks=tuple(map(sha256, split(content))))
    assert len(record.chunks) == 3
    assert decode(encode(record)) == record


def tombstone_of(**fields):
    return msgspec.structs.replace(
        Record(entry=Entry(kind=Kind.GONE), origin=ORIGIN),
        origin=msgspec.structs.replace(ORIGIN, deletion=Deletion(**fields)),
    )


@pytest.mark.parametrize(
    "fields", [{"id": "d1", "count": 1}, {"id": "é" * 64, "count": MAX_DELETION, "confirmed": True}]
)
def test_a_tombstone_tells_of_which_deletion_it_is_a_part(fields):
    record = tombstone_of(**fields)
    assert header_of(record)["deletion"] == fields
    assert decode(encode(record)) == record
    assert "deletion" not in header_of(Record(entry=Entry(kind=Kind.GONE), origin=ORIGIN))


@pytest.mark.parametrize(
    "deletion",
    [
        {"count": 1},
        {"id": "d"},
        {"id": "", "count": 1},
        {"id": "d" * 65, "count": 1},
        {"id": "d\x1b[2J", "count": 1},
        {"id": "d\u202e", "count": 1},
        {"id": 7, "count": 1},
        {"id": "d", "count": 0},
        {"id": "d", "count": -1},
        {"id": "d", "count": MAX_DELETION + 1},
        {"id": "d", "count": 10**400},
        {"id": "d", "count": 1.5},
        {"id": "d", "count": True},
        {"id": "d", "count": 1, "confirmed": "yes"},
        {"id": "d", "count": 1, "confirmed": 1},
        ["d", 1],
        "d",
    ],
)
def test_a_deletion_that_is_none_is_refused(deletion):
    header = {"v": 1, "kind": "gone", "write_id": "w", "deletion": deletion}
    with pytest.raises(RecordError):
        decode(json.dumps(header).encode() + b"\n")


def test_only_a_tombstone_is_part_of_a_deletion():
    deletion = {"id": "d", "count": 1}
    with pytest.raises(RecordError, match="file record that says it is part of a deletion"):
        decode(altered(deletion=deletion))
    origin = msgspec.structs.replace(ORIGIN, deletion=Deletion(**deletion))
    with pytest.raises(RecordError, match="dir record"):
        encode(Record(entry=Entry(kind=Kind.DIR), origin=origin))
    with pytest.raises(RecordError, match="count"):
        encode(tombstone_of(id="d", count=0))


def pieces(size):
    return list(split(b"x" * size))


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE])
def test_pieces_that_are_what_the_entry_says_are_handed_on(size):
    entry = Entry(kind=Kind.FILE, size=size, sha256=sha256(b"x" * size))
    assert list(checked(pieces(size), entry)) == pieces(size)


@pytest.mark.parametrize(
    "wrong",
    [
        pieces(2 * CHUNK_SIZE),
        pieces(2 * CHUNK_SIZE + 2),
        pieces(3 * CHUNK_SIZE),
        [*pieces(2 * CHUNK_SIZE), b"y"],
        [b"x", *pieces(2 * CHUNK_SIZE)],
        [b"x" * (2 * CHUNK_SIZE + 1)],
        [*pieces(2 * CHUNK_SIZE + 1), b"x"],
        [],
    ],
)
def test_pieces_that_are_not_what_the_entry_says_are_refused(wrong):
    size = 2 * CHUNK_SIZE + 1
    with pytest.raises(RecordError):
        list(checked(wrong, Entry(kind=Kind.FILE, size=size, sha256=sha256(b"x" * size))))


def test_no_more_is_taken_of_a_source_without_an_end_than_the_entry_says():
    taken = []
    source = (taken.append(1) or b"x" * CHUNK_SIZE for _ in itertools.repeat(None))
    with pytest.raises(RecordError):
        list(checked(source, Entry(kind=Kind.FILE, size=CHUNK_SIZE, sha256=sha256(b"x" * CHUNK_SIZE))))
    assert len(taken) == 2


def test_a_record_of_more_than_a_file_may_have_is_not_written():
    content = b"x" * (MAX_SIZE + 1)
    entry = Entry(kind=Kind.FILE, size=len(content), sha256=sha256(content))
    with pytest.raises(RecordError):
        encode(Record(entry=entry, origin=ORIGIN, chunks=tuple(map(sha256, split(content)))))


def test_json_nested_too_deep_is_no_record():
    with pytest.raises(RecordError):
        decode(b'{"v":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "no header line"),
        (b"secret", "no header line"),
        (b"secret\nsecret", "malformed"),
        (b"[]\n", "not a record"),
        (altered(v=2), "version 2"),
        (altered(v=...), "required field `v`"),
        (altered(kind="device"), "kind"),
        (altered(mode="4755"), "mode"),
        (altered(mode="rw"), "mode"),
        (altered(uid=-1), "uid"),
        (altered(uid=2**32 - 1), "uid"),
        (altered(size=7), "does not match"),
        (altered(size=2**60), "size"),
        (altered(sha256="0" * 64), "does not match"),
        (altered(sha256="../../etc"), "not SHA-256"),
        (altered(chunks=["a"]).removesuffix(b"secret"), "not SHA-256"),
        (altered(write_id=""), "write_id"),
        (altered(target="x"), "link target"),
        (altered(kind="dir"), "content"),
        (altered(kind="symlink", sha256=..., size=...), "target|content"),
    ],
)
def test_what_is_no_record_is_refused_without_quoting_it(value, reason):
    with pytest.raises(RecordError, match=reason) as caught:
        decode(value)
    assert "secret" not in str(caught.value)


@given(st.binary(max_size=300))
def test_garbage_never_raises_anything_else(value):
    with pytest.raises(RecordError):
        decode(value)


def test_a_setuid_bit_never_travels():
    assert decode(altered(mode="04755")).entry.mode == 0o755


def test_fields_of_a_later_minor_are_ignored():
    assert decode(altered(flavour="new")).entry.kind is Kind.FILE


def test_content_is_never_shown():
    assert "secret" not in repr(file_record())


def test_what_a_link_or_a_directory_cannot_have_is_not_taken_from_its_header():
    text = (
        b'{"v":1,"kind":"symlink","mode":"0600","size":3,"sha256":"'
        + b"1" * 64
        + b'","target":"x","write_id":"w"}\n'
    )
    assert decode(text).entry == Entry(kind=Kind.SYMLINK, target="x")
    text = b'{"v":1,"kind":"dir","mode":"0750","size":3,"sha256":"' + b"1" * 64 + b'","write_id":"w"}\n'
    assert decode(text).entry == Entry(kind=Kind.DIR, mode=0o750)


def test_a_tombstone_with_another_digest_than_sha_256_is_no_record():
    with pytest.raises(RecordError, match="SHA-256"):
        decode(b'{"v":1,"kind":"gone","sha256":"x","write_id":"w"}\n')
