"""What was sent is known again, whatever became of the answer: a single writer never loses to itself."""

import contextlib

import pytest

from configstore.errors import StoreUnavailableError
from configstore.model.record import Kind
from configstore.store.conflicts import losers
from configstore.store.memory_state import MemoryStore
from tests.sidecar.following import Following


@pytest.fixture
def following(tmp_path):
    """Return a replica that sent a file, the answer to which was lost."""
    (tmp_path / "r").mkdir()
    replica = Following(tmp_path / "r", MemoryStore(clock=lambda: 0.0))
    replica.put("", b"", Kind.DIR)
    replica.list_again()
    replica.put("a", b"first")
    replica.list_again()
    replica.cycle()
    (replica.folder / "a").write_bytes(b"sent")
    with no_answers(replica.tree):
        replica.cycle()
    assert replica.tree.read("data/a").record.content == b"sent"
    yield replica
    replica.close()


@contextlib.contextmanager
def no_answers(tree):
    """Let the store do what it is asked for, and say nothing."""
    kv, patience = tree.kv, tree._patience
    txn = kv.txn

    def silent(compares, operations, **how):
        txn(compares, operations, **how)
        if operations:
            raise StoreUnavailableError("no answer")
        return txn(compares, operations, **how)

    kv.txn, tree._patience = silent, 0.0
    yield
    kv.txn, tree._patience = txn, patience


def conflicts(replica):
    return [found.path for found in losers(replica.tree, "data")]


def test_a_newer_edit_made_before_the_answer_is_known_stands(following):
    (following.folder / "a").write_bytes(b"newer")
    following.follow()
    following.cycle()
    assert following.tree.read("data/a").record.content == b"newer"
    assert conflicts(following) == []


def test_a_delete_made_before_the_answer_is_known_stands(following):
    (following.folder / "a").unlink()
    following.follow()
    following.cycle()
    following.cycle()
    assert following.tree.read("data/a").gone
    assert conflicts(following) == []


def test_a_newer_edit_made_while_the_process_is_dead_stands(following):
    (following.folder / "a").write_bytes(b"newer")
    following.begin_anew()
    following.cycle()
    assert following.tree.read("data/a").record.content == b"newer"
    assert conflicts(following) == []


def test_a_write_that_somebody_wrote_over_since_is_no_conflict_with_it(following):
    following.put("a", b"another's")
    following.follow()
    following.cycle()
    assert following.contents() == {"a": b"another's"}
    assert conflicts(following) == []
