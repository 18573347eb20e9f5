"""Tombstones end once no replica can need them, and what they deleted stays as long as was promised."""

import pytest

from configstore.model.path import StorePath
from configstore.store.commit import TOMBSTONE_LIFE
from configstore.store.history import ExpiredError, restoring, versions, versions_below
from tests.harness.named import GONE, a_tree, put
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv

DAY = 86400.0
A, B = StorePath("d/a"), StorePath("d/b")


class Aging:
    """A tree whose clock the test moves."""

    def __init__(self):
        self.now = 0.0
        self.store = MemoryStore(clock=lambda: self.now)
        self.tree = a_tree(MemoryKv(self.store), clock=lambda: self.now)

    def write(self, path, content, retention=30 * DAY):
        return put(self.tree, {path: content or GONE}, retention=retention)

    def pass_days(self, days):
        self.now += days * DAY
        self.store.expire_due()


@pytest.fixture
def aging():
    return Aging()


@pytest.mark.parametrize(("retention", "at_least"), [(0.0, 30), (7 * DAY, 30), (30 * DAY, 30), (90 * DAY, 90)])
def test_a_tombstone_stays_for_a_month_at_least_and_as_long_as_what_it_deleted(aging, retention, at_least):
    aging.write(A, b"x", retention)
    aging.write(A, None, retention)
    aging.pass_days(at_least - 0.1)
    assert aging.tree.read(A).gone
    aging.pass_days(at_least)
    assert aging.tree.read(A) is None
    assert at_least * DAY >= TOMBSTONE_LIFE


def test_a_path_that_is_made_anew_over_its_tombstone_does_not_end_with_it(aging):
    aging.write(A, b"x")
    aging.write(A, None)
    aging.write(A, b"anew")
    aging.pass_days(100)
    assert aging.tree.read(A).record.content == b"anew"


def test_what_a_shorter_promise_deleted_is_known_and_comes_back_after_the_tombstone(aging):
    first = aging.write(A, b"one", 365 * DAY)
    second = aging.write(A, b"two", 365 * DAY)
    aging.write(A, b"three", 365 * DAY)
    aging.write(A, None, DAY)
    aging.pass_days(40)
    found = versions(aging.tree, A)
    assert aging.tree.read(A) is None
    assert [each.record.content for each in found.known] == [b"one", b"two"]
    assert (found.now(), found.current, found.created) == (None, 0, first)
    with pytest.raises(ExpiredError, match="when it was deleted"):
        found.at(aging.store.revision)
    (write,) = restoring(aging.tree, {A: found}, second)
    assert aging.tree.commit([write], retention=DAY).complete
    assert aging.tree.read(A).record.content == b"two"


def test_a_directory_is_restored_without_what_was_deleted_long_before(aging):
    aging.write(A, b"long gone", 365 * DAY)
    aging.write(A, b"gone", 365 * DAY)
    aging.write(A, None, DAY)
    aging.pass_days(40)
    wanted = aging.write(B, b"good")
    aging.write(B, b"bad")
    writes = list(restoring(aging.tree, versions_below(aging.tree, StorePath("d")), wanted))
    assert [write.path for write in writes] == [B]
