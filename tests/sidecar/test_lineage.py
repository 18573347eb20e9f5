"""Is what answers still the store that was known? Over the reference store, with a real directory."""

import pytest

from configstore.model.keys import Keys
from configstore.model.record import Entry, Kind, sha256
from configstore.store.api import Delete, ModRevision
from configstore.store.memory import MemoryKv
from configstore.store.memory_state import MemoryStore
from configstore.store.tree import Listing, Tree, Write, Writer
from sidecar.mirror import Mirror
from sidecar.planner.mapping import Mapping
from sidecar.remote.lineage import contradiction
from tests.trees import tree as files_in

KNOWN = {"known": {"a": 5, "b": 9}, "seen": 9, "cluster_id": 1}
SAME = {"found": {"a": 5, "b": 9, "c": 12}, "revision": 12, "found_cluster_id": 1}


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({}, None),
        ({"found": {"a": 11, "b": 12}}, None),
        ({"found": {"a": 5}}, None),  # b vanished, which is for the planner
        ({"found_cluster_id": 0}, None),
        ({"found_cluster_id": 2}, "another etcd cluster"),
        ({"revision": 8}, "went back from 9 to 8"),
        ({"found": {"a": 5, "b": 7}}, "b: its revision went back from 9 to 7"),
    ],
)
def test_a_contradiction_is_named_with_the_mend(now, words):
    found = contradiction(**KNOWN, **SAME | now)
    assert (found is None) if words is None else (words in found and "Nothing is applied" in found)


class Following:
    """A mirror and the feed by which it is told what the store does."""

    def __init__(self, folder, store):
        self.folder, self.store, self.now = folder, store, 1000.0
        ids = iter(range(1000))
        writer = Writer(replica="r", host="h", now=lambda: "", new_id=lambda: f"w{next(ids)}-{id(self)}")
        self.tree = Tree(MemoryKv(store), Keys(), writer)
        self.begin()

    def begin(self):
        mapping = Mapping(name="data", store="data", path=str(self.folder))
        self.mirror = Mirror(mapping, self.tree, clock=lambda: self.now)
        self.engine = self.mirror.engine
        self.engine._feed = self
        self.error = None
        self.news = [self.tree.list("data")]

    def begin_anew(self):
        self.mirror.close()
        self.begin()

    def connect_to(self, store):
        """The watch is cut, and another store answers from now on."""
        self.answer_from(store)
        self.follow()

    def answer_from(self, store):
        self.store = store
        self.tree.kv = self.tree._chunks._kv = MemoryKv(store)

    def follow(self):
        """Bring what the watch sees from where it was, as after a reconnect."""
        start, end = self.tree.keys.files_below("data")
        watch = self.tree.kv.watch(start, end, start_revision=self.engine._remote.revision + 1)
        batches = iter(watch)
        self.news.append(next(batches))
        if self.store.revision > self.engine._remote.revision and self.store.since(start, end, watch._next):
            self.news.append(next(batches))
        watch.close()

    def drain(self):
        news, self.news = self.news, []
        return news

    def list_again(self):
        self.news.append(self.tree.list("data"))

    def cycle(self, seconds=61.0):
        self.now += seconds
        self.engine.cycle()
        return self.engine.status

    def put(self, name, content, kind=Kind.FILE):
        path = f"data/{name}" if name else "data"
        found = self.tree.read(path)
        write = Write(path=path, entry=an_entry(kind, content), content=content if kind is Kind.FILE else None)
        self.tree.commit([Write(path=path, entry=write.entry, content=write.content,
                                expected=found.mod_revision if found else 0)], retention=60)  # fmt: skip

    def contents(self):
        return {name: (self.folder / name).read_bytes() for name in files_in(self.folder)}

    def close(self):
        self.mirror.close()


def an_entry(kind, content):
    if kind is Kind.DIR:
        return Entry(kind=kind, mode=0o755)
    return Entry(kind=kind, mode=0o600, size=len(content), sha256=sha256(content))


@pytest.fixture
def following(tmp_path):
    """Return a replica that agrees with its store, and has a snapshot of that from before `a` was changed."""
    folder = tmp_path / "r"
    folder.mkdir()
    store = MemoryStore(clock=lambda: 0.0)
    replica = Following(folder, store)
    replica.put("", b"", Kind.DIR)
    replica.put("a", b"zero")
    replica.put("b", b"b")
    replica.snapshot = store.snapshot()
    replica.put("a", b"one")
    replica.list_again()
    replica.cycle()
    assert replica.contents() == {"a": b"one", "b": b"b"}
    yield replica
    replica.close()


def test_a_restored_snapshot_freezes_the_mapping_before_anything_is_applied(following):
    following.store.restore(following.snapshot)
    following.put("b", b"written after the restore")
    following.put("b", b"and once more")
    assert following.store.revision > following.engine.status.revision
    following.follow()
    (following.folder / "mine").write_bytes(b"edited meanwhile")
    status = following.cycle()
    assert "a: its revision went back" in status.halted
    assert following.contents() == {"a": b"one", "b": b"b", "mine": b"edited meanwhile"}
    assert following.tree.read("data/mine") is None


def test_a_revision_that_went_back_freezes_the_mapping_and_its_return_ends_that(following):
    newest = following.store.snapshot()
    following.store.restore(following.snapshot)
    following.list_again()
    assert "went back" in following.cycle().halted
    following.store.restore(newest)
    following.put("b", b"goes on")
    following.cycle()
    status = following.cycle()
    assert status.halted is None

    assert following.contents()["b"] == b"goes on"


def test_another_cluster_freezes_the_mapping_though_all_its_revisions_are_newer(following):
    other = MemoryStore(clock=lambda: 0.0, cluster_id=2)
    other.restore(following.store.snapshot())
    following.connect_to(other)
    following.put("a", b"of another cluster")
    following.follow()
    assert "another etcd cluster" in following.cycle().halted
    assert following.contents() == {"a": b"one", "b": b"b"}


def test_another_cluster_is_known_after_a_restart_of_ours(following):
    other = MemoryStore(clock=lambda: 0.0, cluster_id=2)
    other.restore(following.store.snapshot())
    following.answer_from(other)
    following.begin_anew()
    assert "another etcd cluster" in following.cycle().halted


def test_without_a_baseline_another_cluster_is_as_good_as_any(following):
    other = MemoryStore(clock=lambda: 0.0, cluster_id=2)
    other.restore(following.store.snapshot())
    following.answer_from(other)
    (following.folder / ".configstore/baseline").unlink()
    following.begin_anew()
    following.put("a", b"of another cluster")
    following.list_again()
    status = following.cycle()
    assert status.halted is None

    assert following.contents()["a"] == b"of another cluster"


def test_a_key_that_vanished_deletes_no_file_and_is_named(following):
    key = following.tree.keys.file("data/b")
    item = following.tree.kv.range(key).items[0]
    following.tree.kv.txn((ModRevision(key, item.mod_revision),), (Delete(key),))
    status = following.cycle()  # the watch said nothing: the store itself is looked at
    status = following.cycle()
    assert following.contents()["b"] == b"b"
    assert [(problem.path, "vanished" in problem.reason) for problem in status.problems] == [("b", True)]


def test_a_change_that_the_watch_lost_heals_with_the_next_full_look(following):
    following.put("b", b"never announced")
    following.put("c", b"nor this")
    following.engine._remote.revision = following.store.revision
    following.cycle(1.0)
    assert following.contents()["b"] == b"b"
    following.cycle()
    following.cycle()
    assert following.contents() == {"a": b"one", "b": b"never announced", "c": b"nor this"}


def test_a_quiet_store_is_listed_once(following):
    following.cycle()
    asked = []
    following.list_again = lambda: asked.append("again")
    for _ in range(3):
        following.cycle()
    assert asked == []
    assert not any(isinstance(news, Listing) for news in following.news)
