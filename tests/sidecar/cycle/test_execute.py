"""A plan is carried out: what agrees is written down, what is here is sent, and what is there is placed."""

import pytest

from configstore.errors import StoreUnavailableError
from configstore.store.api import Delete
from sidecar.planner.plan import Plan
from sidecar.planner.planner import PlanConditions, make_plan
from sidecar.planner.sides import agreement
from tests.harness.following import Following
from tests.harness.named import GONE, a_dir, put


@pytest.fixture
def following(tmp_path):
    """Return a replica that agrees with its store on `kept`; what comes next is looked at, and not carried out."""
    with Following(tmp_path / "r") as replica:
        replica.agree(kept=b"old")
        yield replica


def planned(following):
    """Look at both sides, and return what is to be done."""
    following.follow()
    engine = following.engine
    engine.remote.absorb()
    engine.local.refresh(flush=True)
    return make_plan(engine.sides.pending, engine.sides, engine.mapping, PlanConditions(edits=True, deletes=True))


def test_both_ways_are_gone_and_told(following):
    (following.folder / "mine").write_bytes(b"mine")
    following.put("theirs", b"theirs")
    done = following.engine.executor.execute(planned(following))
    assert (done.failure, set(done.pulled)) == (None, {"theirs"})
    assert following.contents() == {"kept": b"old", "mine": b"mine", "theirs": b"theirs"} == following.stored()


def test_a_store_that_falls_silent_leaves_what_was_not_placed_to_the_next_cycle(following, monkeypatch):
    following.put("theirs", b"x" * 600_000)  # in pieces, which are fetched when it is placed
    plan = planned(following)

    def silent(*_):
        raise StoreUnavailableError("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr(type(following.tree), "pieces", silent)
        done = following.engine.executor.execute(plan)
    assert (type(done.failure), done.again) == (StoreUnavailableError, {"theirs"})
    assert following.contents().keys() == {"kept"}


def test_what_agrees_is_remembered_though_nothing_travels(following):
    sides = following.engine.sides
    both = agreement(sides.local["kept"], sides.remote["kept"])
    following.engine.executor.execute(Plan(forget=("kept",)))
    assert "kept" not in sides.baseline
    following.engine.executor.execute(Plan(agree={"kept": both}))
    assert sides.baseline["kept"] == both


def test_a_tombstone_is_written_where_a_record_vanished(following):
    key = following.tree.keys.file("data/kept")
    following.tree.kv.txn((), (Delete(key),))
    following.engine.executor.delete_vanished({"kept"}, None)
    assert following.tree.read("data/kept").gone


@pytest.mark.parametrize(
    ("at_the_root", "is_made"), [(None, True), (GONE, True), (a_dir(), True), (b"a file", False)]
)
def test_the_record_of_the_root_is_made_where_nothing_else_is(following, at_the_root, is_made):
    following.tree.kv.txn((), (Delete(following.tree.keys.file("data")),))
    if at_the_root is not None:
        put(following.tree, {"data": at_the_root})
    assert following.engine.executor.make_root(None) is is_made
    assert (following.tree.read("data").entry.kind == "dir") is is_made
