"""Large content in chunks, and writers at the same time: in memory, and on a real etcd."""

import collections
import hashlib
import json
import threading
import time
import tracemalloc
from time import CLOCK_BOOTTIME

import msgspec
import pytest

from configstore.errors import CorruptError
from configstore.model.keys import prefix_end
from configstore.model.record import CHUNK_SIZE, INLINE_MAX, Entry, Kind, RecordError, sha256, split
from configstore.store.api import Delete, Put
from configstore.store.chunks import Chunks
from configstore.store.conflicts import losers, pieces_of
from configstore.store.envelope import PLAIN
from configstore.store.items import decode_superseded
from configstore.store.values import Write
from tests.harness.named import a_tree, a_write
from tests.harness.servers import connect
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv

DAY = 86400.0
LARGE = b"".join(bytes([number]) * (512 << 10) for number in range(3)) + b"end"


class Recorded:
    """A Kv that notes what is written through it."""

    def __init__(self, kv):
        self.kv = kv
        self.txns = []
        self.ranges = 0

    def txn(self, compares, operations, *, otherwise_get=()):
        self.txns.append((list(compares), list(operations)))
        return self.kv.txn(compares, operations, otherwise_get=otherwise_get)

    def range(self, *arguments, **options):
        self.ranges += 1
        return self.kv.range(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self.kv, name)

    def puts(self, part):
        return [op for _, ops in self.txns for op in ops if isinstance(op, Put) and part in op.key]


@pytest.fixture(params=["memory", "etcd"])
def kv(request):
    """The store under test."""
    client = MemoryKv() if request.param == "memory" else connect(request.getfixturevalue("etcd").endpoint)
    with client:
        yield Recorded(client)


@pytest.fixture
def tree(kv, kv_root):
    """The tree under test, below a root of its own."""
    return a_tree(kv, kv_root)


def put(tree, path, content=b"one", expected=0, retention=DAY):
    outcome = tree.commit([a_write(path, content, expected)], retention=retention)
    assert outcome.complete
    return outcome.done[path]


def items(tree, part):
    prefix = f"{tree.keys.root}/{part}".encode()
    return tree.kv.range(prefix, prefix_end(prefix)).items


def test_a_caller_that_has_the_record_at_hand_saves_the_read(tree):
    put(tree, "a")
    found = tree.read("a")
    before = len(tree.kv.txns)
    tree.commit([a_write("a", b"two", found.mod_revision, previous=found)], retention=DAY)
    assert len(tree.kv.txns) == before + 1
    assert items(tree, "past/a//")[0].value.endswith(b"\none")


def test_only_changed_chunks_are_sent_again(tree):
    first = put(tree, "a", LARGE)
    assert len(tree.kv.puts(b"/chunks/")) == 4
    changed = LARGE[: 1 << 19] + b"y" + LARGE[(1 << 19) + 1 :]
    put(tree, "a", changed, first)
    assert len(tree.kv.puts(b"/chunks/")) == 5
    assert tree.content(tree.read("a")) == changed


def test_chunks_are_bound_to_a_lease_until_their_record_is_committed(tree):
    Chunks(tree.kv, tree.keys, clock=time.monotonic).take("a", a_write("a", LARGE).entry, LARGE, envelope=PLAIN)
    assert all(item.lease for item in items(tree, "chunks/a//"))
    put(tree, "a", LARGE)
    assert not any(item.lease for item in items(tree, "chunks/a//"))


def test_chunks_of_a_superseded_record_stay_for_its_retention(tree):
    put(tree, "a", b"small", put(tree, "a", LARGE))
    chunks = items(tree, "chunks/a//")
    assert len(chunks) == 4
    assert all(item.lease for item in chunks)


def test_content_just_inside_the_record_has_no_chunks(tree):
    put(tree, "a", b"x" * INLINE_MAX)
    assert items(tree, "chunks/") == ()


@pytest.mark.parametrize("damage", ["missing", "wrong"])
def test_a_damaged_chunk_is_an_error_that_names_the_path(tree, damage):
    put(tree, "a", LARGE)
    key = items(tree, "chunks/a//")[1].key
    tree.kv.txn([], [Delete(key) if damage == "missing" else Put(key, b"other")])
    with pytest.raises(CorruptError, match="a: chunk"):
        tree.content(tree.read("a"))


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["small", "large"])
def test_the_loser_of_a_conflict_is_kept_with_its_content(tree, content):
    write = a_write("a", content)
    kept = tree.keep_conflict("a", write.entry, content, retention=DAY)
    found = items(tree, f"conflicts/a//{kept}")
    assert all(item.lease for item in found)
    record = found[0].value
    assert b'"replica":"r"' in record
    whole = record.partition(b"\n")[2] or b"".join(
        next(item.value for item in found if item.key.endswith(digest.encode()))
        for digest in json.loads(record.partition(b"\n")[0])["chunks"]
    )
    assert whole == content


# Content in pieces


PIECES = 40
"""Of 512 KiB each: 20 MiB."""


class Living(bytes):
    """A piece that counts itself while it lives."""

    count = most = 0

    def __new__(cls, content):
        Living.count += 1
        Living.most = max(Living.most, Living.count)
        return super().__new__(cls, content)

    def __del__(self):
        Living.count -= 1


class Forgetful(MemoryKv):
    """A store that keeps nothing of what is put into chunks, so that memory is the sender's alone."""

    def txn(self, compares, operations, *, otherwise_get=()):
        kept = [Put(op.key, b"", op.lease) if isinstance(op, Put) and b"//" in op.key else op for op in operations]
        return super().txn(compares, kept, otherwise_get=otherwise_get)


def a_source(name, pieces=PIECES):
    """Return a source and its entry; each piece is made when it is asked for."""

    def source():
        return (Living(f"{name} {number}".encode().ljust(CHUNK_SIZE, b".")) for number in range(pieces))

    whole = hashlib.sha256()
    for piece in source():
        whole.update(piece)
    return source, Entry(kind=Kind.FILE, mode=0o600, size=pieces * CHUNK_SIZE, sha256=whole.hexdigest())


@pytest.fixture
def living():
    """Begin to count pieces anew."""
    Living.count = Living.most = 0
    return Living


def test_many_large_files_of_one_commit_are_never_in_memory_together(living):
    tree = a_tree(Forgetful(), "/memory")
    writes = []
    for number in range(40):
        source, entry = a_source(number)
        writes.append(Write(path=f"large/{number}", entry=entry, content=source))
    tracemalloc.start()
    try:
        outcome = tree.commit(writes, retention=DAY)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.complete
    assert living.most <= 3
    assert peak < 8 << 20


def test_the_loser_of_a_conflict_is_kept_piece_by_piece(living):
    tree = a_tree(Forgetful(), "/memory")
    source, entry = a_source("lost")
    tree.keep_conflict("a", entry, source, retention=DAY)
    assert living.most <= 3


def test_what_was_sent_in_pieces_comes_back_in_pieces(tree):
    source, entry = a_source("a", 3)
    tree.commit([Write(path="a", entry=entry, content=source)], retention=DAY)
    found = tree.read("a")
    assert list(tree.pieces(found)) == list(source())
    assert tree.content(found) == b"".join(source())
    name = tree.keep_conflict("a", entry, source, retention=DAY)
    (loser,) = losers(tree, "a")
    assert (loser.id, list(pieces_of(tree, loser))) == (name, list(source()))


@pytest.mark.parametrize("size", [0, 1, INLINE_MAX])
def test_small_content_in_pieces_lies_in_the_record(tree, size):
    content = b"x" * size
    entry = a_write("a", content).entry
    tree.commit([Write(path="a", entry=entry, content=lambda: [content][: len(content)])], retention=DAY)
    assert tree.read("a").record.content == content
    assert b"".join(tree.pieces(tree.read("a"))) == content
    assert items(tree, "chunks/") == ()


@pytest.mark.parametrize("size", [5, len(LARGE)])
@pytest.mark.parametrize("cut", [lambda content: content[:-1], lambda content: content[:-1] + b"?"])
@pytest.mark.parametrize("form", ["bytes", "pieces"])
def test_content_that_is_not_what_its_entry_says_stops_the_whole_set(tree, size, cut, form):
    write = a_write("b", LARGE[:size])
    wrong = cut(write.content)
    content = wrong if form == "bytes" else lambda: split(wrong)
    wrong_write = Write(path="b", entry=write.entry, content=content)
    with pytest.raises(RecordError, match="b: the content does not match"):
        tree.commit([a_write("a", b"one"), wrong_write, a_write("c", b"one")], retention=DAY)
    assert items(tree, "files/") == ()
    with pytest.raises(RecordError, match="b: the content does not match"):
        tree.keep_conflict("b", write.entry, content, retention=DAY)
    assert [item for item in items(tree, "conflicts/") if item.key.count(b"//") == 1] == []


def test_what_a_source_raises_passes_through_and_nothing_is_written(tree):
    def source():
        yield LARGE[:CHUNK_SIZE]
        raise TimeoutError("the disk is slow")

    with pytest.raises(TimeoutError):
        tree.commit(
            [a_write("a", b"one"), Write(path="b", entry=a_write("b", LARGE).entry, content=source)], retention=DAY
        )
    assert items(tree, "files/") == ()
    assert all(item.lease for item in items(tree, "chunks/"))


def test_pieces_that_do_not_add_up_are_an_error_behind_the_last_one(tree):
    put(tree, "a", LARGE)
    found = tree.read("a")
    swapped = msgspec.structs.replace(found.record, chunks=(found.record.chunks[1], *found.record.chunks[1:]))
    pieces = tree.pieces(msgspec.structs.replace(found, record=swapped))
    with pytest.raises(CorruptError, match="do not add up"):
        collections.deque(pieces, maxlen=0)


# Chunks of several versions


A, B, C = (bytes([letter]) * 200_000 for letter in b"ABC")


@pytest.fixture
def clocked(kv_root):
    """A tree whose store's clock is moved by hand, and that clock."""
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    return a_tree(MemoryKv(store), kv_root, clock=lambda: now[0]), now


def at(tree, path, revision):
    """A path's superseded content by the revision that it had."""
    (item,) = tree.kv.range(tree.keys.past(path, revision)).items
    return tree.content(decode_superseded(tree.keys, tree.envelopes, item))


def test_a_shorter_retention_does_not_shorten_what_another_version_was_promised(clocked):
    tree, now = clocked
    first = put(tree, "a", A)
    second = put(tree, "a", B, first, retention=30 * DAY)
    third = put(tree, "a", A, second, retention=30 * DAY)
    put(tree, "a", C, third, retention=5)
    now[0] = 29 * DAY
    assert (at(tree, "a", first), at(tree, "a", second)) == (A, B)
    now[0] = 31 * DAY
    assert [item.key for item in items(tree, "chunks/")] == [tree.keys.chunk("a", sha256(C))]


def test_a_version_without_retention_takes_no_chunk_from_one_that_has_it(clocked):
    tree, now = clocked
    first = put(tree, "a", A)
    second = put(tree, "a", B, first, retention=DAY)
    put(tree, "a", C, put(tree, "a", A, second, retention=0), retention=0)
    now[0] = 0.9 * DAY
    assert at(tree, "a", first) == A


def test_a_chunk_that_stayed_in_several_versions_stays_as_long_as_the_first_of_them(clocked):
    tree, now = clocked
    shared = b"s" * CHUNK_SIZE
    first = put(tree, "a", shared + A)
    second = put(tree, "a", shared + B, first, retention=30 * DAY)
    now[0] = DAY
    put(tree, "a", C, second, retention=2 * DAY)
    now[0] = 29 * DAY
    assert at(tree, "a", first) == shared + A


def test_a_longer_retention_counts_for_a_chunk_though_another_version_had_a_shorter_one(clocked):
    tree, now = clocked
    first = put(tree, "a", A)
    second = put(tree, "a", B, first, retention=5)
    third = put(tree, "a", A, second, retention=5)
    put(tree, "a", C, third, retention=30 * DAY)
    now[0] = 29 * DAY
    assert at(tree, "a", third) == A


def test_the_time_in_which_the_machine_was_suspended_counts(kv_root, monkeypatch):
    """A lease that etcd has counted down meanwhile serves no new write."""
    asleep, real = [0.0], time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: real(clock) + asleep[0] * (clock == CLOCK_BOOTTIME))
    tree = a_tree(MemoryKv(), kv_root)
    second = put(tree, "a", b"two", put(tree, "a", b"one"))
    asleep[0] = DAY / 2
    put(tree, "a", b"three", second)
    assert len({item.lease for item in items(tree, "past/a//")}) == 2


def test_two_writers_of_one_path_lose_nothing(tree, kv_root):
    accepted = []

    def write(name):
        own = a_tree(tree.kv.kv, kv_root)
        for number in range(20):
            content = f"{name}-{number}".encode()
            found = own.read("a")
            outcome = own.commit([a_write("a", content, found.mod_revision if found else 0)], retention=DAY)
            if outcome.complete:
                accepted.append(content)

    threads = [threading.Thread(target=write, args=(name,)) for name in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = {item.value.partition(b"\n")[2] for item in (*items(tree, "past/a//"), *items(tree, "files/a"))}
    assert kept == set(accepted)
    assert len(accepted) >= 20


def test_no_content_is_ever_shown(tree):
    put(tree, "a", b"hunter2")
    shown = (
        repr(a_write("a", b"hunter2")) + repr(tree.read("a")) + repr(tree.list("")) + repr(tree.read("a").record)
    )
    assert "hunter2" not in shown
