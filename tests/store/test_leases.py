"""Leases on a real etcd: order, fences, loss, breaking, and `etcdctl lock` in the same queue."""

import signal
import subprocess
import threading

import pytest

from configstore.clock import boottime
from configstore.errors import StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.lease import Claim
from configstore.model.record import Entry, Kind
from configstore.store.api import Put
from configstore.store.leases import (
    Lease,
    LeaseLostError,
    LeaseTakenError,
    break_lease,
    last_intent,
    queue,
    queues,
)
from configstore.store.memory import MemoryKv
from configstore.store.tree import Tree
from configstore.store.values import Write, Writer
from tests.servers import etcdctl
from tests.waiting import wait_until

NAME = "letsencrypt"


@pytest.fixture
def keys(kv_root):
    return Keys(kv_root)


@pytest.fixture
def contender(kv, keys):
    """Return a function that makes contenders; all give back in the end."""
    made = []

    def make(replica="one", ttl=5, **how):
        claim = Claim(replica=replica, host="host", command="certbot", time="2026-01-01T00:00:00Z")
        made.append(Lease(how.pop("kv", kv), keys, NAME, claim, ttl=ttl, **how))
        return made[-1]

    yield make
    for each in made:
        each.release()


def in_background(work):
    """Run in a thread; returns the thread and the list into which its outcome goes."""
    outcome = []

    def labour():
        try:
            outcome.append(work())
        except Exception as error:  # noqa: BLE001  # looked at by the test
            outcome.append(error)

    thread = threading.Thread(target=labour, daemon=True)
    thread.start()
    return thread, outcome


def test_one_holds_and_the_next_follows_at_its_release(contender, kv, keys):
    one, two = contender("one"), contender("two")
    first = one.acquire(None)
    waited = []
    thread, outcome = in_background(lambda: two.acquire(10, waited.append))
    wait_until(lambda: len(queue(kv, keys, NAME)) == 2)
    assert [place.claim.replica for place in queue(kv, keys, NAME)] == ["one", "two"]
    assert two.fence() is None
    wait_until(lambda: waited)
    one.release()
    thread.join(10)
    assert outcome[0].token > first.token
    assert [place.claim.replica for place in waited[0]] == ["one"]
    assert one.fence() is None


def test_the_queue_is_fair(contender, kv, keys):
    holder = contender("holder")
    holder.acquire(None)
    order, threads = [], []
    for number in range(5):
        each = contender(str(number))

        def turn(each=each):
            each.acquire(30)
            order.append(each.claim.replica)
            each.release()

        threads.append(in_background(turn)[0])
        wait_until(lambda number=number: len(queue(kv, keys, NAME)) == number + 2)
    holder.release()
    for thread in threads:
        thread.join(20)
    assert order == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("patience", [0, 0.3])
def test_patience_ends_and_names_the_holder(contender, kv, keys, patience):
    contender("one").acquire(None)
    with pytest.raises(LeaseTakenError, match=r"held by one on host for certbot \(since 2026"):
        contender("two").acquire(patience)
    assert len(queue(kv, keys, NAME)) == 1


def test_it_stays_while_it_is_renewed_and_ends_when_abandoned(contender, kv, keys):
    one = contender("one", ttl=2)
    one.acquire(None)
    start = boottime()
    wait_until(lambda: boottime() - start > 3, 10)
    assert one.fence()
    assert one.left() > 0
    one.abandon()
    assert one.fence() is None
    assert queue(kv, keys, NAME)  # not another's yet
    contender("two").acquire(10)


def test_a_broken_lease_is_lost_for_ever(contender, kv, keys):
    one = contender("one", ttl=2)
    one.acquire(None)
    assert break_lease(kv, queue(kv, keys, NAME)[0])
    wait_until(lambda: one.lost)
    assert one.fence() is None
    assert "somebody ended it" in one.lost
    with pytest.raises(LeaseLostError):
        one.begin("now")
    assert queue(kv, keys, NAME) == []


def test_a_waiter_whose_place_is_taken_away_does_not_enter(contender, kv, keys):
    one, two = contender("one"), contender("two", ttl=2)
    one.acquire(None)
    thread, outcome = in_background(lambda: two.acquire(30))
    wait_until(lambda: len(queue(kv, keys, NAME)) == 2)
    break_lease(kv, queue(kv, keys, NAME)[1])
    thread.join(10)
    assert isinstance(outcome[0], LeaseLostError)


class Unanswered(MemoryKv):
    """A store that stops renewing."""

    silent = False

    def lease_keepalive(self, lease):
        if self.silent:
            raise StoreUnavailableError("no member answers")
        return super().lease_keepalive(lease)


def test_without_answers_it_is_lost_at_the_deadline_and_not_before(contender):
    kv = Unanswered()
    one = contender(kv=kv, ttl=2)
    one.acquire(None)
    kv.silent = True
    assert one.fence()
    wait_until(lambda: one.lost, 10)
    assert "no member answers" in one.lost
    kv.silent = False
    assert one.fence() is None


def test_a_process_that_stood_still_has_lost_it_even_when_etcd_still_renews(contender):
    moment = [100.0]
    one = contender(kv=MemoryKv(), ttl=2, clock=lambda: moment[0])
    one.acquire(None)
    assert one.left() == 2.0
    moment[0] += 2.5
    assert one.fence() is None
    wait_until(lambda: one.lost, 10)
    assert "stood still" in one.lost


def test_one_that_depends_on_a_client_is_lost_when_that_is_silent(contender):
    silent, heard = contender("one", kv=MemoryKv(), ttl=2), contender("two", kv=MemoryKv(), ttl=2)
    for each in (silent, heard):
        each.acquire(None)
        each.depend()

    def lost():
        heard.heard()
        return silent.lost

    wait_until(lost, 10)
    assert "its client was silent" in silent.lost
    assert heard.fence()
    silent.heard()
    assert silent.fence() is None
    heard.stand_alone()
    start = boottime()
    wait_until(lambda: boottime() - start > 2.5)
    assert heard.fence()


@pytest.mark.parametrize(("ttl", "asked"), [(2, 2), (3, 2), (30, 29), (3600, 3599)])
def test_etcd_is_asked_for_less_so_that_it_has_noticed_within_the_ttl(contender, ttl, asked):
    granted = []

    class Noting(MemoryKv):
        def lease_grant(self, ttl):
            granted.append(ttl)
            return super().lease_grant(ttl)

    one = contender(kv=Noting(), ttl=ttl)
    one.acquire(None)
    assert granted == [asked]
    assert 0 < one.left() <= asked


def test_the_deadline_counts_from_before_the_request(contender):
    moment = [100.0]

    class Slow(MemoryKv):
        def lease_grant(self, ttl):
            moment[0] += 1.5
            return super().lease_grant(ttl)

    one = contender(kv=Slow(), ttl=2, clock=lambda: moment[0])
    one.acquire(None)
    assert one.left() == 0.5


def test_a_stale_holder_commits_nothing(contender, kv, keys):
    writer = Writer(replica="one", host="h", now=lambda: "", new_id=iter("abcdefgh").__next__)
    tree = Tree(kv, keys, writer)
    one = contender("one", ttl=2)
    fence = one.acquire(None)
    made = Write(path="certs", entry=Entry(kind=Kind.DIR, mode=0o755))
    assert tree.commit([made], retention=0, fence=fence).complete
    one.release()
    stale = Write(path="certs", entry=Entry(kind=Kind.DIR, mode=0o700), expected=tree.read("certs").mod_revision)
    assert tree.commit([stale], retention=0, fence=fence).fenced_out
    contender("two").acquire(10)
    assert tree.commit([stale], retention=0, fence=fence).fenced_out
    assert tree.read("certs").entry.mode == 0o755


def test_what_was_begun_and_not_ended_is_told_to_the_next(contender, kv, keys):
    one = contender("one")
    one.acquire(None)
    assert one.begin("10:00") is None
    one.release()
    two = contender("two")
    two.acquire(10)
    before = two.begin("11:00")
    assert before.words == "certbot, begun 10:00 by one on host"
    two.end("11:00", "11:01", 0)
    two.release()
    three = contender("three")
    three.acquire(10)
    assert three.begin("12:00") is None
    assert (last_intent(kv, keys, NAME).claim.replica, last_intent(kv, keys, NAME).ended) == ("three", "")


def test_claims_of_others_are_listed(kv, keys):
    kv.txn((), (Put(keys.lease_queue("other") + b"/1", b"\xffgarbage"),))
    (place,) = queues(kv, keys)["other"]
    assert "somebody without a name" in place.words
    assert not break_lease(kv, place)


@pytest.fixture
def etcdctl_lock(etcd, keys):
    """Return a function that runs a command under `etcdctl lock`."""
    running = []

    def lock(*command):
        arguments = [etcdctl(), f"--endpoints={etcd.endpoint}", "lock", "--ttl=5"]
        running.append(
            subprocess.Popen(
                [*arguments, keys.lease_queue(NAME).decode(), *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            )
        )
        return running[-1]

    yield lock
    for each in running:
        each.kill()
        each.communicate()


def test_etcdctl_lock_keeps_us_out(etcdctl_lock, contender, kv, keys):
    theirs = etcdctl_lock()  # without a command it holds until it is interrupted
    wait_until(lambda: queue(kv, keys, NAME))
    with pytest.raises(LeaseTakenError, match="etcdctl lock"):
        contender().acquire(0.2)
    one = contender()
    thread, outcome = in_background(lambda: one.acquire(20))
    wait_until(lambda: len(queue(kv, keys, NAME)) == 2)
    theirs.send_signal(signal.SIGINT)
    thread.join(20)
    assert one.fence() == outcome[0]


def test_we_keep_etcdctl_lock_out(etcdctl_lock, contender, kv, keys):
    one = contender()
    one.acquire(None)
    theirs = etcdctl_lock("echo", "entered")
    wait_until(lambda: len(queue(kv, keys, NAME)) == 2)
    assert theirs.poll() is None
    one.release()
    assert "entered" in theirs.communicate(timeout=20)[0]
