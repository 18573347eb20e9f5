"""That a replica is to be there: known until it says goodbye, or another takes its place."""

import socket

import msgspec
import pytest

from configstore.errors import PermissionDeniedError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.replica import ExpectedReplica, MappingState, Report, encode, made_of
from configstore.store.api import Delete, Put
from configstore.store.replicas import everyone
from configstore.store.store import Store
from sidecar.config.settings import default_replica
from sidecar.presence.enrolment import KEPT, RENEW, RETRY, Enrolment
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv

KEYS = Keys()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def kv(clock):
    return MemoryKv(MemoryStore(clock=clock))


def report(replica="one", mapping="certs", time="2026-11-01T00:00:00.000+00:00"):
    return Report(mapping=mapping, replica=replica, host="h", session="s", store=StorePath(mapping),
                  state=MappingState.READY, time=time)  # fmt: skip


def enrolled(kv, *reports, now=0.0, directories=None):
    one = Enrolment(Store(kv, KEYS), directories or {"certs": "/certs"})
    one.keep(reports, now)
    assert one.error is None
    return one


def known(kv):
    return {each.replica for each, _ in everyone(Store(kv, KEYS)).expected.values()}


def gone(kv):
    return {each.replica for each, _ in everyone(Store(kv, KEYS)).gone(KEYS).values()}


def test_it_is_known_until_it_says_goodbye(kv):
    one = enrolled(kv, report(), directories={"certs": "/certs", "dkim": "/dkim"})
    assert {(each.mapping, each.directory) for each, _ in everyone(Store(kv, KEYS)).expected.values()} == {
        ("certs", "/certs"),
        ("dkim", "/dkim"),
    }
    one.leave()
    assert known(kv) == set()


def test_who_has_not_reported_yet_is_enrolled_with_the_first_report(kv):
    one = Enrolment(Store(kv, KEYS), {"certs": "/certs"})
    one.keep([], 0.0)
    assert known(kv) == set()
    one.keep([report()], 1.0)
    assert known(kv) == {"one"}


def test_one_that_was_killed_is_missed_for_a_week_and_no_longer(kv, clock):
    enrolled(kv, report())
    assert gone(kv) == {"one"}
    clock.now = KEPT - 1
    assert gone(kv) == {"one"}
    clock.now = KEPT + 1
    assert gone(kv) == set()


def test_one_that_lives_is_not_missed(kv):
    enrolled(kv, report())
    kv.txn((), (Put(KEYS.replica("certs", "one"), encode(report())),))
    assert gone(kv) == set()


def test_it_is_renewed_each_hour_without_a_write(kv, clock):
    one = enrolled(kv, report())
    before = kv.status().revision
    clock.now = KEPT - 10
    one.keep([report()], RENEW - 1)
    one.keep([report()], RENEW + 1)
    assert kv.status().revision == before
    clock.now += KEPT - 10
    assert known(kv) == {"one"}


def test_one_whose_lease_ended_enrols_again(kv, clock):
    one = enrolled(kv, report())
    clock.now = KEPT + 1
    one.keep([report()], RENEW + 1)
    assert known(kv) == {"one"}


def test_who_comes_later_to_the_same_directory_of_a_host_takes_the_place_whatever_the_clocks_say(kv):
    enrolled(kv, report("old"))
    enrolled(kv, report("other"), directories={"certs": "/elsewhere"})
    enrolled(kv, report("new", time="1970-01-01T00:00:00.000+00:00"))
    assert known(kv) == {"other", "new"}


def test_a_loop_of_crashes_is_one_that_is_missed(kv):
    for number in range(5):
        enrolled(kv, report(f"crash{number}"))
        kv.txn((), (Put(KEYS.replica("certs", f"crash{number}"), encode(report(f"crash{number}"))),))
    assert len(known(kv)) == 5  # each of them may live
    for number in range(5):
        kv.txn((), (Delete(KEYS.replica("certs", f"crash{number}")),))
    assert gone(kv) == {"crash4"}


def test_the_last_report_of_a_run_that_died_is_known_as_replaced(kv):
    for name in ("old", "new"):
        enrolled(kv, report(name))
        kv.txn((), (Put(KEYS.replica("certs", name), encode(report(name))),))
    assert everyone(Store(kv, KEYS)).replaced(KEYS) == {KEYS.replica("certs", "old")}


def test_a_goodbye_is_said_for_those_who_were_there_before_too(kv):
    enrolled(kv, report("old"))
    kv.txn((), (Put(KEYS.replica("certs", "old"), encode(report("old"))),))
    new = enrolled(kv, report("new"))
    assert known(kv) == {"old", "new"}
    new.leave()
    assert known(kv) == set()


def test_of_many_replicas_only_those_of_this_host_are_read(kv, monkeypatch):
    """What each replica reads at its start must not grow with how many there are."""
    others = [f"elsewhere{number}-00000000" for number in range(50)]
    for name in others:
        enrolled(kv, msgspec.structs.replace(report(name), host=name.partition("-")[0]))
    enrolled(kv, report("h-00000001"))
    read, ranged = [], kv.range

    def counted(*arguments, **options):
        page = ranged(*arguments, **options)
        read.extend(page.items)
        return page

    monkeypatch.setattr(kv, "range", counted)
    new = enrolled(kv, report("h-00000002"))
    new.keep([report("h-00000002")], RENEW + 1)
    new.leave()
    assert len(read) <= 4
    assert known(kv) == set(others)


def test_an_id_that_was_set_is_not_taken_for_one_of_the_host():
    assert made_of("h-00000001", "h") == "h-"
    assert made_of("h-eu", "h") == made_of("web", "h") == made_of("hx-00000001", "h") == ""
    assert made_of(default_replica(), socket.gethostname())


@pytest.mark.parametrize("how", ["forgotten", "wiped"])
def test_what_is_missing_is_made_again(kv, how):
    one = enrolled(kv, report())
    if how == "wiped":
        kv.lease_revoke(kv.range(KEYS.expected("certs", "one")).items[0].lease)
        one.again()
    else:
        kv.txn((), (Delete(KEYS.expected("certs", "one")),))
    one.keep([report()], RENEW + 1)
    assert known(kv) == {"one"}


def test_without_the_right_it_says_so_and_tries_again(kv, monkeypatch):
    one = Enrolment(Store(kv, KEYS), {"certs": "/certs"})
    with monkeypatch.context() as patch:
        patch.setattr(kv, "txn", _refuse)
        one.keep([report()], 0.0)
        assert isinstance(one.error, PermissionDeniedError)
    one.keep([report()], 1.0)
    assert known(kv) == set()  # not at once
    one.keep([report()], RETRY)
    assert (one.error, known(kv)) == (None, {"one"})


def _refuse(*_, **__):
    raise PermissionDeniedError("no")


def test_what_is_no_enrolment_is_named(kv):
    garbage, foreign = KEYS.expected("certs", "x"), KEYS.expected("certs", "y")
    kv.txn((), (Put(garbage, b"{"), Put(foreign, encode(ExpectedReplica(mapping="certs", replica="z", host="h")))))
    assert everyone(Store(kv, KEYS)).unread.keys() == {garbage, foreign}
