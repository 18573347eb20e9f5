"""Judges this installation: rights, records, replicas, local directories. Pure; called by `judge`."""

from collections.abc import Iterator

from configstore.doctor.facts import DirectoryFacts, Facts, Failure, Records, ServiceTrial
from configstore.doctor.finding import Finding, fail, ok, some, warn
from configstore.doctor.reach import SLOW
from configstore.model.path import printable
from configstore.model.phrases import mib


def rights(facts: Facts) -> Iterator[Finding]:
    """Judge the result of trying each right."""
    trial = facts.trial
    if trial is None:
        return
    for right, failure in trial.refused.items():
        mend = _grant(facts)
        if failure.exit_code != 5 or any(each.alarms for each in facts.statuses):
            mend = "see above"
        yield fail("rights", f"{right}: {failure.reason}", mend, failure.exit_code)
    if trial.refused and trial.untried:
        yield warn("rights", f"{' and '.join(trial.untried)}: not tried without the former")
    if trial.left:
        yield warn("rights", "a key below doctor/ is left; it ends with its lease, within a minute")
    if facts.service is not None:
        yield from _by_mapping(facts.service)
    elif not trial.refused:
        found = f"{', '.join(trial.allowed)}: all allowed; a write takes {trial.took * 1000:.0f} ms"
        mend = "look at the disks' sync times and at the network between members"
        yield warn("rights", found, mend) if trial.took > SLOW else ok("rights", found)


def _by_mapping(trial: ServiceTrial | Failure) -> Iterator[Finding]:
    """Judge the rights of a service by what each of its mappings needs."""
    if isinstance(trial, Failure):
        yield fail("rights", f"of the mappings: {trial.reason}", "see above", trial.exit_code)
        return
    mend = f"a person with the operator's certificate: `configstore access apply {trial.options}`"
    for each in trial.missing:
        whose = f"mapping {each.mapping}" if each.mapping else "every mapping"
        yield fail("rights", f"{whose} lacks the right to {each.what} {each.why}", mend, 5)
    for what in trial.beyond:
        found = f"the service {trial.service} may {what}: that is a person's, such as ending a halt"
        yield warn("rights", found, mend)
    if not trial.missing:
        yield ok("rights", f"service {trial.service}: all that its mappings need ({', '.join(trial.mappings)})")


def _grant(facts: Facts) -> str:
    """Return how a person gets missing rights. A service must not get all of them: it could act as a person."""
    root = printable(facts.root)
    return (
        f"for a person `etcdctl role grant-permission ROLE readwrite {root}/ --prefix`; a service gets less, by"
        " `configstore access apply`: then say whose rights to judge by --preset or --config"
    )


def store(facts: Facts) -> Iterator[Finding]:
    """Judge the records below the root key, and the replicas."""
    records = facts.records
    if records is None:
        return
    if isinstance(records, Failure):
        mend = _grant(facts)
        yield fail("store", f"records cannot be listed: {records.reason}", mend, records.exit_code)
        return
    if records.unreadable:
        mend = "`configstore ls -R /` says why, and how each is mended"
        yield fail("store", f"unreadable records: {some(records.unreadable)}", mend, 1)
    elif not records.count:
        mend = "a fresh one: `configstore import` or `bootstrap`; one that was wiped: restore etcd's snapshot"
        yield warn("store", f"nothing lies below {printable(facts.root)}", mend)
    else:
        sealed = sum(records.unopened.values())
        more = f"; {sealed} of them are sealed, and are not opened here" if sealed and not facts.keyring else ""
        yield ok("store", f"all records are readable ({records.count}), in {some(records.subtrees)}{more}")
    for lease in records.held_up:
        yield warn("leases", lease.found, lease.mend)
    yield from _replicas(records)


def _replicas(records: Records) -> Iterator[Finding]:
    if records.unwell:
        yield warn("replicas", f"not ready: {some(records.unwell)}", "`configstore status` says why")
    else:
        yield ok("replicas", f"{records.live} live and ready" if records.live else "none is live")


def directories(facts: Facts) -> Iterator[Finding]:
    """Judge whether a sidecar of this user could mirror these directories, and their free space."""
    for each in facts.directories:
        yield _directory(each)
        if not each.failure:
            yield from _room(each)
    if facts.state and not facts.state.failure:
        yield from _room(facts.state)
    yield from _watches(facts)


LITTLE, PLENTY = 0.1, 256 << 20
"""A smaller free share is reported, unless so many bytes are free: a file is staged beside the one it replaces."""

LEAST = 1 << 20
"""Free bytes below which the next change is likely to find no room."""

FEW_INSTANCES, FEW_WATCHES = 64, 4096
"""Smaller limits of inotify are reported: all processes of this user share them."""


def _room(each: DirectoryFacts) -> Iterator[Finding]:
    room, path = each.room, printable(each.path)
    if room is None or not room.size:
        return
    found = f"{path}: {mib(room.free)} of {mib(room.size)} are free"
    mend = "make it larger (a tmpfs: its size=), or remove what is not needed"
    if room.free < LEAST:
        yield fail("room", found, mend, 1)
    elif room.inodes and not room.free_inodes:
        yield fail("room", f"{path}: none of its {room.inodes} inodes is free", mend, 1)
    elif room.free < min(LITTLE * room.size, PLENTY):
        yield warn("room", found, mend)
    else:
        yield ok("room", found)


def _watches(facts: Facts) -> Iterator[Finding]:
    """Judge inotify by the trial watch in each directory, and by the kernel's limits."""
    failed = [each for each in facts.directories if each.watched]
    for each in failed:
        found = f"{printable(each.path)} cannot be watched, only polled: {each.watched}"
        yield warn(
            "inotify", found, "raise fs.inotify.max_user_watches or max_user_instances on the host by `sysctl -w`"
        )
    limits = facts.inotify
    if limits is None or failed or not facts.directories:
        return
    folders = sum(each.folders for each in facts.directories)
    found = (
        f"{limits.instances} instances and {limits.watches} watches a user; {folders} folders here need one each"
    )
    if 2 * folders > limits.watches or limits.watches < FEW_WATCHES:
        yield warn(
            "inotify", found, f"`sysctl -w fs.inotify.max_user_watches={max(65536, 8 * folders)}` on the host"
        )
    elif limits.instances < FEW_INSTANCES:
        yield warn("inotify", found, "`sysctl -w fs.inotify.max_user_instances=512` on the host")
    else:
        yield ok("inotify", found)


def _directory(each: DirectoryFacts) -> Finding:
    check, path = "directory", printable(each.path)
    if each.failure:
        return fail(check, f"{path}: {each.failure}", "make it, or mount it, for the user who runs this", 1)
    if not each.writable:
        return fail(check, f"{path} is not writable for this user", "run as the application's user", 1)
    if each.sticky and not each.exempt:
        found = f"{path} is sticky (as 1777): other users' files in it cannot be replaced"
        return warn(check, found, "run as the application's user, with FOWNER, or mirror a subdirectory")
    if not each.leases:
        found = f"{path}: the kernel does not tell root who is writing to other users' files there"
        return warn(check, found, "add LEASE to the container's capabilities (cap_add: [LEASE])")
    return ok(check, f"{path} can be mirrored by this user")
