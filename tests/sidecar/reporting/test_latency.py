"""How long sets took, told by a mirror of a real directory on a clock of the test's own."""

import pytest

from configstore.errors import StoreUnavailableError
from sidecar.local.apply import Applier
from sidecar.reporting.latency import BUCKETS, Latency
from tests.harness import following


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """Return a replica that agrees with its store on nothing but the root; inotify has its clock, too."""
    with following.watched(tmp_path / "r") as replica:
        monkeypatch.setattr("sidecar.local.watch.boottime", lambda: replica.now)
        replica.agree()
        yield replica


def buckets(replica):
    """Return the sets that were counted, by the upper bound of their bucket, and the seconds of all."""
    counts, total = replica.mirror.latency.seen()
    bounds = (*BUCKETS, "more")
    return {bound: count for bound, count in zip(bounds, counts, strict=True) if count}, round(total, 6)


def test_what_was_changed_together_is_one_set(watched):
    assert buckets(watched) == ({}, 0.0)
    for name in ("cert", "key", "chain"):
        (watched.folder / name).write_bytes(b"x")
    watched.send()
    counts, _ = buckets(watched)
    assert sum(counts.values()) == 1


def test_an_edit_counts_from_when_it_was_noticed_through_an_outage(watched, monkeypatch):
    (watched.folder / "key").write_bytes(b"x")
    watched.cycle(0.5)
    commit = watched.tree.commit

    def silent(*_, **__):
        raise StoreUnavailableError("nobody answers")

    monkeypatch.setattr(watched.tree, "commit", silent)
    watched.cycle(0.5)
    watched.cycle(30)
    assert buckets(watched) == ({}, 0.0)
    monkeypatch.setattr(watched.tree, "commit", commit)
    watched.send()
    counts, _ = buckets(watched)
    assert counts == {"more": 1}


def test_what_comes_from_the_store_counts_from_when_it_came_in(watched):
    for name in ("one", "two"):
        watched.put(name, b"x")
        watched.since = watched.now - 0.3
        watched.follow()
        watched.cycle(0)
    assert buckets(watched) == ({0.5: 2}, 0.6)


def test_what_cannot_be_placed_counts_once_it_can(watched, monkeypatch):
    monkeypatch.setattr(Applier, "room", lambda _: 0)
    watched.put("late", b"x")
    watched.follow()
    watched.cycle(0)
    assert watched.engine.status.problems
    monkeypatch.setattr(Applier, "room", lambda _: 1 << 20)
    watched.cycle(60)
    watched.cycle(1)
    assert buckets(watched)[0] == {"more": 1}


def test_a_deletion_alone_waits_on_purpose_and_is_not_counted(watched):
    (watched.folder / "key").write_bytes(b"x")
    watched.send()
    before = buckets(watched)
    (watched.folder / "key").unlink()
    for _ in range(6):
        watched.cycle(0.5)
    assert watched.stored().get("key") is None
    assert buckets(watched) == before


def test_a_move_is_counted(watched):
    (watched.folder / "key").write_bytes(b"x")
    watched.send()
    (watched.folder / "key").rename(watched.folder / "new")
    watched.cycle(0.05)
    watched.cycle(0.05)
    assert watched.stored().get("new") == b"x"
    assert sum(buckets(watched)[0].values()) == 2


def test_nothing_is_remembered_of_what_is_shown():
    latency = Latency()
    latency.arrived({"a", "b"}, 1.0)
    latency.arrived(set(), 2.0)
    assert not any(each for each in vars(latency).values() if isinstance(each, dict))
