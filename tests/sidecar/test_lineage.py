"""Is what answers still the store that was known? Over the reference store, with a real directory."""

import pytest

from configstore.model.keys import Keys
from configstore.model.record import Entry, Kind
from configstore.store.api import Delete, ModRevision
from configstore.store.memory import MemoryKv
from configstore.store.memory_state import MemoryStore
from configstore.store.tree import Tree
from configstore.store.values import Listing, Write, Writer
from sidecar.mirror import Mirror
from sidecar.planner.mapping import Mapping
from sidecar.remote.lineage import contradiction
from tests.sidecar.following import Following

KNOWN = {"mapping": "data", "known": {"a": 5, "b": 9}, "seen": 9, "cluster_id": 1}
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


def test_a_halt_is_quiet_and_keeps_its_words_while_the_store_moves_on(following):
    """Whoever chooses names the words that were read, and each report moves the store on."""
    following.store.restore(following.snapshot)
    following.list_again()
    words = following.cycle().halted
    assert "went back" in words
    listings = []
    list_again, following.list_again = following.list_again, lambda: listings.append(list_again())
    for number in range(100):  # each listing wakes the engine at once
        following.put("b", b"%d" % number)
        assert following.cycle(0.02).halted == words
    assert 1 <= len(listings) <= 2


def test_a_root_that_vanishes_lets_nothing_travel_until_it_is_back(following):
    following.follow()
    key = following.tree.keys.file("data")
    following.tree.kv.txn((), (Delete(key),))
    neighbour = Entry(kind=Kind.DIR, mode=0o755)
    following.tree.commit([Write(path="data-too", entry=neighbour, expected=0)], retention=60)
    following.put("a", b"newer")
    following.follow()
    (following.folder / "mine").write_bytes(b"edited meanwhile")
    status = following.cycle()
    assert "configstore mkdir data" in status.waiting_for
    assert following.contents() == {"a": b"one", "b": b"b", "mine": b"edited meanwhile"}
    following.put("", b"", Kind.DIR)
    following.follow()
    assert following.cycle().waiting_for is None
    assert following.contents() == {"a": b"newer", "b": b"b", "mine": b"edited meanwhile"}
    assert following.tree.read("data/mine")


def test_a_wiped_store_is_no_fresh_installation_for_a_mapping_of_all_of_it(tmp_path):
    store = MemoryStore(clock=lambda: 0.0)
    tree = Tree(MemoryKv(store), Keys(), Writer(replica="r", host="h", now=lambda: "", new_id=lambda: "w"))
    mirror = Mirror(Mapping(name="all", store="", path=str(tmp_path)), tree)
    assert mirror.engine.pull_once() == ["the store is empty"]
    mirror.close()


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
