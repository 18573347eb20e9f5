"""Waiting for replicas reads all reports once, however many there are and however long it takes."""

import threading

import msgspec
import pytest

from configstore.errors import CompactedError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.replica import ExpectedReplica, MappingState, Report, encode
from configstore.store.api import Delete, Put
from configstore.store.report_feed import Reports, wait_applied
from configstore.store.store import Store
from tests.harness.waiting import wait_until
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv

KEYS = Keys()


@pytest.fixture
def kv():
    with MemoryKv(MemoryStore(clock=lambda: 0.0)) as one:
        yield one


def report(name, revision=0):
    return Report(mapping="m", replica=name, host="h", session="s", store=StorePath("s"), state=MappingState.READY,
                  revision=revision)  # fmt: skip


def tell(kv, each):
    kv.txn((), (Put(KEYS.replica("m", each.replica), encode(each)),))


@pytest.fixture
def ranges(kv, monkeypatch):
    """What was read."""
    made, ranged = [], kv.range
    monkeypatch.setattr(kv, "range", lambda *a, **b: made.append(a) or ranged(*a, **b))
    return made


def test_replicas_that_come_one_after_the_other_are_not_read_again_for_each(kv, ranges):
    for number in range(20):
        tell(kv, report(f"r{number}"))
    result = []
    waiting = threading.Thread(
        target=lambda: result.append(wait_applied(Store(kv, KEYS), StorePath("s"), revision=7, patience=60))
    )
    waiting.start()
    wait_until(lambda: ranges)
    tell(kv, msgspec.structs.replace(report("other"), store=StorePath("elsewhere")))
    for number in range(19):
        tell(kv, report(f"r{number}", 7))
    kv.txn((), (Delete(KEYS.replica("m", "r19")),))  # its session ended
    waiting.join(60)
    assert result == [[]]
    assert len(ranges) == 1


def test_who_is_late_is_returned_as_the_store_has_it(kv):
    tell(kv, report("late", 3))
    assert [each.revision for each in wait_applied(Store(kv, KEYS), StorePath("s"), revision=7, patience=0)] == [3]


def test_a_client_that_is_gone_ends_the_wait(kv):
    tell(kv, report("late"))

    def gone(_):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        wait_applied(Store(kv, KEYS), StorePath("s"), revision=7, patience=60, pause=gone)


def test_a_watch_that_ended_is_begun_again_and_nothing_is_missed(kv, monkeypatch):
    watched, broken = kv.watch, []

    def watch(*arguments, **options):
        if broken:
            return watched(*arguments, **options)
        broken.append(True)
        tell(kv, report("meanwhile"))
        return Broken()

    class Broken:
        def __iter__(self):
            raise CompactedError("compacted")

        def close(self):
            pass

    monkeypatch.setattr(kv, "watch", watch)
    kv.txn((), (Put(KEYS.expected("m", "x"), encode(ExpectedReplica(mapping="m", replica="x", host="h"))),))
    with Reports(Store(kv, KEYS)) as reports:
        wait_until(lambda: [each.replica for each in reports.now()] == ["meanwhile"])
        tell(kv, report("later"))
        wait_until(lambda: {each.replica for each in reports.now()} == {"meanwhile", "later"})
