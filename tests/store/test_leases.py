"""Leases on a real etcd: order, fences, loss, breaking, and `etcdctl lock` in the same queue."""

import signal
import subprocess
import threading
from datetime import datetime

import pytest

from configstore.clock import boottime
from configstore.errors import StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.lease import QueueEntry
from configstore.store.api import Delete, Put
from configstore.store.lease_intents import last_intent
from configstore.store.lease_queue import break_lease, held_up, queue, queues
from configstore.store.leases import Lease, LeaseLostError, LeaseTakenError
from configstore.store.store import Store
from tests.harness.named import a_dir, a_tree, a_write
from tests.harness.servers import etcdctl
from tests.harness.waiting import wait_until
from tests.memory_store.store import MemoryKv

NAME = "letsencrypt"


@pytest.fixture
def keys(kv_root):
    return Keys(kv_root)


@pytest.fixture
def contender(kv, keys):
    """Return a function that makes contenders; all give back in the end."""
    made = []

    def make(replica="one", ttl=5, **how):
        contender = QueueEntry(replica=replica, host="host", command="certbot", time="2026-01-01T00:00:00Z")
        made.append(Lease(Store(how.pop("kv", kv), keys), NAME, contender, ttl=ttl, **how))
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
    wait_until(lambda: len(queue(Store(kv, keys), NAME)) == 2)
    assert [place.contender.replica for place in queue(Store(kv, keys), NAME)] == ["one", "two"]
    assert two.fence() is None
    wait_until(lambda: waited)
    one.release()
    thread.join(10)
    assert outcome[0].token > first.token
    assert [place.contender.replica for place in waited[0]] == ["one"]
    assert one.fence() is None


def test_the_queue_is_fair(contender, kv, keys):
    holder = contender("holder")
    holder.acquire(None)
    order, threads = [], []
    for number in range(5):
        each = contender(str(number))

        def turn(each=each):
            each.acquire(30)
            order.append(each.contender.replica)
            each.release()

        threads.append(in_background(turn)[0])
        wait_until(lambda number=number: len(queue(Store(kv, keys), NAME)) == number + 2)
    holder.release()
    for thread in threads:
        thread.join(20)
    assert order == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("patience", [0, 0.3])
def test_patience_ends_and_names_the_holder(contender, kv, keys, patience):
    contender("one").acquire(None)
    with pytest.raises(LeaseTakenError, match=r"held by one on host for certbot \(since 2026"):
        contender("two").acquire(patience)
    assert len(queue(Store(kv, keys), NAME)) == 1


def test_it_stays_while_it_is_renewed_and_ends_when_abandoned(contender, kv, keys):
    one = contender("one", ttl=2)
    one.acquire(None)
    start = boottime()
    wait_until(lambda: boottime() - start > 3, 10)
    assert one.fence()
    assert one.left() > 0
    one.abandon()
    assert one.fence() is None
    assert queue(Store(kv, keys), NAME)  # not another's yet
    contender("two").acquire(10)


def test_a_broken_lease_is_lost_for_ever(contender, kv, keys):
    one = contender("one", ttl=2)
    one.acquire(None)
    assert break_lease(Store(kv, keys), queue(Store(kv, keys), NAME)[0])
    wait_until(lambda: one.lost)
    assert one.fence() is None
    assert "somebody ended it" in one.lost
    with pytest.raises(LeaseLostError):
        one.begin("now")
    assert queue(Store(kv, keys), NAME) == []


def test_an_end_is_noticed_at_once_and_not_with_the_next_renewal(contender, kv, keys):
    one = contender("one", ttl=3600)
    one.acquire(None)
    assert break_lease(Store(kv, keys), queue(Store(kv, keys), NAME)[0])
    wait_until(lambda: one.lost, 30)
    assert one.fence() is None


def test_a_waiter_whose_place_is_gone_queues_again_at_the_end(contender, kv, keys):
    one, two, three = contender("one"), contender("two", ttl=2), contender("three")
    one.acquire(None)
    turns = [in_background(lambda: two.acquire(60))]
    wait_until(lambda: len(queue(Store(kv, keys), NAME)) == 2)
    turns.append(in_background(lambda: three.acquire(60)))
    wait_until(lambda: len(queue(Store(kv, keys), NAME)) == 3)
    break_lease(Store(kv, keys), queue(Store(kv, keys), NAME)[1])
    wait_until(
        lambda: [place.contender.replica for place in queue(Store(kv, keys), NAME)] == ["one", "three", "two"]
    )
    one.release()
    turns[1][0].join(20)
    assert three.fence()
    assert not two.fence()
    three.release()
    turns[0][0].join(20)
    assert two.fence() == turns[0][1][0]


class Awkward(MemoryKv):
    """A store that does not answer some calls."""

    def __init__(self):
        super().__init__()
        self.unanswered = {}

    def _told(self, name, call):
        if self.unanswered.get(name, 0) > 0:
            self.unanswered[name] -= 1
            raise StoreUnavailableError("no member answers")
        return call()

    def lease_revoke(self, lease):
        self._told("revoke", lambda: super(Awkward, self).lease_revoke(lease))

    def txn(self, *words, **named):
        return self._told("txn", lambda: super(Awkward, self).txn(*words, **named))


def test_it_is_given_back_until_that_is_certain(contender, keys):
    kv = Awkward()
    one = contender(kv=kv, ttl=3600)
    one.acquire(None)
    kv.unanswered["revoke"] = 4
    one.release()
    assert one.fence() is None
    wait_until(lambda: queue(Store(kv, keys), NAME) == [], 30)
    assert kv.unanswered["revoke"] == 0


def test_what_is_noted_at_the_end_is_noted_as_soon_as_the_store_answers(contender, keys):
    kv = Awkward()
    one = contender(kv=kv, ttl=3600)
    one.acquire(None)
    kv.unanswered["txn"] = 4
    one.begin("10:00")
    kv.unanswered["txn"] = 4
    one.end("10:00", "10:01", 0)
    assert last_intent(Store(kv, keys), NAME).ended == "10:01"


def test_who_has_its_turn_with_little_time_left_renews_before_anything_is_started(contender):
    moment = [100.0]

    class Slow(MemoryKv):
        renewals = 0

        def lease_grant(self, ttl):
            moment[0] += 1.9  # as during an election
            return super().lease_grant(ttl)

        def lease_keepalive(self, lease):
            self.renewals += 1
            return super().lease_keepalive(lease)

    kv = Slow()
    one = contender(kv=kv, ttl=2, clock=lambda: moment[0])
    one.acquire(None)
    assert (one.left(), kv.renewals) == (2.0, 1)


def test_a_waiter_outlives_an_outage_that_its_place_outlived(contender, kv, keys):
    moment = [100.0]
    one, two = contender("one"), contender("two", ttl=5, clock=lambda: moment[0])
    one.acquire(None)
    thread, outcome = in_background(lambda: two.acquire(60))
    wait_until(lambda: len(queue(Store(kv, keys), NAME)) == 2)
    moment[0] += 100  # nobody could renew it for so long, but a new leader has
    one.release()
    thread.join(20)
    assert two.fence() == outcome[0]
    assert two.left() == two.ttl


def test_it_is_known_when_another_replica_held_it_last(contender, kv, keys):
    def hold(replica, *, ends=True):
        lease = contender(replica)
        lease.acquire(20)
        lease.begin("10:00")
        if ends:
            lease.end("10:00", "10:01", 0)
        revision = kv.range(keys.intent(NAME)).items[0].mod_revision
        lease.release()
        return lease.before.others, revision

    assert hold("one")[0] == 0
    others, _ = hold("one")
    assert others == 0, "its own holds are nobody else's"
    _, at = hold("two")
    assert hold("one")[0] == at
    others, unended = hold("one", ends=False)
    assert others == at
    assert hold("two")[0] == unended


def test_what_never_began_leaves_the_note_of_what_did_not_end(contender, kv, keys):
    one = contender("one")
    one.acquire(None)
    one.begin("10:00")
    one.release()
    two = contender("two")
    two.acquire(10)
    two.begin("11:00")
    two.never_began("11:00")
    two.release()
    assert last_intent(Store(kv, keys), NAME).ended
    three = contender("three")
    three.acquire(10)
    assert three.begin("12:00") == "certbot, begun 10:00 by one on host"
    three.end("12:00", "12:01", 0)
    three.release()
    four = contender("four")
    four.acquire(10)
    four.begin("13:00")
    four.never_began("13:00")
    assert last_intent(Store(kv, keys), NAME).ended


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
            moment[0] += 0.25
            return super().lease_grant(ttl)

    one = contender(kv=Slow(), ttl=2, clock=lambda: moment[0])
    one.acquire(None)
    assert one.left() == 1.75


def test_a_stale_holder_commits_nothing(contender, kv, keys):
    tree = a_tree(kv, keys.root)
    one = contender("one", ttl=2)
    fence = one.acquire(None)
    made = a_write("certs", a_dir())
    assert tree.commit([made], retention=0, fence=fence).complete
    one.release()
    stale = a_write("certs", a_dir(0o700), tree.read("certs").mod_revision)
    assert tree.commit([stale], retention=0, fence=fence).fenced_out
    contender("two").acquire(10)
    assert tree.commit([stale], retention=0, fence=fence).fenced_out
    assert tree.read("certs").entry.mode == 0o755


def test_what_was_begun_and_not_ended_is_told_to_the_next(contender, kv, keys):
    one = contender("one")
    one.acquire(None)
    assert one.begin("10:00") == ""
    one.release()
    two = contender("two")
    two.acquire(10)
    before = two.begin("11:00")
    assert before == "certbot, begun 10:00 by one on host"
    two.end("11:00", "11:01", 0)
    two.release()
    three = contender("three")
    three.acquire(10)
    assert three.begin("12:00") == ""
    assert (last_intent(Store(kv, keys), NAME).contender.replica, last_intent(Store(kv, keys), NAME).ended) == (
        "three",
        "",
    )


def test_a_key_that_no_etcd_lease_ends_is_shown_for_what_it_is_and_can_be_broken(contender, kv, keys):
    key = keys.lease_queue(NAME) + b"/by hand"
    kv.txn((), (Put(key, b"\xffgarbage"),))
    (place,) = queues(Store(kv, keys))[NAME]
    assert "a key that no etcd lease ends" in place.text
    kv.txn((), (Delete(key),))
    kv.txn((), (Put(key, b"another"),))
    assert not break_lease(Store(kv, keys), place), "it is another one than was seen"
    assert break_lease(Store(kv, keys), queue(Store(kv, keys), NAME)[0])
    contender().acquire(10)


def test_a_lease_held_for_long_is_named_with_its_mend(contender, kv, keys):
    one = contender("one")
    one.acquire(None)
    one.begin("2026-01-01T10:00:00+00:00")
    ten = datetime.fromisoformat("2026-01-01T10:00:00+00:00").timestamp()
    assert held_up(Store(kv, keys), ten + 1700) == []
    (words,) = map(str, held_up(Store(kv, keys), ten + 7200))
    assert "is held for 2 hours, longer than is usual, by one on host for certbot" in words
    assert f"configstore leases break {NAME}" in words
    one.release()
    kv.txn((), (Put(keys.lease_queue(NAME) + b"/by hand", b""),))
    (words,) = map(str, held_up(Store(kv, keys), ten))
    assert "a key that no etcd lease ends" in words


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
    wait_until(lambda: queue(Store(kv, keys), NAME))
    with pytest.raises(LeaseTakenError, match="etcdctl lock"):
        contender().acquire(0.2)
    one = contender()
    thread, outcome = in_background(lambda: one.acquire(20))
    wait_until(lambda: len(queue(Store(kv, keys), NAME)) == 2)
    theirs.send_signal(signal.SIGINT)
    thread.join(20)
    assert one.fence() == outcome[0]


def test_we_keep_etcdctl_lock_out(etcdctl_lock, contender, kv, keys):
    one = contender()
    one.acquire(None)
    theirs = etcdctl_lock("echo", "entered")
    wait_until(lambda: len(queue(Store(kv, keys), NAME)) == 2)
    assert theirs.poll() is None
    one.release()
    assert "entered" in theirs.communicate(timeout=90)[0]
