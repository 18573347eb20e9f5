"""A single writer never loses to itself: what is sent is written down before it is sent."""

import os

import pytest

from configstore.errors import StoreUnavailableError
from configstore.model.path import PRIVATE_NAME
from configstore.model.record import decode
from sidecar.local.scan import Changed, Scanner
from sidecar.state.baseline import Baseline, Identity, mark_in
from tests.harness.following import Following


@pytest.fixture
def following(tmp_path):
    """Return a replica that agrees with its store on the files `ids` and `old`."""
    with Following(tmp_path / "r", patience=0.0) as replica:
        replica.agree()
        for name in ("ids", "old"):
            (replica.folder / name).write_bytes(b"v0")
        replica.cycle()
        assert replica.stored() == {"ids": b"v0", "old": b"v0"}
        yield replica


def conflicts(replica):
    prefix = b"/configstore/conflicts/"
    return [decode(item.value) for item in replica.tree.kv.range(prefix, b"/configstore/conflicts0").items]


def lose_answers(replica, monkeypatch, *, after=0):
    """Have transactions made and their answers lost, but for the first `after`."""
    real, calls = type(replica.tree.kv).txn, []

    def txn(self, compares, operations, **how):
        result = real(self, compares, operations, **how)
        calls.append(operations)
        if operations and len(calls) > after:
            raise StoreUnavailableError("the answer was lost")
        return result

    monkeypatch.setattr(type(replica.tree.kv), "txn", txn)


def write_and_lose(replica, monkeypatch, **how):
    """Have the writer's first version land unknown to it, and its second one and a delete be made meanwhile."""
    for name in ("ids", "old", "new"):
        (replica.folder / name).write_bytes(b"v1")
    with monkeypatch.context() as patch:
        lose_answers(replica, patch, **how)
        assert replica.cycle().waiting_for
    assert replica.stored() == {"ids": b"v1", "old": b"v1", "new": b"v1"}
    for name in ("ids", "new"):
        (replica.folder / name).write_bytes(b"v2")
    (replica.folder / "old").unlink()


def settle(replica):
    for _ in range(4):
        replica.list_again()
        replica.cycle()


@pytest.mark.parametrize("died", [False, True], ids=["goes on", "died"])
def test_after_a_lost_answer_what_was_made_since_stands(following, monkeypatch, died):
    write_and_lose(following, monkeypatch)
    if died:
        following.begin_anew()
    settle(following)
    assert following.contents() == following.stored() == {"ids": b"v2", "new": b"v2"}
    assert conflicts(following) == []


def test_a_newer_record_of_somebody_else_over_an_own_lost_write_is_no_conflict_with_oneself(
    following, monkeypatch
):
    (following.folder / "ids").write_bytes(b"v1")
    with monkeypatch.context() as patch:
        lose_answers(following, patch)
        following.cycle()
    following.put("ids", b"another's")  # replaces our v1, which was never known to have landed
    settle(following)
    assert following.contents()["ids"] == b"another's"
    assert conflicts(following) == []


def test_a_write_that_never_landed_conflicts_as_any_other(following, monkeypatch):
    (following.folder / "ids").write_bytes(b"mine")
    with monkeypatch.context() as patch:
        patch.setattr(
            type(following.tree.kv), "txn", lambda *_, **__: (_ for _ in ()).throw(StoreUnavailableError("lost"))
        )
        following.cycle()
    following.put("ids", b"another's")
    settle(following)
    assert following.contents()["ids"] == b"another's"
    assert [record.content for record in conflicts(following)] == [b"mine"]


def test_what_is_about_to_be_sent_is_on_disk_before_it_is_sent(following, monkeypatch):
    known, private = [], os.open(following.folder / PRIVATE_NAME, os.O_RDONLY)
    real = type(following.tree.kv).txn

    def txn(self, compares, operations, **how):
        if operations:
            identity = Identity(root="/configstore", store="data", mark=mark_in(private))
            sides = Baseline(private, identity, exclusive=False, read_only=True).sides
            known.append({path: len(sent) for path, sent in sides.sent.items()})
        return real(self, compares, operations, **how)

    (following.folder / "ids").write_bytes(b"v1")
    with monkeypatch.context() as patch:
        patch.setattr(type(following.tree.kv), "txn", txn)
        following.cycle()
    os.close(private)
    assert known[-1] == {"ids": 1}


def test_a_full_directory_does_not_keep_edits_from_the_store(following, monkeypatch):
    def full(self, lines):
        raise OSError(28, "No space left on device")

    (following.folder / "ids").write_bytes(b"v1")
    with monkeypatch.context() as patch:
        patch.setattr("sidecar.state.append_log.AppendLog.append", full)
        following.cycle()
    assert following.stored()["ids"] == b"v1"


def test_a_file_that_changes_all_the_time_pauses_while_the_rest_goes_out(following, monkeypatch):
    real = Scanner.pieces

    def pieces(self, path, expected):
        if path == "busy":
            raise Changed(path)
        return real(self, path, expected)

    monkeypatch.setattr(Scanner, "pieces", pieces)
    (following.folder / "busy").write_bytes(b"b")
    (following.folder / "calm").write_bytes(b"c")
    due = [following.engine.cycle(flush=True) for _ in range(12)]
    assert following.stored()["calm"] == b"c"
    assert due[-1] > 0.05, "it goes on trying without a pause"
