"""Records: what goes in comes out, and hostile bytes never do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configstore.model.record import (
    CHUNK_SIZE,
    Entry,
    Kind,
    Origin,
    Record,
    RecordError,
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
