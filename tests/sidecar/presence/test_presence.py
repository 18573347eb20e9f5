"""What a replica tells the store of itself, and when. Over the reference store."""

import msgspec
import pytest

from configstore.errors import PermissionDeniedError, StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.replica import Ask, MappingState, Report, Request, Verb, decode_report, encode
from configstore.store.api import Put
from configstore.store.store import Store
from sidecar.presence.presence import GONE, RENEW, RETRY, RIVAL_PERIOD, Presence
from sidecar.reporting.status import with_notes
from tests.harness.waiting import wait_until
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv


class Telling:
    """A session whose clock stands still, and what it has to report."""

    def __init__(self, store=None, host="h"):
        self.now, self.rounds, self.delivered = 1000.0, 0, []
        self.report = Report(
            mapping="data", replica="one", host=host, session="", store="data", state=MappingState.READY
        )
        self.kv = MemoryKv(store or MemoryStore(clock=lambda: 0.0))
        self.presence = Presence(
            Store(self.kv, Keys()), self.reports, self.delivered.append, clock=lambda: self.now
        )

    def reports(self, session):
        self.rounds += 1
        return [with_notes(msgspec.structs.replace(self.report, session=session), self.presence.notes())]

    def told(self):
        found = self.kv.range(Keys().replica("data", "one")).items
        return decode_report(found[0].value).revision if found else None

    def after_a_round(self):
        for _ in range(2):  # when the second begins, the first is over
            before = self.rounds
            self.presence.changed()
            wait_until(lambda before=before: self.rounds > before)
        return self.told()


@pytest.fixture
def telling():
    found = Telling()
    found.presence.start()
    wait_until(lambda: found.told() is not None)
    yield found
    found.presence.close()


def test_progress_alone_is_told_with_the_next_renewal(telling):
    telling.report = msgspec.structs.replace(telling.report, revision=7)
    assert telling.after_a_round() == 0
    telling.now += RENEW
    telling.presence.changed()
    wait_until(lambda: telling.told() == 7)
    before = telling.kv.status().revision
    telling.now += RENEW
    telling.after_a_round()
    assert telling.kv.status().revision == before  # a quiet replica writes nothing


def test_a_renewal_that_failed_is_tried_again_before_the_session_ends(telling):
    """Else the one that follows it by the clock comes when the session is over."""
    tried = []

    def lost(lease):
        tried.append(lease)
        raise StoreUnavailableError("no answer")

    kept, telling.kv.lease_keepalive = telling.kv.lease_keepalive, lost
    telling.now += RENEW
    telling.presence.changed()
    wait_until(lambda: tried)
    telling.kv.lease_keepalive = lambda lease: tried.append(lease) or kept(lease)
    telling.now += RETRY
    telling.presence.changed()
    wait_until(lambda: len(tried) == 2, what="the renewal to be tried again")


def test_progress_that_nobody_waits_for_is_not_even_looked_at(telling):
    """Each replica gets further with every change: that must cost it nothing, and the store no write."""
    telling.after_a_round()
    rounds = telling.rounds
    telling.report = msgspec.structs.replace(telling.report, revision=7)
    telling.presence.advanced()
    assert not telling.presence._wake.is_set()
    telling.kv.txn((), (Put(Keys().ask("a"), encode(Ask(id="a", revision=9))),))
    wait_until(lambda: telling.rounds > rounds and telling.told() == 7)
    telling.report = msgspec.structs.replace(telling.report, revision=9)
    telling.presence.advanced()
    wait_until(lambda: telling.told() == 9)


def test_another_state_is_told_at_once(telling):
    telling.report = msgspec.structs.replace(telling.report, revision=7, ready=True)
    telling.presence.changed()
    wait_until(lambda: telling.told() == 7)


@pytest.fixture
def pair():
    """Two sessions over one store that have one replica id; the clock of both stands still."""
    store = MemoryStore(clock=lambda: 0.0)
    older, younger = Telling(store, "old"), Telling(store, "young")
    yield older, younger
    for each in (older, younger):
        each.presence.close()


def reported(telling):
    return decode_report(telling.kv.range(Keys().replica("data", "one")).items[0].value)


def start(telling):
    telling.presence.start()
    wait_until(lambda: telling.rounds)
    telling.after_a_round()


def doubled(older, younger):
    start(older)
    start(younger)
    wait_until(older.presence.notes, what="the older one to see the younger one")
    wait_until(lambda: again(younger) and younger.presence.notes(), what="the younger one to see the older one")


def again(telling):
    telling.after_a_round()
    return True


def test_two_of_one_id_both_say_so_with_the_mend(pair):
    older, younger = pair
    doubled(older, younger)
    (words,) = older.presence.notes()
    assert "another sidecar, on young, has the same replica id" in words
    assert "CONFIGSTORE_REPLICA" in words
    assert "on old," in younger.presence.notes()[0]
    for each in pair:
        again(each)
        assert "has the same replica id" in reported(each).problems[0].reason


def test_a_doubled_id_is_logged_once_and_over_when_the_other_is_gone(pair, caplog):
    older, younger = pair
    doubled(older, younger)
    for _ in range(3):
        again(older)
        again(younger)
    assert len([line for line in caplog.records if "under the same replica id" in line.message]) == 2
    younger.presence.close()
    older.after_a_round()
    older.now += GONE + RIVAL_PERIOD
    again(older)
    assert older.presence.notes() == []
    again(older)
    assert reported(older).problems == ()


def test_the_report_of_a_run_that_died_is_no_other_sidecar(pair):
    older, younger = pair
    start(older)
    older.kv.lease_revoke = lambda _: None
    older.presence.close()
    start(younger)
    for _ in range(4):
        younger.now += RIVAL_PERIOD
        again(younger)
    assert younger.presence.notes() == []


def test_a_report_that_may_not_be_written_is_said_with_the_right_that_is_missing(telling):
    def refuse(*_, **__):
        raise PermissionDeniedError("etcd: permission denied")

    telling.kv.txn = refuse
    telling.report = msgspec.structs.replace(telling.report, ready=True)
    telling.presence.changed()
    (words,) = wait_until(telling.presence.notes)
    assert "cannot report to the store" in words
    assert "it needs readwrite on all keys that begin with /configstore/replicas/" in words
    del telling.kv.txn
    wait_until(lambda: again(telling) and not telling.presence.notes())


@pytest.mark.parametrize(
    ("where", "said", "right"),
    [
        ("requests", "cannot read what is asked for in the store", "read"),
        ("asks", "cannot read who asks in the store", "readwrite"),
    ],
)
def test_what_may_not_be_followed_is_said_with_the_right_that_is_missing(where, said, right):
    telling = Telling()
    normal = telling.kv.range

    def refuse(start, end=None, **how):
        if f"/{where}/".encode() in start:
            raise PermissionDeniedError("etcd: permission denied")
        return normal(start, end, **how)

    telling.kv.range = refuse
    telling.presence.start()
    try:
        (words,) = wait_until(telling.presence.notes)
        assert said in words
        assert f"it needs {right} on all keys that begin with /configstore/{where}/" in words
        telling.kv.range = normal
        wait_until(lambda: not telling.presence.notes(), 20)
    finally:
        telling.presence.close()


CHOICE = encode(Request(id="i", verb=Verb.RESUME, by="ann@h"))
ASK = encode(Ask(id="i"))


@pytest.mark.parametrize(
    ("key", "text", "logged"),
    [
        (Keys().ask("i"), CHOICE, "what is no ask for a report is ignored"),
        (Keys().request("i"), ASK, "an unreadable request in the store is ignored"),
        (
            Keys().request("i"),
            CHOICE.replace(b"resume", b"dance"),
            "an unreadable request in the store is ignored",
        ),
        (
            Keys().request("i"),
            CHOICE.replace(b"ann@h", b"a" * 300),
            "an unreadable request in the store is ignored",
        ),
    ],
)
def test_a_verb_where_it_does_not_belong_causes_a_warning_and_no_more(telling, caplog, key, text, logged):
    telling.after_a_round()
    before = telling.kv.range(Keys().replica("data", "one")).items[0].mod_revision
    telling.kv.txn((), (Put(key, text),))
    wait_until(lambda: logged in caplog.text)
    telling.after_a_round()
    assert telling.kv.range(Keys().replica("data", "one")).items[0].mod_revision == before
    assert telling.delivered == []
    telling.kv.txn((), (Put(Keys().ask("after"), ASK), Put(Keys().request("after"), CHOICE)))
    wait_until(lambda: telling.delivered, what="a request to be taken where it belongs")
    wait_until(lambda: telling.kv.range(Keys().replica("data", "one")).items[0].mod_revision > before)
