"""Records, chunks, past and conflicts on top of a key-value store: in memory, and on a real etcd."""

import itertools
import json
import threading

import pytest

from configstore.errors import CorruptError, StoreUnavailableError
from configstore.model.keys import Keys, prefix_end
from configstore.model.record import INLINE_MAX, Entry, Kind, sha256
from configstore.store.api import Delete, ModRevision, Put
from configstore.store.memory import MemoryKv
from configstore.store.tree import Bad, Fence, Tree, Write, Writer
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


def test_a_record_is_a_line_of_json_and_then_the_content(tree):
    put(tree, "dkim/a", b"precious\n")
    header, _, content = items(tree, "files/dkim/a")[0].value.partition(b"\n")
    assert json.loads(header) | {"kind": "file", "mode": "0600", "size": 9} == json.loads(header)
    assert content == b"precious\n"
    assert tree.content(tree.read("dkim/a")) == b"precious\n"


def test_what_is_superseded_goes_to_the_past_in_the_same_transaction(tree):
    first = put(tree, "a", b"one")
    second = put(tree, "a", b"two", first)
    gone = Write(path="a", entry=Entry(kind=Kind.GONE), expected=second)
    third = tree.commit([gone], retention=DAY).done["a"]
    past = items(tree, "past/a//")
    assert [item.value.partition(b"\n")[2] for item in past] == [b"one", b"two"]
    assert [item.mod_revision for item in past] == [second, third]
    assert all(item.lease for item in past)
    assert tree.read("a").gone


def test_without_a_retention_nothing_is_kept(tree):
    put(tree, "a", b"two", put(tree, "a"), retention=0)
    assert items(tree, "past/") == ()


def test_a_caller_that_has_the_record_at_hand_saves_the_read(tree):
    put(tree, "a")
    found = tree.read("a")
    before = len(tree.kv.txns)
    tree.commit([a_write("a", b"two", found.mod_revision, previous=found)], retention=DAY)
    assert len(tree.kv.txns) == before + 1
    assert items(tree, "past/a//")[0].value.endswith(b"\none")


def test_a_stale_compare_writes_nothing_of_its_set_and_tells_what_is_there(tree):
    first = put(tree, "a")
    second = put(tree, "a", b"theirs", first)
    outcome = tree.commit([a_write("new"), a_write("a", b"mine", first)], retention=DAY)
    assert (outcome.done, outcome.complete) == ({}, False)
    assert {path: found.mod_revision for path, found in outcome.stale.items()} == {"a": second}
    assert tree.read("new") is None


def test_a_set_has_one_revision_and_a_large_one_keeps_its_order(tree):
    small = tree.commit([a_write(f"s/{number:03}") for number in range(60)], retention=DAY)
    assert len(set(small.done.values())) == 1
    large = tree.commit([a_write(f"l/{number:03}", b"x" * 5000) for number in range(400)], retention=DAY)
    revisions = [large.done[f"l/{number:03}"] for number in range(400)]
    assert revisions == sorted(revisions)
    assert len(set(revisions)) == 4


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


def failing(kv, when, times=1):
    """Let the next commit's answer, or the call itself, be lost."""
    left = [times]

    def txn(compares, operations, *, otherwise_get=()):
        lost = operations and left[0] > 0
        if lost:
            left[0] -= 1
            if when == "after":
                kv.txn(compares, operations, otherwise_get=otherwise_get)
            raise StoreUnavailableError("lost")
        return kv.txn(compares, operations, otherwise_get=otherwise_get)

    return txn


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_is_found_out_and_nothing_is_written_twice(tree, monkeypatch, when):
    revision = put(tree, "a")
    monkeypatch.setattr(tree.kv, "txn", failing(tree.kv._kv, when))
    outcome = tree.commit([a_write("a", b"two", revision)], retention=DAY)
    assert outcome.complete
    assert tree.read("a").mod_revision == outcome.done["a"]
    assert len(items(tree, "past/a//")) == 1


def test_a_lost_answer_that_was_overwritten_since_is_stale(tree, kv_root, monkeypatch):
    revision = put(tree, "a")
    other = make_tree(tree.kv._kv, kv_root)
    real = tree.kv.txn
    fail = failing(tree.kv._kv, "after")

    def txn(compares, operations, *, otherwise_get=()):
        try:
            return fail(compares, operations, otherwise_get=otherwise_get)
        except StoreUnavailableError:
            put(other, "a", b"theirs", other.read("a").mod_revision)
            raise

    monkeypatch.setattr(tree.kv, "txn", txn)
    outcome = tree.commit([a_write("a", b"mine", revision)], retention=DAY)
    monkeypatch.setattr(tree.kv, "txn", real)
    assert outcome.stale["a"].record.content == b"theirs"
    assert [item.value.partition(b"\n")[2] for item in items(tree, "past/a//")] == [b"one", b"mine"]


def test_an_answer_that_never_comes_is_an_error_in_time(kv, kv_root, monkeypatch):
    tree = make_tree(kv, kv_root, patience=0.2)
    monkeypatch.setattr(kv, "txn", failing(kv._kv, "before", times=10**6))
    with pytest.raises(StoreUnavailableError):
        tree.commit([a_write("a")], retention=DAY)


def test_a_fence_that_fell_lets_nothing_through(tree):
    key = f"{tree.keys.root}/leases/certs/1".encode()
    token = tree.kv.txn([], [Put(key, b"")]).revision
    fence = Fence(name="certs", key=key, token=token)
    assert tree.commit([a_write("a")], retention=DAY, fence=fence).complete
    assert b'"lease":"certs"' in items(tree, "files/a")[0].value
    tree.kv.txn([], [Delete(key)])
    tree.kv.txn([], [Put(key, b"another holder")])
    outcome = tree.commit([a_write("b")], retention=DAY, fence=fence)
    assert (outcome.fenced_out, outcome.done) == (True, {})
    assert tree.read("b") is None


def test_a_listing_is_of_one_revision(tree):
    put(tree, "d/a")
    revision = put(tree, "d/b")
    put(tree, "d/c")
    assert tree.list("d", revision=revision).records.keys() == {"d/a", "d/b"}


@pytest.mark.parametrize("value", [b"", b"garbage", b'{"v":9}\n', b'{"v":1,"kind":"file"}\n', b"\xff\xfe\n"])
def test_an_unusable_record_is_named_and_hides_no_other(tree, value):
    put(tree, "d/fine")
    tree.kv.txn([], [Put(tree.keys.file("d/bad"), value)])
    tree.kv.txn([], [Put(tree.keys.file("d/") + b"../x\xff", b"")])
    listing = tree.list("d")
    assert listing.records.keys() == {"d/fine"}
    assert sorted(bad.path for bad in listing.bad)[1:] == ["d/bad"]
    assert min(bad.path for bad in listing.bad).endswith("files/d/../x\\xff")
    assert isinstance(tree.decode_item(items(tree, "files/d/bad")[0]), Bad)


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


def test_a_compare_of_the_past_guards_every_write(tree):
    put(tree, "a", b"two", put(tree, "a"))
    commits = [compares for compares, operations in tree.kv.txns if operations]
    assert all(any(isinstance(compare, ModRevision) for compare in compares) for compares in commits)
