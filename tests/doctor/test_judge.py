"""What facts mean: every row that the doctor can give, without an etcd."""

import msgspec
import pytest

from configstore.doctor.facts import (
    AccessControl,
    DirectoryFacts,
    EndpointAnswer,
    Facts,
    Failure,
    FreeSpace,
    HttpAnswer,
    InotifyLimits,
    MissingRight,
    Records,
    Refusal,
    RightsTrial,
    ServiceTrial,
)
from configstore.doctor.finding import FindingState, exit_code
from configstore.doctor.holes import ADVISED, holes_of, parse
from configstore.doctor.judge import judge
from configstore.expiry import Validity
from configstore.model.lease import HeldUp
from configstore.store.api import MemberStatus

DAY = 86400.0
NOW = 1_800_000_000.0  # in January 2027
MIB = 2**20
DENIED = Failure("PERMISSION_DENIED etcdserver: permission denied", 5)
UNREACHABLE = Failure("UNAVAILABLE connection refused", 4)
WEB = HttpAnswer(certificate=Validity(NOW - 65 * DAY, NOW + 300 * DAY), clock_ahead=0.4)
STATUS = MemberStatus(
    cluster_id=1,
    member_id=1,
    version=ADVISED,
    revision=500,
    db_size=20 * MIB,
    db_in_use=10 * MIB,
    quota=2048 * MIB,
    leader=1,
    raft_index=900,
)
ONE = EndpointAnswer(url="https://etcd-1:2379", http=WEB, status=STATUS, latency=0.002)
TWO = EndpointAnswer(
    url="https://etcd-2:2379", http=WEB, status=msgspec.structs.replace(STATUS, member_id=2), latency=0.002
)
WELL = Facts(
    now=NOW,
    root="/configstore",
    endpoints=(ONE, TWO),
    user="mail",
    client_certificate=True,
    client_validity=Validity(NOW - 65 * DAY, NOW + 300 * DAY),
    access=AccessControl.ON,
    trial=RightsTrial(allowed=("read", "grant a lease", "write", "watch", "delete"), took=0.003),
    compacted=400,
    records=Records(subtrees=("certs", "dkim"), count=12, live=4),
    directories=(DirectoryFacts(path="/dkim"),),
)


def but(base=WELL, **changes):
    return msgspec.structs.replace(base, **changes)


def first(**changes):
    """Return facts whose first endpoint differs."""
    return but(endpoints=(but(ONE, **changes), TWO))


def status(**changes):
    return first(status=but(STATUS, **changes))


def web(**changes):
    return first(http=but(WEB, **changes))


def only(**changes):
    """Return facts of one endpoint that does not answer."""
    nothing = {"access": None, "trial": None, "compacted": None, "records": None}
    return but(endpoints=(but(ONE, **changes),), **nothing)


def test_a_well_store_gives_one_row_a_check_and_exit_code_0():
    findings = judge(WELL)
    assert [each.check for each in findings] == [
        *("endpoint", "endpoint", "tls", "tls", "client certificate", "credentials", "clock", "members"),
        *("version", "alarms", "space", "compaction", "rights", "store", "replicas", "directory"),
    ]
    assert {each.state for each in findings} == {FindingState.OK}
    assert exit_code(findings) == 0


def room(**changes):
    """Return facts of a directory on a tmpfs of 64 MiB."""
    return but(
        directories=(DirectoryFacts(path="/d", room=but(FreeSpace(free=32 * MIB, size=64 * MIB), **changes)),)
    )


PLAIN = but(
    endpoints=(but(ONE, url="http://10.0.0.1:2379"),),
    client_certificate=False,
    user=None,
    access=AccessControl.OPEN,
)
GONE = but(ONE, status=UNREACHABLE)
STRANGE = {"status": UNREACHABLE, "http": HttpAnswer(refusal=Refusal.AUTHORITY, detail="unable to get issuer")}

LACK = MissingRight("certs", "read files/certs", "to read its records")
PART = ServiceTrial(service="front", options="--preset mailu/front", mappings=("certs", "acme"))

WARNINGS = {
    "a service that may act as a person": (
        but(service=but(PART, beyond=("write requests/*",))),
        "rights",
        "service front may write requests/*: that is a person's",
        "configstore access apply --preset mailu/front",
    ),
    "a slow endpoint": (first(latency=0.8), "endpoint", "800 ms", "load"),
    "one endpoint of two is away": (but(endpoints=(GONE, TWO)), "endpoint", "refused", "other endpoints"),
    "one endpoint of two has a strange certificate": (first(**STRANGE), "endpoint", "without TLS", "tls below"),
    "its certificate is a warning, too": (first(**STRANGE), "tls", "not trusted", "cacert"),
    "plain http over a network": (PLAIN, "tls", "can be read on the way", "https"),
    "a certificate soon to expire": (
        web(certificate=Validity(0, NOW + 29.5 * DAY)),
        "tls",
        "days left: 29",
        "renew",
    ),
    "a certificate without a date": (web(certificate=None), "tls", "could not be seen", ""),
    "a client certificate soon to expire": (
        but(client_validity=Validity(0, NOW + DAY)),
        "client certificate",
        "2027-01-16 (days left: 1)",
        "renew",
    ),
    "a user where access control is off": (but(access=AccessControl.OFF), "credentials", "is off", "auth enable"),
    "nothing keeps anybody out": (PLAIN, "credentials", "whoever reaches", "auth enable"),
    "etcd's clock ahead": (web(clock_ahead=70.0), "clock", "70 s ahead of this machine", "NTP"),
    "etcd's clock behind": (web(clock_ahead=-6.0), "clock", "etcd-1:2379 is 6 s behind this", "NTP"),
    "no clock": (but(endpoints=(but(ONE, http=HttpAnswer(silent="timed out")),)), "clock", "(timed out)", ""),
    "a member far behind": (status(raft_index=9000), "members", "2 is more than 5000 entries", "disk"),
    "a learner": (status(learner=True), "members", "learner", "promote"),
    "two leaders": (status(leader=2), "members", "different leaders", "look again"),
    "an upgrade half done": (status(version="3.6.15"), "version", "3.6.14, 3.6.15", "finish"),
    "a version with holes": (status(version="3.5.1"), "version", "3.5.1: a crash can corrupt", ADVISED),
    "a version that is none": (status(version="weird"), "version", "weird", ""),
    "a nearly full database": (status(db_size=1900 * MIB), "space", "1900.0 MiB", "defrag"),
    "one that is in use": (status(db_size=1900 * MIB, db_in_use=1800 * MIB), "space", "", "raise the quota"),
    "an unknown quota": (status(db_size=21 * MIB, quota=None), "space", "could not be seen", "/metrics"),
    "never compacted": (but(status(revision=10_000), compacted=0), "compaction", "never", "auto-compaction"),
    "compacted long ago": (status(revision=200_000), "compaction", "199600 revisions ago", "auto-compaction"),
    "compaction unseen": (but(compacted=DENIED), "compaction", "could not be seen: PERM", ""),
    "a slow write": (but(trial=RightsTrial(allowed=("write",), took=0.7)), "rights", "700 ms", "disks"),
    "what was not tried": (
        but(trial=RightsTrial(refused={"write": DENIED}, untried=("watch", "delete"))),
        "rights",
        "watch and delete: not tried",
        "",
    ),
    "a key that is left": (but(trial=RightsTrial(allowed=("write",), left=True)), "rights", "within a minute", ""),
    "an empty store": (but(records=Records()), "store", "nothing lies below /configstore", "restore"),
    "an unwell replica": (but(records=Records(count=1, live=1, unwell=("dkim: a@b",))), "replicas", "a@b", "why"),
    "a lease held for long": (
        but(records=Records(count=1, held_up=(HeldUp(name="x", found="lease x is held for 90 minutes"),))),
        "leases",
        "held for 90 minutes",
        "look at what it does",
    ),
    "root without leases": (
        but(directories=(DirectoryFacts(path="/d", leases=False),)),
        "directory",
        "who is writing",
        "add LEASE",
    ),
    "a sticky directory": (
        but(directories=(DirectoryFacts(path="/d", sticky=True),)),
        "directory",
        "/d is sticky",
        "application's user",
    ),
    "little room": (room(free=5 * MIB), "room", "5.0 MiB of 64.0 MiB are free", "size="),
    "few watches": (
        but(
            directories=(DirectoryFacts(path="/d", folders=3000),),
            inotify=InotifyLimits(instances=128, watches=5000),
        ),
        "inotify",
        "3000 folders",
        "max_user_watches=65536",
    ),
    "few instances": (
        but(inotify=InotifyLimits(instances=16, watches=65536)),
        "inotify",
        "16 inst",
        "instances=512",
    ),
    "no watch at all": (
        but(directories=(DirectoryFacts(path="/d", watched="fs.inotify.max_user_watches is used up"),)),
        "inotify",
        "/d cannot be watched, only polled: fs.inotify.max_user_watches is used up",
        "sysctl",
    ),
    "what nobody was asked": (only(status=UNREACHABLE, http=HttpAnswer()), "etcd", "not asked, no endpoint", ""),
    "what was cut off": (but(cut_off=UNREACHABLE), "etcd", "does not answer", ""),
    "what needs a login": (but(access=DENIED), "etcd", "without a login", ""),
}

FAILURES = {
    "a right that a mapping lacks": (
        but(service=but(PART, missing=(LACK,)), records=None),
        "rights",
        "mapping certs lacks the right to read files/certs to read its records",
        "configstore access apply --preset mailu/front",
        5,
    ),
    "a right that every mapping lacks": (
        but(service=but(PART, missing=(but(LACK, mapping=""),)), records=None),
        "rights",
        "every mapping lacks the right",
        "operator's certificate",
        5,
    ),
    "rights that could not be tried": (
        but(service=Failure("no space", 5), records=None),
        "rights",
        "of the mappings: no space",
        "see above",
        5,
    ),
    "nobody answers": (only(status=UNREACHABLE, http=HttpAnswer()), "endpoint", "refused", "running", 4),
    "an endpoint refuses": (only(status=DENIED, http=HttpAnswer()), "endpoint", "PERMISSION_DENIED", "", 5),
    "a strange certificate": (only(**STRANGE), "tls", "not trusted here (unable to get issuer)", "cacert", 2),
    "an expired client certificate": (
        but(client_validity=Validity(0, NOW - DAY)),
        "client certificate",
        "expired on 2027-01-14",
        "renew",
        2,
    ),
    "a refused user": (but(access=DENIED), "credentials", "PERMISSION_DENIED", "password_file", 5),
    "two clusters": (status(cluster_id=7), "members", "different clusters", "one cluster", 1),
    "no leader": (status(leader=0), "members", "without a leader", "more than half", 4),
    "no quorum": (but(cut_off=UNREACHABLE), "members", "cluster does not answer", "more than half", 4),
    "no space": (status(alarms=("NOSPACE",)), "alarms", "NOSPACE", "alarm disarm", 5),
    "corruption": (status(alarms=("CORRUPT",)), "alarms", "different data", "hashkv", 5),
    "an unknown alarm": (status(alarms=("NEW",)), "alarms", "alarm NEW", "alarm list", 5),
    "a missing right": (
        but(trial=RightsTrial(refused={"write": DENIED})),
        "rights",
        "write: PERM",
        "grant-perm",
        5,
    ),
    "records that may not be read": (but(records=DENIED), "store", "cannot be listed", "grant-perm", 5),
    "unreadable records": (but(records=Records(count=1, unreadable=("a\n",))), "store", "a\\n", "ls -R /", 1),
    "no directory": (
        but(directories=(DirectoryFacts(path="/d", failure="gone"),)),
        "directory",
        "gone",
        "mount",
        1,
    ),
    "no room": (room(free=4096), "room", "0.0 MiB of 64.0 MiB", "larger", 1),
    "no inode": (room(inodes=1000), "room", "none of its 1000 inodes", "larger", 1),
    "no room for the state": (
        but(state=DirectoryFacts(path="/state", room=FreeSpace(free=0, size=MIB))),
        "room",
        "/state: 0.0",
        "larger",
        1,
    ),
    "a directory of others": (
        but(directories=(DirectoryFacts(path="/d", writable=False),)),
        "directory",
        "not writable",
        "user",
        1,
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_what_is_to_be_done_is_a_warning(name):
    facts, check, found, mend = WARNINGS[name]
    rows = [each for each in judge(facts) if each.check == check and each.state is FindingState.WARN]
    assert any(found in each.found and mend in each.mend for each in rows), judge(facts)
    assert all(each.mend for each in rows) or not mend


@pytest.mark.parametrize("name", FAILURES)
def test_what_does_not_work_is_a_failure_with_its_exit_code(name):
    facts, check, found, mend, code = FAILURES[name]
    rows = [each for each in judge(facts) if each.check == check and each.state is FindingState.FAIL]
    assert any(found in each.found and mend in each.mend for each in rows), judge(facts)
    assert exit_code(judge(facts)) == code


WELL_AS_WELL = {
    "a service with all rights": (but(service=PART), ("all that its mappings need (certs, acme)",)),
    "loopback without anything": (
        but(PLAIN, endpoints=(but(ONE, url="http://127.0.0.1:2379"),)),
        ("none, on this host's loopback", "no user is needed, on this host's loopback"),
    ),
    "localhost": (but(PLAIN, endpoints=(but(ONE, url="http://localhost:2379"),)), ("loopback",)),
    "a client certificate instead of a user": (
        but(user=None, access=AccessControl.OPEN),
        ("no user is needed beside the client certificate",),
    ),
    "a client certificate that names the user": (but(user=None), ("the client certificate says who we are",)),
    "a young etcd": (but(compacted=0), ("too young to tell",)),
    "no quota at all": (status(quota=0, db_size=3 * MIB), ("",)),
    "a quota seen in the metrics": (
        first(status=but(STATUS, quota=None, db_size=21 * MIB), http=but(WEB, quota=30 * MIB)),
        ("the quota is 30.0 MiB",),
    ),
    "one member": (but(endpoints=(ONE,)), ("one member answers",)),
    "nothing mirrored yet": (but(records=Records(count=1, subtrees=("dkim",))), ("none is live",)),
    "a sticky directory of one's own": (
        but(directories=(DirectoryFacts(path="/d", sticky=True, exempt=True),)),
        ("/d can be mirrored",),
    ),
}


@pytest.mark.parametrize("name", WELL_AS_WELL)
def test_what_needs_nothing_is_ok(name):
    facts, said = WELL_AS_WELL[name]
    findings = judge(facts)
    assert {each.state for each in findings} == {FindingState.OK}
    assert all(any(words in each.found for each in findings) for words in said)


def test_the_worst_failure_gives_the_exit_code():
    facts = but(
        trial=RightsTrial(refused={"write": DENIED}), client_validity=Validity(0, NOW - DAY), cut_off=UNREACHABLE
    )
    assert exit_code(judge(facts)) == 4
    assert exit_code(judge(but(facts, cut_off=None))) == 5
    assert exit_code(judge(but(facts, cut_off=None, trial=WELL.trial))) == 2


def test_a_mended_version_has_no_holes_and_no_other_has_none():
    assert not holes_of(parse(ADVISED))
    assert not holes_of((3, 7, 1))
    assert all(map(holes_of, [(3, 3, 27), (3, 4, 44), (3, 5, 1), (3, 5, 33), (3, 6, 13), (3, 7, 0)]))
    assert any("leases that are alive" in each for each in holes_of((3, 5, 16)))
    assert "corrupt" in holes_of((3, 5, 2))[0]
    assert "corrupt" not in holes_of((3, 5, 3))[0]
    assert parse("3.6.0-rc.1") == (3, 6, 0)
    assert parse("not decided") is None
