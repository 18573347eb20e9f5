"""What needs a person, from facts as values: folded, the worst first, each with what to type."""

import msgspec
import pytest

from configstore.doctor.facts import EndpointAnswer, Failure, HttpAnswer
from configstore.expiry import Validity
from configstore.model.lease import HeldUp
from configstore.model.path import StorePath
from configstore.model.problem import Problem
from configstore.model.replica import Alike, ExpectedReplica, MappingState, Report
from configstore.overview.facts import OverviewFacts
from configstore.overview.judge import MappingRow, judge
from configstore.store.api import MemberStatus

NOW = 1_800_000_000.0
TIME = "2027-01-15T08:00:00.000+00:00"  # the same
DOWN = Failure("status at http://etcd-2:2379: connection refused", 4)


def status(**fields):
    fields = {"member_id": 1, "leader": 1, "version": "3.6.14", "raft_index": 10} | fields
    return MemberStatus(cluster_id=7, revision=100, db_size=2**20, db_in_use=2**20, quota=2**31, **fields)


def endpoint(found=None, url="http://etcd-1:2379", **web):
    return EndpointAnswer(url=url, http=HttpAnswer(**web), status=found or status(), latency=0.001)


def report(replica="one", mapping="certs", **fields):
    fields = {"state": MappingState.READY, "host": f"host-{replica}", "time": TIME, "version": "1.0.0"} | fields
    return Report(mapping=mapping, replica=replica, session="s", store=StorePath(mapping), **fields)


def problems(reason, *paths, count=None):
    named = tuple(Problem(path=path, reason=reason) for path in paths)
    number = len(paths) if count is None else count
    return {
        "problems": named,
        "problem_count": number,
        "alike": (Alike(reason=reason, count=number),),
        "degraded": True,
    }


def facts(*reports, **fields):
    return OverviewFacts(
        **{"now": NOW, "root": "/configstore", "endpoints": (endpoint(),), "reports": reports} | fields
    )


def words(found):
    return [f"{need.state} {need.check}: {need.found} -> {need.mend}" for need in judge(found).needs]


def test_nothing_is_said_of_what_is_well():
    found = judge(facts(report("one", paths=3), report("two", paths=3)))
    assert found.needs == ()
    assert found.exit_code == 0
    assert found.rows == (
        MappingRow(mapping="certs", store="certs", state="ready", ready=2, expected=2, paths=3, behind=0,
            pending=0, pending_seconds=0.0),
    )  # fmt: skip


def test_one_reason_of_many_paths_and_replicas_is_said_once():
    paths = tuple(f"p{number}" for number in range(50))
    found = facts(*(report(name, **problems("has 2 hard links", *paths, count=3000)) for name in "abcde"))
    (line,) = words(found)
    who = "a@host-a, b@host-b, c@host-c and 2 more"
    assert line == f"warn certs: {who}: certs/p0, certs/p1, certs/p2 and 2997 more: has 2 hard links -> "


def test_many_of_one_kind_hide_no_other():
    many = problems("has 2 hard links", *(f"p{number}" for number in range(50)), count=3000)
    other = (Alike(reason="no space left", count=1),)
    found = facts(report("one", **many | {"alike": many["alike"] + other, "problem_count": 3001}))
    assert any("no space left" in line for line in words(found))


def test_problems_beyond_those_that_are_named_are_counted():
    said = words(facts(report("one", **problems("has 2 hard links", "p") | {"problem_count": 9})))
    assert any("more problems" in line for line in said)


def test_the_worst_comes_first():
    found = facts(report("one", **problems("has 2 hard links", "a")), late=(report("two"),))
    assert [line.partition(" ")[0] for line in words(found)] == ["fail", "warn"]


CASES = {
    "an edit that waits": (
        facts(report(pending=5, pending_seconds=9000.0)),
        "certs: one@host-one: 5 edits on the way for 2 hours, and nothing says why",
        "configstore flush",
    ),
    "an empty store": (facts(empty=True), "nothing lies below /configstore", "is `root` right?"),
    "many that do not answer": (facts(late=(report(),), hasty=True), "no answer", "is etcd slow"),
    "a version of letters": (
        facts(report("a", version="1.0.0rc1"), report("b", version="1.0.0"), report("c", version="x")),
        "a@host-a, c@host-c: older than the others",
        "upgrade",
    ),
    "of 0.1": (
        facts(late=(report("two", version=""),)),
        "two@host-two: no answer; it was ready",
        "replace its image to finish the upgrade",
    ),
    "frozen": (
        facts(late=(report("two", state=MappingState.READY),)),
        "two@host-two: no answer; it was ready",
        "frozen",
    ),
    "halted": (
        facts(
            *(report(each, state=MappingState.HALTED, reason="refused to delete 12 of 14") for each in ("a", "b"))
        ),
        "a@host-a halted, b@host-b halted: refused to delete 12 of 14",
        "",
    ),
    "starting": (facts(report(state=MappingState.STARTING)), "one@host-one starting: first cycle under way", ""),
    "gone": (
        facts(gone=(ExpectedReplica(mapping="certs", replica="two", host="node-2"),)),
        "certs: two@node-2: went without a goodbye",
        "configstore replicas forget two",
    ),
    "gone with all its mappings": (
        facts(gone=tuple(ExpectedReplica(mapping=name, replica="two", host="n") for name in ("certs", "dkim"))),
        "certs, dkim: two@n: went without a goodbye, and has not come back",
        "forget two",
    ),
    "a lease held long": (
        facts(held_up=(HeldUp(name="letsencrypt", found="lease letsencrypt is held for 90 minutes"),)),
        "held for 90 minutes",
        "configstore leases break letsencrypt",
    ),
    "conflicts": (
        facts(conflicts={StorePath("dkim/a"): 2}),
        "2 losing sides of conflicts: dkim/a",
        "resolve PATH",
    ),
    "no report": (facts(unread={b"/configstore/replicas/x": "no JSON"}), "no report: no JSON", "etcdctl del"),
    "an older version": (
        facts(report("a", version="1.9.0"), report("b", version="1.10.0")),
        "a@host-a: older than the others: configstore 1.9.0, not 1.10.0",
        "finish the upgrade",
    ),
    "a clock": (
        facts(report(time="2027-01-15T08:05:00.000+00:00")),
        "one@host-one: the clock is about 5 minutes ahead of this machine's",
        "NTP",
    ),
    "an endpoint": (
        facts(endpoints=(endpoint(), endpoint(DOWN, url="http://etcd-2:2379"))),
        "store: status at http://etcd-2:2379: connection refused",
        "is etcd running there",
    ),
    "no space": (facts(endpoints=(endpoint(status(alarms=("NOSPACE",))),)), "alarm NOSPACE", "alarm disarm"),
    "nearly no space": (
        facts(endpoints=(endpoint(msgspec.structs.replace(status(), db_size=2**31, db_in_use=2**31)),)),
        "the quota is 2048.0 MiB",
        "raise the quota",
    ),
    "a certificate": (
        facts(
            endpoints=(
                endpoint(url="https://etcd-1:2379", certificate=Validity(NOW - 80 * 86400, NOW + 3.5 * 86400)),
            )
        ),
        "days left: 3",
        "renew it",
    ),
    "our own certificate": (
        facts(client_certificate=Validity(0, NOW + 86400)),
        "shown to etcd ends on",
        "renew it",
    ),
    "no right": (facts(cut_off=Failure("range: permission denied", 5)), "it cannot be read: range", "doctor"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_needs_a_person_is_named_with_its_mend(name):
    found, said, mend = CASES[name]
    verdict = judge(found)
    assert verdict.exit_code == 1
    assert any(said in f"{need.check}: {need.found}" and mend in need.mend for need in verdict.needs), words(found)


@pytest.mark.parametrize(
    "found",
    [
        facts(endpoints=(endpoint(DOWN),)),
        facts(cut_off=Failure("range: no leader", 4)),
        facts(endpoints=(endpoint(status(leader=0)),), cut_off=Failure("range: no leader", 4)),
    ],
    ids=["no endpoint", "no answer of the cluster", "no leader"],
)
def test_without_a_store_the_exit_code_is_4(found):
    verdict = judge(found)
    assert verdict.exit_code == 4
    assert all(need.state == "fail" and need.mend for need in verdict.needs)
    assert verdict.needs


@pytest.mark.parametrize("version", ["3.5.1", "3.4.23"])
def test_a_hole_of_etcds_version_is_the_doctors(version):
    assert judge(facts(report(), endpoints=(endpoint(status(version=version)),))).exit_code == 0


def test_reports_that_could_not_be_asked_for_accuse_no_clock():
    assert words(facts(report(time="2020-01-01T00:00:00+00:00"), stale="this user may read only")) == []


def test_what_is_to_be_typed_is_quoted_for_a_shell():
    evil = "x; touch /tmp/x #"
    (need,) = judge(facts(gone=(ExpectedReplica(mapping="certs", replica=evil, host="h"),))).needs
    assert "forget 'x; touch /tmp/x #'`" in need.mend
    assert "break 'a; rm -rf ~'`" in HeldUp(name="a; rm -rf ~", found="").mend


def test_an_empty_store_is_not_to_be_filled_anew_while_a_replica_holds_its_files():
    found = words(facts(report(state=MappingState.HALTED, reason="a wiped etcd?", lost=True, held=3), empty=True))
    assert not any("bootstrap" in line for line in found)


def test_a_frozen_sidecar_is_named_once_for_all_of_its_mappings():
    (line,) = words(facts(late=tuple(report("two", mapping) for mapping in ("certs", "dkim", "overrides"))))
    assert line.startswith("fail certs, dkim, overrides: two@host-two: no answer; it was ready -> ")
