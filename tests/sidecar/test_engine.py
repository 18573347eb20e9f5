"""The cycle, where no real watch is needed to show what it does."""

import pytest

from configstore.model.record import Kind
from configstore.store.memory_state import MemoryStore
from tests.sidecar.following import Following


@pytest.fixture
def following(tmp_path):
    """Return a replica of an empty subtree, ready."""
    (tmp_path / "r").mkdir()
    replica = Following(tmp_path / "r", MemoryStore(clock=lambda: 0.0))
    replica.put("", b"", Kind.DIR)
    replica.list_again()
    assert replica.cycle().ready
    yield replica
    replica.close()


def test_a_flush_sends_what_no_event_has_told_of_yet(following):
    (following.folder / "a").write_bytes(b"last words")
    following.engine.cycle()
    assert following.tree.read("data/a") is None
    following.engine.cycle(flush=True)
    assert following.tree.read("data/a").record.content == b"last words"
