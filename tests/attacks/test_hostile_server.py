"""A server that speaks etcd and means harm: no answer of it is a crash, an endless loop, or much memory."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf import message_factory

from configstore.embedded import LOOPBACK
from configstore.errors import AuthenticationError, ConfigstoreError, StoreError, TooLargeError
from configstore.model.path import ROOT
from configstore.store.api import ModRevision, Put, range_all
from configstore.store.etcd import connection, watch
from configstore.store.etcd.stubs import rpc, services, streamed
from configstore.store.items import items_at
from sidecar.mapping import Mapping
from sidecar.remote.watch import RemoteWatch
from tests.harness.named import a_tree
from tests.harness.servers import connect
from tests.harness.waiting import wait_until

START, END = b"/configstore/files/", b"/configstore/files0"
ABSURD = (-1, 0, -(2**63), 2**63 - 1)
"""Revisions that no store has."""


def handlers(server, service):
    """Return gRPC's handlers for the methods of a service that an object has."""
    found = {}
    for method in services[service].methods:
        if action := getattr(server, method.name, None):
            kind = f"{streamed(method.client_streaming)}_{streamed(method.server_streaming)}"
            found[method.name] = getattr(grpc, f"{kind}_rpc_method_handler")(
                action,
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
            )
    return grpc.method_handlers_generic_handler(services[service].full_name, found)


class Hostile:
    """A server whose answers are the test's: `says`, by the call's name, a message or a function of the request.

    asked: how often each call came.
    """

    def __init__(self):
        self.says = {}
        self.asked = {}
        self._server = grpc.server(
            ThreadPoolExecutor(16), options=[("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
        )
        services_here = ("KV", "Watch", "Lease", "Maintenance", "Auth")
        self._server.add_generic_rpc_handlers([handlers(self, name) for name in services_here])
        self.endpoint = f"http://{LOOPBACK}:{self._server.add_insecure_port(f'{LOOPBACK}:0')}"
        self._server.start()

    def answer(self, name, request):
        self.asked[name] = self.asked.get(name, 0) + 1
        said = self.says[name]
        return said(request) if callable(said) else said

    def Range(self, request, context):  # noqa: N802
        return self.answer("range", request)

    def Txn(self, request, context):  # noqa: N802
        return self.answer("txn", request)

    def LeaseGrant(self, request, context):  # noqa: N802
        return self.answer("grant", request)

    def LeaseTimeToLive(self, request, context):  # noqa: N802
        return self.answer("left", request)

    def LeaseKeepAlive(self, requests, context):  # noqa: N802
        yield from self.answer("keepalive", next(requests))

    def Status(self, request, context):  # noqa: N802
        return self.answer("status", request)

    def Authenticate(self, request, context):  # noqa: N802
        return self.answer("login", request)

    def Watch(self, requests, context):  # noqa: N802
        yield from self.answer("watch", next(requests))

    def close(self):
        self._server.stop(None).wait()


@pytest.fixture
def hostile():
    server = Hostile()
    yield server
    server.close()


@pytest.fixture
def kv(hostile):
    with connect(hostile.endpoint, timeout=3.0) as client:
        yield client


def header(revision=10):
    return rpc.ResponseHeader(cluster_id=1, member_id=1, revision=revision)


def an_item(key, *, create=1, mod=2, version=1, value=b""):
    return rpc.RangeResponse().kvs.add(
        key=key, create_revision=create, mod_revision=mod, version=version, value=value
    )


def page(*items, revision=10, more=False):
    return rpc.RangeResponse(header=header(revision), kvs=items, more=more)


def event(key, mod, *, deleted=False):
    answer = rpc.WatchResponse()
    stored = an_item(key, create=0, mod=mod, version=0) if deleted else an_item(key, mod=mod)
    return answer.events.add(kv=stored, type=1 if deleted else 0)


def created(revision=10):
    return rpc.WatchResponse(header=header(revision), created=True)


GOOD = an_item(START + b"a")

PAGES = {
    "no header": rpc.RangeResponse(),
    **{f"the revision {number}": page(revision=number) for number in ABSURD},
    "more after nothing": page(more=True),
    "a key twice": page(GOOD, GOOD, more=True),
    "keys out of order": page(an_item(START + b"b"), GOOD),
    "a key of elsewhere": page(an_item(b"/etc/shadow")),
    "no key": page(an_item(b"")),
    "a key without revisions": page(an_item(START + b"a", create=0, mod=0)),
    "a key of a negative revision": page(an_item(START + b"a", mod=-5)),
    "a key from the future": page(an_item(START + b"a", mod=11)),
    "a key older than itself": page(an_item(START + b"a", create=9, mod=8)),
    "a key that was never written": page(an_item(START + b"a", version=0)),
    "more keys than asked for": page(*(an_item(START + b"%05d" % number) for number in range(1001))),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_that_no_etcd_gives_is_an_error_in_words(hostile, kv, name):
    hostile.says["range"] = PAGES[name]
    with pytest.raises(StoreError, match="makes no sense"):
        list(range_all(kv, START, END))
    assert hostile.asked["range"] == 1


def test_one_key_is_answered_by_that_key_alone(hostile, kv):
    hostile.says["range"] = page(an_item(START + b"b"))
    with pytest.raises(StoreError, match="not asked for"):
        kv.range(START + b"a")


def test_pages_without_end_come_to_one(hostile, kv, monkeypatch):
    monkeypatch.setattr("configstore.store.api.MAX_KEYS", 5000)
    numbers = itertools.count()
    hostile.says["range"] = lambda request: page(
        *(an_item(START + b"%09d" % next(numbers)) for _ in range(request.limit)), more=True
    )
    with pytest.raises(StoreError, match="more than 5000 keys"):
        list(range_all(kv, START, END))


def test_a_page_over_the_limit_is_asked_for_in_smaller_ones(hostile, kv):
    keys = [START + b"%03d" % number for number in range(200)]
    large = bytes(1_000_000)

    def answer(request):
        found = [key for key in keys if key >= request.key]
        return page(
            *(an_item(key, value=large) for key in found[: request.limit]), more=len(found) > request.limit
        )

    hostile.says["range"] = answer
    most = 0
    found = []
    for each in range_all(kv, START, END):
        most = max(most, sum(len(item.value) for item in each.items))
        found += [item.key for item in each.items]
    assert found == keys
    assert most < connection.MAX_ANSWER


def test_an_answer_over_the_limit_is_refused_and_not_taken_in(hostile, kv):
    hostile.says["range"] = page(an_item(START + b"a", value=bytes(connection.MAX_ANSWER)))
    with pytest.raises(TooLargeError, match="over our limit"):
        kv.range(START + b"a")


def test_many_keys_over_the_limit_are_read_a_few_at_a_time(hostile, kv):
    def answer(request):
        said = rpc.TxnResponse(header=header())
        for one in request.failure:
            found = page(an_item(one.request_range.key, value=bytes(1_000_000)))
            said.responses.add(response_range=found)
        return said

    hostile.says["txn"] = answer
    keys = [START + b"%02d" % number for number in range(40)]
    assert [item.key for item in items_at(kv, keys)] == keys


@pytest.mark.parametrize("name", ["no header", "a strange key", "a key twice", "a wild revision"])
def test_a_txns_answer_that_no_etcd_gives_is_an_error_in_words(hostile, kv, name):
    said = rpc.TxnResponse(header=header())
    key = START + b"a"
    found = {
        "no header": [],
        "a strange key": [an_item(b"/etc/shadow")],
        "a key twice": [an_item(key), an_item(key)],
        "a wild revision": [an_item(key, mod=2**63 - 1)],
    }[name]
    for item in found:
        said.responses.add(response_range=page(item))
    hostile.says["txn"] = said if found else rpc.TxnResponse(succeeded=True)
    with pytest.raises(StoreError, match="makes no sense"):
        kv.txn((ModRevision(key, 1),), (Put(key, b""),), otherwise_get=(key,))


def test_leases_that_no_etcd_grants_are_errors_in_words(hostile, kv):
    for number in (0, -1):
        hostile.says["grant"] = rpc.LeaseGrantResponse(header=header(), ID=number, TTL=5)
        with pytest.raises(StoreError, match="makes no sense"):
            kv.lease_grant(5)
    hostile.says["grant"] = rpc.LeaseGrantResponse(header=header(), ID=1, error="\x1b[2J" * 1000)
    with pytest.raises(StoreError) as failure:
        kv.lease_grant(5)
    assert str(failure.value).isprintable()
    assert len(str(failure.value)) < 2000
    hostile.says["left"] = rpc.LeaseTimeToLiveResponse(header=header(), ID=1, TTL=2**63 - 1)
    with pytest.raises(StoreError, match="makes no sense"):
        kv.lease_left(1)
    for said in ([], [rpc.LeaseKeepAliveResponse(header=header(), ID=1, TTL=2**62)]):
        hostile.says["keepalive"] = said
        with pytest.raises(StoreError, match="makes no sense"):
            kv.lease_keepalive(1)


def test_what_a_member_says_of_itself_is_safe_to_print(hostile, kv):
    said = rpc.StatusResponse(header=header(), version="3.6.0\x1b]0;owned\x07" + "9" * 10**6, dbSize=-1)
    said.MergeFromString(b"\x40\x05\x48\x05\x50\x05\x60\x05" + b"\x4a\x01x" + b"\x52\x01x" + b"\x62\x01x")
    hostile.says["status"] = said
    found = kv.status()
    assert found.version.isprintable()
    assert len(found.version) < 100
    assert found.alarms == ()


@pytest.mark.parametrize("token", ["x" * 10**6, "two\nlines", "caf\xe9"])
def test_a_token_that_no_header_takes_is_an_error_in_words(hostile, token):
    hostile.says["login"] = rpc.AuthenticateResponse(header=header(), token=token)
    with (
        connect(hostile.endpoint, user="u", password="p") as client,
        pytest.raises(AuthenticationError, match="token makes no sense"),
    ):
        client.range(START)


STREAMS = {
    "twice the beginning": [created(), created()],
    "a beginning without a revision": [rpc.WatchResponse(created=True)],
    "a change of elsewhere": [created(), rpc.WatchResponse(header=header(), events=[event(b"/etc/shadow", 10)])],
    "a change from before": [created(), rpc.WatchResponse(header=header(), events=[event(START + b"a", 3)])],
    "a change without a key": [
        created(),
        rpc.WatchResponse(header=header(), events=[rpc.WatchResponse().events.add()]),
    ],
    "changes backwards": [
        created(),
        rpc.WatchResponse(header=header(), events=[event(START + b"a", 12), event(START + b"a", 11)]),
    ],
    "a delete at the end of time": [
        created(),
        rpc.WatchResponse(header=header(), events=[event(START + b"a", 2**63 - 1, deleted=True)]),
    ],
    "progress to the end of time": [created(), rpc.WatchResponse(header=header(2**63 - 1))],
    "progress to nowhere": [created(), rpc.WatchResponse(header=header(-7))],
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_watch_that_no_etcd_keeps_is_an_error_in_words(hostile, kv, name):
    hostile.says["watch"] = lambda _: iter(STREAMS[name])
    hostile.says["range"] = page()
    with pytest.raises(StoreError, match="makes no sense"):
        for _ in kv.watch(START, END, start_revision=5):
            pass


def fragment(*events):
    answer = rpc.WatchResponse(header=header(), events=events)
    answer.MergeFromString(b"\x38\x01")
    return answer


def test_a_revision_without_end_is_not_gathered(hostile, kv, monkeypatch):
    monkeypatch.setattr(watch, "MAX_PENDING", 100_000)
    endless = itertools.repeat(fragment(event(START + b"a", 10)))
    hostile.says["watch"] = lambda _: itertools.chain([created()], endless)
    with pytest.raises(StoreError, match="more than 100000 bytes"):
        for _ in kv.watch(START, END, start_revision=5):
            pass


def test_streams_that_end_at_once_are_not_opened_in_a_tight_loop(hostile, kv):
    hostile.says["watch"] = lambda _: iter([created(), rpc.WatchResponse(header=header())])
    hostile.says["range"] = page()
    following = kv.watch(START, END, start_revision=5)
    timer = threading.Timer(2.0, following.close)
    timer.start()
    for _ in following:
        pass
    assert hostile.asked["watch"] < 25


def test_a_mapping_goes_on_following_whatever_a_server_says(hostile, kv):
    """The thread that follows the store lives on, says why, and takes what is good as soon as that comes."""
    tree = a_tree(kv)
    mapping = Mapping(name="data", store=ROOT, path="/nowhere")
    feed = RemoteWatch(tree, mapping, lambda: None, lambda: 0)
    hostile.says["range"] = lambda request: PAGES["a key twice"] if request.range_end else page()
    hostile.says["watch"] = lambda _: iter(STREAMS["a delete at the end of time"])
    feed.start()
    try:
        wait_until(lambda: feed.error and "makes no sense" in feed.error)
        hostile.says["range"] = page()
        wait_until(feed.drain, 20)
        wait_until(lambda: feed.error and "makes no sense" in feed.error)
        hostile.says["watch"] = lambda _: itertools.chain([created()], iter(lambda: time.sleep(30), 0))
        wait_until(lambda: feed.error is None, 20)
    finally:
        hostile.close()
        feed.close()


def test_bytes_at_random_are_errors_and_nothing_else(hostile, kv):
    """Messages of any shape, as protobuf takes them: each call ends in a value or in one of our errors."""
    import random  # noqa: PLC0415

    chance = random.Random(7)
    tried = refused = 0

    def any_of(kind):
        while True:
            try:
                return kind.FromString(chance.randbytes(chance.randrange(60)))
            except Exception:  # noqa: BLE001  # protobuf's own refusal: such bytes never come so far
                continue

    calls = {
        "range": (rpc.RangeResponse, lambda: list(range_all(kv, START, END))),
        "txn": (rpc.TxnResponse, lambda: kv.txn((), (), otherwise_get=(START,))),
        "grant": (rpc.LeaseGrantResponse, lambda: kv.lease_grant(5)),
        "left": (rpc.LeaseTimeToLiveResponse, lambda: kv.lease_left(5)),
        "status": (rpc.StatusResponse, kv.status),
    }
    for _ in range(200):
        for name, (kind, call) in calls.items():
            hostile.says[name] = any_of(kind)
            tried += 1
            try:
                call()
            except ConfigstoreError:
                refused += 1
    assert tried == 1000
    assert refused > 100
