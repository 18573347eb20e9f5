"""When a set is closed, and when deletes may travel."""

from sidecar.planner.settle import MAX_DELETE_SETTLE, MAX_SETTLE, DeleteWindow, SetWindow


def test_a_set_is_complete_when_nothing_was_noticed_for_the_settle_time():
    window = SetWindow(0.25)
    window.noticed(100.0)
    window.noticed(100.2)
    assert not window.settled(100.4)
    assert window.settled(100.45)


def test_a_set_that_never_gets_quiet_is_closed_all_the_same():
    window = SetWindow(0.25)
    now = 100.0
    window.noticed(now)
    while not window.settled(now):
        window.noticed(now)
        now += 0.1
    assert MAX_SETTLE <= now - 100.0 < MAX_SETTLE + 0.2


def test_the_clock_of_a_set_starts_with_the_set():
    window = SetWindow(0.25)
    window.noticed(100.0)
    window.close()
    window.noticed(200.0)
    assert not window.tired(200.2), "the set before has nothing to do with this one"
    assert not window.settled(200.2)


def test_each_set_has_a_number_of_its_own_and_none_is_none():
    window = SetWindow(0.02)
    assert window.number == 0
    window.noticed(1.0)
    first = window.number
    window.noticed(1.01)
    assert window.number == first
    window.close()
    assert window.number == 0
    window.noticed(2.0)
    assert window.number > first


def test_deletes_wait_for_deletes_only_and_not_for_ever():
    window = DeleteWindow(1.0)
    now = 100.0
    while not window.settled(now) or now == 100.0:
        window.noticed(now)
        now += 0.5
    assert MAX_DELETE_SETTLE <= now - 100.0 <= MAX_DELETE_SETTLE + 1.0


def test_what_is_deleted_right_after_belongs_to_the_same_deletion():
    window = DeleteWindow(1.0)
    window.noticed(100.0)
    window.sent(30, 105.0)
    assert window.gone_before == 30
    window.noticed(100.9)
    assert window.gone_before == 30
    window.noticed(110.0)
    assert window.gone_before == 0, "that is another one"
