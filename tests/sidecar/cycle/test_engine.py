"""The cycle, where no real watch is needed to show what it does."""

import pytest

from configstore.errors import NoSpaceError
from configstore.store.api import Delete, Put
from sidecar.local.scan import Scanner, Unreadable
from tests.harness.following import Following
from tests.harness.named import a_dir
from tests.memory_store.state import MemoryStore


@pytest.fixture
def following(tmp_path):
    """Return a replica of an empty subtree, ready."""
    with Following(tmp_path / "r") as replica:
        assert replica.agree().ready
        yield replica


def test_a_flush_sends_what_no_event_has_told_of_yet(following):
    (following.folder / "a").write_bytes(b"last words")
    following.engine.cycle()
    assert following.tree.read("data/a") is None
    following.engine.cycle(flush=True)
    assert following.tree.read("data/a").record.content == b"last words"


def test_a_file_that_cannot_be_read_is_a_problem_and_the_rest_of_its_set_goes_on(following, monkeypatch):
    real = Scanner.pieces

    def read(self, path, expected):
        if path == "b":
            raise Unreadable(path, "too many open files")
        return real(self, path, expected)

    for name in "abc":
        (following.folder / name).write_bytes(name.encode())
    with monkeypatch.context() as patch:
        patch.setattr(Scanner, "pieces", read)
        status = following.cycle()
    assert [(problem.path, problem.reason) for problem in status.problems] == [("b", "too many open files")]
    assert [bool(following.tree.read(f"data/{name}")) for name in "abc"] == [True, False, True]
    assert following.cycle().problems == ()
    assert following.tree.read("data/b")


@pytest.mark.parametrize("now", [b"longer than it was", b"", b"equal"])
def test_a_file_that_is_changed_before_it_is_sent_is_sent_as_it_is_then(following, monkeypatch, now):
    real = Scanner.pieces

    def read(self, path, expected):
        (following.folder / "a").write_bytes(now)
        return real(self, path, expected)

    (following.folder / "a").write_bytes(b"first")
    with monkeypatch.context() as patch:
        patch.setattr(Scanner, "pieces", read)
        assert following.cycle().waiting_for is None
    following.cycle()
    assert following.tree.read("data/a").record.content == now


def test_pulls_go_on_while_the_store_takes_no_writes(following):
    (following.folder / "mine").write_bytes(b"mine")
    following.put("theirs", b"theirs")
    following.follow()
    kv = following.tree.kv
    txn, kv.txn = kv.txn, lambda *_, **__: (_ for _ in ()).throw(NoSpaceError("database space exceeded"))
    status = following.cycle()
    assert (following.folder / "theirs").read_bytes() == b"theirs"
    assert (status.ready, status.waiting_for, status.pending) == (True, "database space exceeded", 1)
    kv.txn = txn
    status = following.cycle()
    assert (status.waiting_for, status.pending) == (None, 0)
    assert following.tree.read("data/mine")


def test_content_is_not_kept_in_memory_once_it_is_placed(following):
    following.put("key", b"secret")
    following.news.append(following.store.since(*following.tree.keys.files_at("data"), following.store.revision))
    following.cycle()
    assert (following.folder / "key").read_bytes() == b"secret"
    contents = following.engine.remote.contents
    remote = following.engine.sides.remote["key"]
    following.tree.read = lambda path: pytest.fail("read again")
    with pytest.raises(pytest.fail.Exception):
        contents.find("key", remote)


def test_a_store_without_the_subtree_is_listed_now_and_then_and_not_all_the_time(tmp_path):
    replica = Following(tmp_path / "r")
    listings = []
    replica.list_again = lambda: listings.append(replica.tree.list("data")) or replica.news.append(listings[-1])
    replica.cycle(0.5)
    assert listings == [], "a feed begins with a listing, asked or not"
    for _ in range(100):  # each listing wakes the engine at once
        replica.cycle(0.01)
    assert len(listings) == 1
    replica.cycle(1.0)
    assert len(listings) == 2
    replica.close()


def test_a_replica_that_cannot_show_a_record_is_not_ready_though_it_makes_cycles(tmp_path):
    replica = Following(tmp_path / "r")
    replica.put("", a_dir())
    replica.tree.kv.txn((), (Put(replica.tree.keys.file("data/a"), b"no record"),))
    replica.list_again()
    for _ in range(3):
        assert not replica.cycle().ready
    replica.tree.kv.txn((), (Delete(replica.tree.keys.file("data/a")),))
    replica.list_again()
    assert replica.cycle().ready
    replica.close()


def test_an_engine_that_goes_round_in_circles_is_named(following, monkeypatch):
    monkeypatch.setattr(following.engine, "cycle", lambda *, flush: 0.0 if not flush else None)
    for _ in range(5000):
        following.now += 0.01
        following.mirror.cycle()
    assert "data: 5000 cycles in 50 s came to nothing" in following.mirror.stuck()


def test_a_frozen_mapping_does_not_keep_a_core_busy(following):
    """What compares its records with the store rests: a listing ends the phase, and does that as well."""
    following.put("a", b"a")
    following.follow()
    following.cycle()
    following.answer_from(MemoryStore(clock=lambda: 0.0))
    following.list_again()
    assert following.cycle().halted
    for _ in range(3):
        following.now += 61.0
        assert following.engine.cycle() > 0


def test_nothing_has_vanished_from_a_store_that_has_not_answered_since_the_start(following):
    """All that was agreed on before is not there to be seen yet, which is no anomaly."""
    following.put("a", b"a")
    following.follow()
    assert following.cycle().paths == 1
    following.begin_anew()
    listing, following.news = following.news, []
    assert (following.cycle(0.0).problems, following.engine.status.paths) == ((), 1)
    following.news = listing
    assert following.cycle(0.0).ready


def test_a_pull_that_takes_long_says_in_the_log_how_far_it_is(following, monkeypatch, caplog):
    monkeypatch.setattr("sidecar.cycle.pull.LINES", 0.0)
    for name in "abc":
        following.put(name, name.encode())
    with caplog.at_level("INFO", logger="sidecar.cycle.pull"):
        following.list_again()
        following.cycle()
    assert (following.folder / "c").read_bytes() == b"c"
    (record,) = [each for each in caplog.records if each.message == "pulling"]  # and no other for five seconds
    assert record.so_far.startswith("1 of 3 fetched, ")


def test_of_a_pull_that_is_quickly_done_nothing_is_said(following, caplog):
    following.put("a", b"a")
    with caplog.at_level("INFO", logger="sidecar.cycle.pull"):
        following.list_again()
        following.cycle()
    assert (following.folder / "a").exists()
    assert "pulling" not in caplog.messages
