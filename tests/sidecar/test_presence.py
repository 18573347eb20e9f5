"""What a replica tells the store of itself, and when. Over the reference store."""

import msgspec
import pytest

from configstore.model.keys import Keys
from configstore.model.replica import Report, State, decode_report
from configstore.store.memory import MemoryKv
from configstore.store.memory_state import MemoryStore
from sidecar.presence import RENEW, Presence
from tests.waiting import wait_until


class Telling:
    """A session whose clock stands still, and what it has to report."""

    def __init__(self):
        self.now, self.rounds = 1000.0, 0
        self.report = Report(mapping="data", replica="one", host="h", session="", store="data", state=State.READY)
        self.kv = MemoryKv(MemoryStore(clock=lambda: 0.0))
        self.presence = Presence(self.kv, Keys(), self.reports, print, clock=lambda: self.now)

    def reports(self, session):
        self.rounds += 1
        return [msgspec.structs.replace(self.report, session=session)]

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


def test_another_state_is_told_at_once(telling):
    telling.report = msgspec.structs.replace(telling.report, revision=7, ready=True)
    telling.presence.changed()
    wait_until(lambda: telling.told() == 7)
