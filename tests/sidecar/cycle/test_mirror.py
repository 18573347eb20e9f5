"""What waits for what, told by a watch, on a clock of the test's own."""

from contextlib import closing

import pytest

from configstore.errors import StoreUnavailableError
from sidecar.cycle import assembly, mirror
from sidecar.local.scan import Changed, Scanner
from sidecar.mapping import Mapping
from sidecar.remote.side import RemoteSide
from tests.harness import following
from tests.harness.named import a_tree
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv


@pytest.fixture
def watched(tmp_path):
    """Return a replica that agrees with its store on three files."""
    with following.watched(tmp_path / "r") as replica:
        replica.agree()
        for name in ("busy", "cert", "key"):
            (replica.folder / name).write_bytes(b"old")
        replica.send()
        assert replica.stored()["key"] == b"old"
        yield replica


def test_a_busy_neighbour_delays_no_delete(watched):
    (watched.folder / "key").unlink()
    for number in range(35):
        (watched.folder / "busy").write_bytes(b"%d" % number)
        watched.cycle(0.05)
        watched.cycle(0.05)
    assert watched.stored().get("key") is None


def test_what_is_changed_within_the_window_is_sent_together(watched):
    (watched.folder / "cert").write_bytes(b"new")
    watched.cycle(0.0)
    watched.cycle(0.01)
    (watched.folder / "key").write_bytes(b"new")
    watched.cycle(0.01)
    assert watched.stored().get("cert") == b"old"
    watched.cycle(0.02)
    watched.cycle(0.02)
    assert watched.stored().get("cert") == b"new"
    assert watched.tree.read("data/cert").mod_revision == watched.tree.read("data/key").mod_revision


def test_what_is_changed_when_the_store_comes_back_is_sent_together(watched):
    def fail():
        raise StoreUnavailableError("away")

    watched.drain = fail
    (watched.folder / "busy").write_bytes(b"while it is away")
    watched.cycle(61.0)  # a full scan, which finds it at once: its set is open and scanned
    del watched.drain
    watched.now += 2.1  # no cycle comes in between: a store that is away is tried again more and more seldom
    (watched.folder / "cert").write_bytes(b"new")
    with (watched.folder / "key").open("w") as writer:
        writer.write("ne")
        writer.flush()
        watched.cycle(0.01)
        watched.cycle(0.05)
        assert watched.stored().get("cert") == b"old", "it waits for the key, as any set does"
        writer.write("w")
    watched.send()
    assert watched.stored().get("cert") == b"new"
    assert watched.tree.read("data/cert").mod_revision == watched.tree.read("data/key").mod_revision


def test_a_file_that_stays_open_does_not_end_the_window_of_others(watched):
    with (watched.folder / "busy").open("r+") as writer:
        writer.write("half")
        writer.flush()
        watched.cycle(0.0)
        watched.cycle(2.0)
        (watched.folder / "cert").write_bytes(b"new")
        watched.cycle(0.0)
        watched.cycle(0.01)
        assert watched.stored().get("cert") == b"old"
        watched.cycle(0.03)
        watched.cycle(0.03)
        assert watched.stored().get("cert") == b"new"


def test_a_path_that_fails_again_and_again_pauses_and_the_others_go_on(watched, monkeypatch):
    real, tries = Scanner.pieces, []

    def read(self, path, expected):
        if path == "busy":
            tries.append(path)
            raise Changed(path)
        return real(self, path, expected)

    monkeypatch.setattr(Scanner, "pieces", read)
    (watched.folder / "busy").write_bytes(b"new")
    watched.send()
    (watched.folder / "cert").write_bytes(b"new")
    for _ in range(200):
        watched.cycle(0.05)
    assert watched.stored().get("cert") == b"new"
    assert 3 <= len(tries) <= 12


def test_what_was_placed_is_not_looked_at_again(watched):
    watched.put("cert", b"theirs")
    watched.put("new", b"theirs")
    watched.follow()
    watched.cycle(0.1)
    assert watched.contents() | {"cert": b"theirs", "new": b"theirs"} == watched.contents()
    dirty = watched.watch.drain()
    assert (dirty.directories, dirty.everything) == (set(), False)


def test_what_replaces_what_the_watch_brought_is_sent_in_one_call(watched, monkeypatch):
    watched.put("cert", b"theirs")
    watched.follow()
    watched.cycle(0.1)
    calls = []
    real = watched.tree.kv.txn

    def txn(compares, operations, **how):
        calls.append(operations)
        return real(compares, operations, **how)

    monkeypatch.setattr(watched.tree.kv, "txn", txn)
    (watched.folder / "cert").write_bytes(b"ours")
    watched.send()
    assert watched.stored().get("cert") == b"ours"
    assert [bool(operations) for operations in calls] == [True]


def test_the_feed_may_ask_what_is_known_in_the_moment_in_which_the_directory_is_lost(tmp_path, monkeypatch):
    real, asks = mirror.RemoteOnce, []

    def feed(tree, mapping, known):
        asks.append(known)
        return real(tree, mapping, known)

    class Side(RemoteSide):
        def __bool__(self):
            one.cycle()  # what the engine's thread may do between two steps of the feed's
            return True

    monkeypatch.setattr(mirror, "RemoteOnce", feed)
    monkeypatch.setattr(assembly, "RemoteSide", Side)
    folder = tmp_path / "r"
    folder.mkdir()
    tree = a_tree(MemoryKv(MemoryStore(clock=lambda: 0.0)))
    with closing(mirror.Mirror(Mapping(name="data", store="data", path=str(folder)), tree)) as one:
        folder.rename(tmp_path / "elsewhere")
        folder.write_text("no directory")
        assert asks[0]() == 0
        assert "not a directory" in one.status.waiting_for
