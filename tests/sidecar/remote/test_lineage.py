"""Is what answers still the store that was known? Over the reference store, with a real directory."""

import msgspec
import pytest

from configstore.model.replica import Request, Take, Verb
from configstore.store.api import Delete, ModRevision, Put
from configstore.store.values import Listing
from sidecar.cycle.mirror import Mirror
from sidecar.mapping import Mapping
from sidecar.remote.lineage import contradiction
from tests.harness.following import Following
from tests.harness.named import GONE, a_dir, a_tree, a_write
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv

KNOWN = {"mapping": "data", "held": 1, "known": {"a": 5, "b": 9}, "seen": 9, "cluster_id": 1}
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
    with Following(tmp_path / "r") as replica:
        for name, what in {"": a_dir(), "a": b"zero", "b": b"b"}.items():
            replica.put(name, what)
        replica.snapshot = replica.store.snapshot()
        replica.agree(a=b"one")
        assert replica.contents() == {"a": b"one", "b": b"b"}
        yield replica


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
    neighbour = a_dir()
    following.tree.commit([a_write("data-too", neighbour)], retention=60)
    following.put("a", b"newer")
    following.follow()
    (following.folder / "mine").write_bytes(b"edited meanwhile")
    status = following.cycle()
    assert "--replica r --take local" in status.waiting_for
    assert following.contents() == {"a": b"one", "b": b"b", "mine": b"edited meanwhile"}
    following.put("", a_dir())
    following.follow()
    assert following.cycle().waiting_for is None
    assert following.contents() == {"a": b"newer", "b": b"b", "mine": b"edited meanwhile"}
    assert following.tree.read("data/mine")


def wiped(following):
    """Let all records of the subtree vanish, and its root."""
    following.follow()
    start, end = following.tree.keys.files_at("data")
    for item in following.tree.kv.range(start, end).items:
        following.tree.kv.txn((), (Delete(item.key),))
    following.follow()
    following.cycle()


def chosen(following, path=None):
    """Choose that what vanished is written again."""
    choice = Request(id="i", verb=Verb.RESUME, by="ann@h", mapping="data", take=Take.LOCAL, reason="", path=path)
    following.mirror.request(choice)
    for _ in range(3):
        status = following.cycle()
        following.follow()
    return status


def stored(following):
    return {path: found.mod_revision for path, found in following.tree.list("data").records.items()}


def test_a_wiped_subtree_is_written_again_with_its_root_at_last(following):
    wiped(following)
    assert chosen(following).waiting_for is None
    found = stored(following)
    assert found.keys() == {"data", "data/a", "data/b"}
    assert found["data"] == max(found.values())  # until then no other replica takes it for complete


def test_one_path_that_is_written_again_makes_no_subtree(following):
    wiped(following)
    assert "--replica r --take local" in chosen(following, "a").waiting_for
    assert stored(following) == {}


@pytest.mark.parametrize("readable", [True, False])
def test_where_something_else_lies_at_the_root_nothing_is_written_below(following, readable):
    wiped(following)
    if readable:
        following.put("", b"a file")
    else:
        following.tree.kv.txn((), (Put(following.tree.keys.file("data"), b"no record"),))
    following.follow()
    assert chosen(following).waiting_for
    assert stored(following).keys() <= {"data"}


def test_without_its_lease_nobody_writes_a_subtree_again(following):
    leased = msgspec.structs.replace(following.engine.mapping, lease="job")
    following.engine.mapping = following.engine.remote._mapping = leased
    wiped(following)
    assert f"configstore import {following.folder} data" in chosen(following).waiting_for
    assert stored(following) == {}


def test_below_a_root_that_was_deleted_deletes_arrive_and_nothing_is_pushed(following):
    following.follow()
    following.put("a", GONE)
    following.put("", GONE)
    (following.folder / "mine").write_bytes(b"edited meanwhile")
    following.follow()
    status = following.cycle()
    assert "configstore mkdir data" in status.waiting_for
    assert following.contents() == {"b": b"b", "mine": b"edited meanwhile"}
    assert following.tree.read("data/mine") is None
    following.begin_anew()
    assert (following.cycle().ready, following.tree.read("data/mine")) == (False, None)
    following.put("", a_dir())
    following.follow()
    status = following.cycle()
    assert (status.ready, status.waiting_for) == (True, None)
    assert following.tree.read("data/mine")


def test_a_mapping_of_all_of_a_wiped_store_needs_no_record_for_its_root(tmp_path):
    following = Following(tmp_path / "r", subtree="")
    following.put("data", a_dir())
    following.put("data/a", b"a")
    following.list_again()
    following.cycle()
    for item in following.tree.kv.range(*following.tree.keys.files_at("")).items:
        following.tree.kv.txn((), (Delete(item.key),))
    following.list_again()
    assert "the store is empty" in following.cycle().waiting_for
    choice = Request(id="i", verb=Verb.RESUME, by="ann@h", mapping="data", take=Take.LOCAL, reason="")
    following.mirror.request(choice)
    assert following.cycle().waiting_for is None
    assert following.tree.list("").bad == ()
    assert following.tree.list("").records.keys() == {"data", "data/a"}
    following.close()


def test_a_wiped_store_is_no_fresh_installation_for_a_mapping_of_all_of_it(tmp_path):
    store = MemoryStore(clock=lambda: 0.0)
    tree = a_tree(MemoryKv(store))
    mirror = Mirror(Mapping(name="all", store="", path=str(tmp_path)), tree)
    assert [words.partition(":")[0] for words in mirror.engine.pull_once()] == ["the store is empty"]
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
    following.engine.remote.revision = following.store.revision
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


def test_whoever_holds_no_files_is_not_advised_to_write_the_store_anew():
    found = contradiction(**KNOWN | {"held": 0}, **SAME | {"revision": 8})
    assert "--take local" not in found
    assert "--take store" in found
