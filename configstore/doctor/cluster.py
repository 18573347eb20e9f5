"""Judges etcd itself: members, version, alarms, space, compaction. Pure; for `judge` and `overview.judge`."""

from collections.abc import Iterator

from configstore.doctor.facts import Facts, Failure
from configstore.doctor.finding import Finding, fail, ok, warn
from configstore.doctor.holes import ADVISED, holes_of, parse
from configstore.model.path import printable
from configstore.model.phrases import mib
from configstore.store.api import MemberStatus

BEHIND = 5000
"""Entries of the raft log; a member further behind catches up by a whole snapshot (etcd's default)."""

FULL = 0.8
"""Share of the quota above which a person should act."""

YOUNG = 10_000
"""Revisions below which an etcd that was never compacted is no problem."""

HOARDED = 100_000
"""Revisions since the last compaction above which automatic compaction seems to be off."""


_QUORUM = "start the members that are missing: more than half must run"


def members(facts: Facts) -> Iterator[Finding]:
    """Judge whether the members that answer agree, and whether the cluster has a leader."""
    statuses = facts.statuses
    if not statuses:
        return
    check = "members"
    if len({each.cluster_id for each in statuses}) > 1:
        yield fail(check, "the endpoints lead to different clusters", "name members of one cluster only", 1)
        return
    members = {each.member_id: each for each in statuses}
    leaders = {each.leader for each in statuses}
    newest = max(each.raft_index for each in statuses)
    behind = [each for each in members.values() if newest - each.raft_index > BEHIND]
    if 0 in leaders:
        yield fail(check, "without a leader nothing can be written or read", _QUORUM, 4)
    elif facts.cut_off:
        yield fail(check, f"the cluster does not answer: {facts.cut_off.reason}", _QUORUM, 4)
    elif len(leaders) > 1:
        yield warn(check, "they name different leaders", "look again; if it stays, look at the network between")
    elif behind:
        names = ", ".join(f"{each.member_id:x}" for each in behind)
        mend = "look at that member's disk and network"
        yield warn(check, f"{names} is more than {BEHIND} entries behind", mend)
    elif any(each.learner for each in statuses):
        mend = "name voting members as endpoints, or `etcdctl member promote` it"
        yield warn(check, "an endpoint leads to a learner, which has no vote and refuses most calls", mend)
    else:
        count = len(members)
        one = "one member answers; while it is down, nothing travels"
        yield ok(check, one if count == 1 else f"{count} members of one cluster agree on their leader")


def version(facts: Facts) -> Iterator[Finding]:
    """Judge the members' versions by their known holes."""
    versions = sorted({each.version for each in facts.statuses})
    if len(versions) > 1:
        yield warn("version", f"members run {', '.join(versions)}", "finish the upgrade")
    for version in versions:
        numbers = parse(version)
        if numbers is None:
            yield warn("version", f"{printable(version)} is no version known here")
            continue
        holes = holes_of(numbers)
        for hole in holes:
            yield warn("version", f"etcd {version}: {hole}", f"upgrade to {ADVISED} or later")
        if not holes:
            yield ok("version", f"etcd {version}, without known holes")


_ALARMS = {
    "NOSPACE": (
        "alarm NOSPACE: the space quota is used up, nothing can be written",
        "`etcdctl compact REVISION`, `etcdctl defrag` on each member or a larger quota, `etcdctl alarm disarm`",
    ),
    "CORRUPT": (
        "alarm CORRUPT: members hold different data",
        "`etcdctl endpoint hashkv` shows which; replace that member, then `etcdctl alarm disarm`",
    ),
}


def alarms(facts: Facts) -> Iterator[Finding]:
    """Judge alarms: they stop writes, even with all rights."""
    statuses = facts.statuses
    names = dict.fromkeys(name for each in statuses for name in each.alarms)
    for name in names:
        found, mend = _ALARMS.get(name, (f"alarm {printable(name)}", "`etcdctl alarm list`"))
        yield fail("alarms", found, mend, 5)
    if statuses and not names:
        yield ok("alarms", "none")


def space(facts: Facts) -> Iterator[Finding]:
    """Judge the largest database beside its quota."""
    known = []
    for each in facts.endpoints:
        if isinstance(each.status, MemberStatus):
            quota = each.http.quota if each.status.quota is None else each.status.quota
            known.append((each.status, quota, each.http.silent))
    if not known:
        return
    status, quota, silent = max(known, key=lambda one: one[0].db_size)
    size = f"{mib(status.db_size)}, of which {mib(status.db_in_use)} are in use"
    if quota is None:
        found = f"{size}; the quota could not be seen ({silent})"
        yield warn("space", found, "etcd 3.6 says it itself; earlier ones at /metrics of the endpoint")
    elif quota and status.db_size > FULL * quota:
        mend = "`etcdctl defrag` on each member" if status.db_in_use < FULL * quota else "raise the quota"
        yield warn("space", f"{size}; the quota is {mib(quota)}", f"{mend}; see compaction, too")
    else:
        yield ok("space", f"{size}; {f'the quota is {mib(quota)}' if quota else 'without a quota'}")


def compaction(facts: Facts) -> Iterator[Finding]:
    """Judge whether etcd drops old revisions."""
    check, oldest = "compaction", facts.compacted
    if oldest is None:
        return
    if isinstance(oldest, Failure):
        yield warn(check, f"could not be seen: {oldest.reason}")
        return
    newest = max(each.revision for each in facts.statuses)
    mend = "etcd's --auto-compaction-mode=periodic --auto-compaction-retention=1h; our history does not need more"
    if oldest == 0:
        found = f"never yet, at revision {newest}"
        yield ok(check, f"{found}: too young to tell") if newest < YOUNG else warn(check, found, mend)
    elif newest - oldest > HOARDED:
        yield warn(check, f"{newest - oldest} revisions ago, at {oldest}", mend)
    else:
        yield ok(check, f"up to revision {oldest} of {newest}")
