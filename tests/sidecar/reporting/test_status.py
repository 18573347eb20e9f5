"""What is said of a mapping in the store, and to who waits for it."""

from configstore.model.problem import Problem
from configstore.model.replica import MAX_PROBLEMS
from sidecar.mapping import Mapping
from sidecar.reporting.status import Status, report_of, with_notes

MAPPING = Mapping(name="data", store="data", path="/data")
MANY = tuple(Problem(path=f"a-{number:03}", reason="made here") for number in range(200))


def reported(**fields):
    return report_of(
        Status(mapping="data", **fields), MAPPING, replica="r", host="h", session="s", clock=0.0, time=""
    )


def test_many_problems_of_one_kind_hide_none_of_another():
    report = reported(problems=(*MANY, Problem(path="z", reason="no permission")))
    assert (len(report.problems), report.problem_count) == (MAX_PROBLEMS, 201)
    assert {each.reason for each in report.problems} == {"made here", "no permission"}


def test_a_trouble_of_the_whole_replica_comes_first_and_makes_a_ready_one_degraded():
    report = with_notes(reported(ready=True, complete=True, problems=MANY), ["it hangs"])
    assert (report.problems[0].reason, report.problem_count) == ("it hangs", 201)
    assert len(report.problems) == MAX_PROBLEMS
    assert report.degraded
    assert not with_notes(reported(ready=True), []).degraded
    assert not with_notes(reported(ready=False), ["it hangs"]).degraded


def test_who_waits_is_told_the_paths_and_why():
    status = Status(
        mapping="data",
        under_way=3,
        waits=(Problem(path="a b", reason="open"),),
        problems=(Problem(path="", reason="the hook failed"), Problem(path="c", reason="no permission")),
    )
    assert status.why_not_done() == "'a b': open; c: no permission; and 2 more"
