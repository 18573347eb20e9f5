"""Watches that share one call: each is as one with a call of its own, and they cost etcd one."""

import queue
import threading

import grpc
import pytest

from configstore.clock import boottime
from configstore.model.keys import prefix_end
from configstore.store.api import Put
from configstore.store.etcd import shared
from configstore.store.etcd.messages import watch_create_request
from configstore.store.etcd.shared import AHEAD, SharedStreams
from configstore.store.etcd.stubs import rpc
from tests.harness.servers import Proxy, connect
from tests.harness.waiting import wait_until
from tests.store.seen import Seen


@pytest.fixture
def prefixes(kv_root):
    return [f"{kv_root}/{name}/".encode() for name in ("asks", "requests", "intents")]


def put(kv, key):
    return kv.txn((), (Put(key, b""),)).revision


def aside(kv, prefix, start=0):
    return Seen(kv.watch(prefix, prefix_end(prefix), start_revision=start, aside=True))


@pytest.fixture
def calls(monkeypatch):
    """The calls that were made."""
    made = []

    class Counted(shared._Call):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(shared, "_Call", Counted)
    return made


def test_each_sees_its_own_range_and_one_that_ends_leaves_the_others(etcd, prefixes, calls):
    with connect(etcd.endpoint) as kv, aside(kv, prefixes[0]) as one, aside(kv, prefixes[2]) as three:
        with aside(kv, prefixes[1]) as two:
            wait_until(lambda: all(each.batches for each in (one, two, three)))
            assert len(calls) == 1
            for prefix in prefixes:
                put(kv, prefix + b"a")
            wait_until(lambda: all(each.events for each in (one, two, three)))
        for prefix in prefixes:
            put(kv, prefix + b"b")
        wait_until(lambda: len(one.events) == 2 and len(three.events) == 2)
        assert [event.item.key for event in two.events] == [prefixes[1] + b"a"]
        assert [event.item.key for event in three.events] == [prefixes[2] + b"a", prefixes[2] + b"b"]
        assert len(calls) == 1


def test_all_go_on_after_the_connection_was_cut_and_miss_nothing(etcd, prefixes):
    with (
        Proxy(int(etcd.endpoint.rpartition(":")[2])) as proxy,
        connect(proxy.endpoint) as through,
        connect(etcd.endpoint) as direct,
        aside(through, prefixes[0]) as one,
        aside(through, prefixes[1]) as two,
    ):
        wait_until(lambda: one.batches and two.batches)
        proxy.cut()
        for prefix in prefixes:
            put(direct, prefix + b"a")
        proxy.heal()
        wait_until(lambda: one.events and two.events, 30)


class Etcd:
    """A connection whose Watch call says what the test puts into it."""

    endpoint = "http://h:1"

    def __init__(self):
        self.answers, self.asked, self.cancelled = queue.Queue(), [], threading.Event()
        self.asked_all = threading.Event()

    def open_watch(self, requests, metadata):
        def ask():
            self.asked.extend(requests)
            self.asked_all.set()

        threading.Thread(target=ask, daemon=True).start()
        outer = self

        class Call:
            def __iter__(self):
                return iter(outer.answers.get, None)

            def cancel(self):
                outer.cancelled.set()
                outer.answers.put(None)

        return Call()

    def says(self, number, **more):
        self.answers.put(rpc.WatchResponse(watch_id=number, **more))


CREATE = watch_create_request(b"a", b"b", 1)


def test_one_that_is_refused_is_told_so_and_the_others_begin():
    etcd, streams = Etcd(), SharedStreams()
    refused, other = (streams.open(etcd, CREATE, ()) for _ in range(2))
    etcd.says(0, created=True, canceled=True, cancel_reason="etcdserver: permission denied")
    etcd.says(0, created=True)
    etcd.says(0, compact_revision=7)
    assert next(iter(refused)).canceled
    answers = iter(other)
    assert next(answers).created
    assert next(answers).compact_revision == 7
    refused.cut()
    assert not etcd.cancelled.is_set()
    other.cut()
    assert etcd.cancelled.wait(10)
    with pytest.raises(grpc.RpcError):
        next(answers)
    assert etcd.asked_all.wait(10)
    assert all(each.HasField("create_request") for each in etcd.asked), (
        "an id of `refused` would be that of the other"
    )


def test_one_that_left_is_ended_at_etcd_also_when_it_had_not_begun():
    etcd, streams = Etcd(), SharedStreams()
    begun, early, other = (streams.open(etcd, CREATE, ()) for _ in range(3))
    early.cut()
    for number in (5, 6, 7):
        etcd.says(number, created=True)
    assert next(iter(begun)).created
    assert next(iter(other)).created
    begun.cut()
    wait_until(
        lambda: {each.cancel_request.watch_id for each in etcd.asked if each.HasField("cancel_request")} == {5, 6}
    )
    assert streams.open(etcd, CREATE, ()) not in {begun, early, other}


def test_whatever_is_heard_is_a_sign_of_life_of_all_and_another_token_has_another_call(calls):
    etcd, streams = Etcd(), SharedStreams()
    one, two = (streams.open(etcd, CREATE, ()) for _ in range(2))
    one.last_received = two.last_received = 0.0
    begun = boottime()
    etcd.says(0, created=True)
    assert next(iter(one)).created
    assert two.last_received >= begun
    streams.open(etcd, CREATE, (("token", "new"),))
    assert len(calls) == 2


def test_no_more_answers_are_kept_than_one_can_take():
    etcd, streams = Etcd(), SharedStreams()
    slow, other = (streams.open(etcd, CREATE, ()) for _ in range(2))
    etcd.says(0, created=True)
    for _ in range(3 * AHEAD):
        etcd.says(0)
    etcd.says(1, created=True)
    wait_until(slow._answers.full)
    assert etcd.answers.qsize() > AHEAD
    slow.cut()
    assert next(iter(other)).created


def test_an_answer_that_nobody_expects_ends_all_of_them_and_leaves_none_deaf(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    etcd, streams = Etcd(), SharedStreams()
    one, two = (streams.open(etcd, CREATE, ()) for _ in range(2))
    etcd.answers.put("nonsense")
    assert list(one) == list(two) == []
    assert streams.open(etcd, CREATE, ()) not in {one, two}
