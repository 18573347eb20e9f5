"""`on_problem`: what is told to whom watches no figures, and how often."""

import os
import threading

import pytest

from configstore.model.problem import Problem
from sidecar.programs import on_problem
from sidecar.programs.on_problem import PATIENCE, Health, OnProblem, view
from sidecar.reporting.status import Status
from tests.harness.waiting import wait_until
from tests.sidecar.planner.named import a_mapping

BEGINS = Status(mapping="m")
WELL = Status(mapping="m", ready=True, complete=True, cycles=3)
DEGRADED = Status(mapping="m", ready=True, cycles=3, problems=(Problem(path="a b", reason="no\nspace"),))
HALTED = Status(mapping="m", ready=True, cycles=3, halted="refused to delete 40 of 50 paths")
SILENT = Status(mapping="m", ready=True, cycles=3, waiting_for="nobody answers")


@pytest.fixture
def alarms(monkeypatch, tmp_path):
    """Return a function that makes an alarm with a script, and one that returns what it has told."""
    monkeypatch.setattr(on_problem, "MOMENT", 0.05)
    made = []

    def make(script="", told=lambda: None, stuck=lambda: None):
        words = r"printf '%s\n' "
        words += f'"$CONFIGSTORE_MAPPING $CONFIGSTORE_HEALTH: $CONFIGSTORE_REASON" >> {tmp_path}/told'
        command = ("sh", "-c", f"{words}; {script}")
        made.append(OnProblem(a_mapping(settle=0.0, on_problem=command), told, stuck))
        made[-1].start()
        return made[-1]

    def told():
        found = tmp_path / "told"
        return found.read_text().splitlines() if found.exists() else []

    make.told = told
    yield make
    for each in made:
        each.close()


def heard(alarms, *healths):
    """Wait until so much was told, each with the mapping's name."""
    wanted = [f"{a_mapping().name} {health}" for health in healths]
    wait_until(lambda: [line.partition(":")[0] for line in alarms.told()] == wanted, what=f"{wanted}")


def test_each_change_is_told_once_with_its_reason(alarms):
    one = alarms()
    healths = []
    for status in (BEGINS, DEGRADED, HALTED, WELL):
        for _ in range(5):
            one.seen(status)
        if status is not BEGINS:
            healths.append(str(view(status).health))
            heard(alarms, *healths)
    assert [line.partition(": ")[2] for line in alarms.told()] == [
        "'a b': no\\nspace",
        "refused to delete 40 of 50 paths",
        "every record is applied, and no path has a problem",
    ]


def test_a_start_without_trouble_is_not_told(alarms):
    one = alarms()
    for status in (BEGINS, WELL):
        one.seen(status)
    other = alarms()  # has told something by when the first would have, too
    other.seen(DEGRADED)
    heard(alarms, "degraded")
    one.seen(HALTED)
    heard(alarms, "degraded", "halted")


def test_a_state_that_is_over_before_it_lasted_is_not_told(alarms, monkeypatch):
    looks = []
    one = alarms(stuck=lambda: looks.append(1))
    monkeypatch.setattr(on_problem, "MOMENT", 3600.0)
    for status in (DEGRADED, WELL) * 5:
        before = len(looks)
        one.seen(status)
        wait_until(lambda before=before: len(looks) > before, what="a look at it")
    monkeypatch.setattr(on_problem, "MOMENT", 0.05)
    one.seen(HALTED)
    heard(alarms, "halted")


def test_while_a_command_runs_only_the_last_state_counts(alarms, tmp_path):
    os.mkfifo(tmp_path / "gate")
    one = alarms(f"cat {tmp_path}/gate")
    one.seen(DEGRADED)
    heard(alarms, "degraded")
    for status in (WELL, HALTED, WELL, HALTED):
        one.seen(status)
    (tmp_path / "gate").write_text("")
    heard(alarms, "degraded", "halted")
    (tmp_path / "gate").write_text("")


def test_whoever_tells_a_status_never_waits_for_the_command(alarms, tmp_path):
    os.mkfifo(tmp_path / "gate")
    one = alarms(f"cat {tmp_path}/gate")
    one.seen(DEGRADED)
    heard(alarms, "degraded")
    engine = threading.Thread(target=lambda: [one.seen(each) for each in (WELL, HALTED) * 500])
    engine.start()
    engine.join(20)
    assert not engine.is_alive()
    (tmp_path / "gate").write_text("")
    heard(alarms, "degraded", "halted")
    (tmp_path / "gate").write_text("")


def test_a_failure_is_named_until_the_next_change_is_told(alarms, tmp_path):
    told = threading.Event()
    one = alarms(f"test -e {tmp_path}/works", told.set)
    one.seen(DEGRADED)
    assert told.wait(10)
    assert one.failure == "on_problem of certs did not tell that it is degraded: sh: ended with exit code 1"
    (tmp_path / "works").touch()
    told.clear()
    one.seen(WELL)
    assert told.wait(10)
    assert one.failure is None
    heard(alarms, "degraded", "well")


def test_an_engine_that_says_nothing_more_is_told(alarms, monkeypatch):
    monkeypatch.setattr(on_problem, "CHECK", 0.05)
    why = []
    one = alarms(stuck=lambda: why[0] if why else None)
    one.seen(WELL)
    why.append("m: one step has taken 46 s")
    heard(alarms, "degraded")
    why.clear()
    heard(alarms, "degraded", "well")
    assert alarms.told()[0].endswith("one step has taken 46 s")


def test_without_a_command_there_is_no_thread():
    before = threading.active_count()
    OnProblem(a_mapping(), lambda: None).start()
    assert threading.active_count() == before


def test_what_mostly_comes_by_itself_is_given_time():
    assert (view(SILENT).health, view(SILENT).patience) == (Health.DEGRADED, PATIENCE)
    lost = Status(mapping="m", waiting_for="the store has no subtree", lost=True)
    assert view(lost).patience < PATIENCE
    incomplete = Status(mapping="m", cycles=1)
    assert (view(incomplete).health, view(incomplete).patience) == (Health.DEGRADED, PATIENCE)
    assert view(BEGINS) is None


def test_of_many_problems_one_is_named_and_all_are_counted():
    many = Status(mapping="m", ready=True, problems=tuple(Problem(path=each, reason="full") for each in "abc"))
    assert view(many).reason == "3 problems, such as a: full"
