"""Large content in chunks, and writers at the same time: in memory, and on a real etcd."""

import itertools
import json
import threading

import pytest

from configstore.errors import CorruptError
from configstore.model.keys import Keys, prefix_end
from configstore.model.record import INLINE_MAX, Entry, Kind, sha256
from configstore.store.api import Delete, Put
from configstore.store.memory import MemoryKv
from configstore.store.tree import Tree
from configstore.store.values import Write, Writer
from tests.servers import connect

DAY = 86400.0
LARGE = b"".join(bytes([number]) * (512 << 10) for number in range(3)) + b"end"


class Recorded:
    """A Kv that notes what is written through it."""

    def __init__(self, kv):
        self._kv = kv
        self.txns = []
        self.ranges = 0

    def txn(self, compares, operations, *, otherwise_get=()):
        self.txns.append((list(compares), list(operations)))
        return self._kv.txn(compares, operations, otherwise_get=otherwise_get)

    def range(self, *arguments, **options):
        self.ranges += 1
        return self._kv.range(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self._kv, name)

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
    return make_tree(kv, kv_root)


def make_tree(kv, root, **options):
    ids = itertools.count()
    writer = Writer(replica="r", host="h", now=lambda: "now", new_id=lambda: f"id-{id(ids)}-{next(ids)}")
    return Tree(kv, Keys(root), writer, **options)


def a_write(path, content=b"one", expected=0, **fields):
    entry = Entry(kind=Kind.FILE, mode=0o600, size=len(content), sha256=sha256(content))
    return Write(path=path, entry=entry, content=content, expected=expected, **fields)


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
    tree._chunks.send("a", LARGE)
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


def test_two_writers_of_one_path_lose_nothing(tree, kv_root):
    accepted = []

    def write(name):
        own = make_tree(tree.kv._kv, kv_root)
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
