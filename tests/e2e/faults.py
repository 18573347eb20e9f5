"""What can go wrong, and what `configstore status` says of it: the cause in its words, and what to type.

Each is made for real by a test that looks for its words; docs/troubleshooting.md has a row for each, by these.
"""

from dataclasses import dataclass

SOON = 40.0
"""Seconds within which each is named on a machine four times slower; the contract is 10."""


@dataclass(frozen=True)
class Fault:
    """The words by which the page names it, and by which a person knows the mend."""

    cause: str
    mend: str


FAULTS = {
    # the store
    "no etcd": Fault("connection refused", "is etcd running there?"),
    "an etcd that hangs": Fault("does not answer", "is etcd running there?"),
    "a member is down": Fault("endpoints answer", "the other endpoints are used meanwhile"),
    "no quorum": Fault("without a leader nothing can be written or read", "start the members that are missing"),
    "no space in etcd": Fault("alarm NOSPACE", "etcdctl alarm disarm"),
    "little space in etcd": Fault("the quota is", "see compaction, too"),
    "another authority": Fault("the certificate is signed by an authority that is not trusted here", "set cacert"),
    "a certificate about to end": Fault("days left", "renew it"),
    "a sidecar's certificate about to end": Fault("(cert) ends in", "configstore access apply"),
    "a person without rights": Fault("it cannot be read", "configstore doctor"),
    "a sidecar without rights": Fault("PERMISSION_DENIED", "configstore access apply"),
    "a mapping without a right": Fault("lacks the right to", "configstore access apply"),
    "a right that is a person's": Fault("that is a person's, such as ending a halt", "configstore access apply"),
    "a wiped etcd": Fault("still holds", "configstore resume data"),
    "a restored etcd": Fault("restored snapshot?", "configstore resume data --take"),
    # what lies in it
    "no subtree": Fault("the store has no subtree", "configstore mkdir rootless"),
    "a deleted subtree": Fault("was deleted in the store", "configstore mkdir deleted"),
    "a file in a subtree's place": Fault(
        "a file or a link lies in the store where the subtree", "configstore rm taken"
    ),
    "a vanished record": Fault(
        "its record vanished from the store without a tombstone", "configstore resolve PATH"
    ),
    "a record of a later version": Fault("header version", "upgrade it"),
    "an unreadable record": Fault("not a record", "configstore ls -R vanished"),
    "an unreadable report": Fault("no report", "etcdctl del"),
    "a conflict": Fault("losing side", "configstore resolve PATH"),
    "a lease held long": Fault("longer than is usual", "configstore leases break slow"),
    "a lease that nothing ends": Fault("a key that no etcd lease ends", "configstore leases break stuck"),
    # keys
    "a key that is missing": Fault("it is sealed with the key", "bring the keyring that has it"),
    "a plain record": Fault("it is plain, where only sealed records are believed", "configstore seal rotate"),
    "a record that was changed or moved": Fault("it does not open with its key", "configstore restore"),
    "a keyring that is gone": Fault("the one that was read last is used", "bring it back before the next start"),
    "a keyring of other subtrees": Fault("cannot be sealed: the keyring has no key", "configstore seal keygen"),
    "a master in a sidecar": Fault("is a master, which opens the whole store", "configstore seal keygen"),
    "a replica without a key": Fault("lacks the key", "give it the keyring of data"),
    # replicas
    "a frozen sidecar": Fault("no answer; it was", "look at its container and its log"),
    "a killed sidecar": Fault("went without a goodbye", "configstore replicas forget"),
    "two of one id": Fault("has the same replica id", "give each its own CONFIGSTORE_REPLICA"),
    "an older version": Fault("older than the others: configstore", "finish the upgrade"),
    "a wrong clock": Fault("ahead of this machine's", "NTP"),
    "no inotify": Fault("since inotify is not to be had", "fs.inotify.max_user_instances"),
    "too few watches": Fault("not watched", "fs.inotify.max_user_watches"),
    "no capability LEASE": Fault("who is writing to other users' files", "cap_add: [LEASE]"),
    "a directory that cannot be had": Fault("the directory above it does not exist", "mount or make it"),
    "a mass delete": Fault("refused to delete", "configstore resume emptied --take store"),
    "a check that fails": Fault("refused by the check", "the reason of the check"),
    "a hook that fails": Fault("the hook failed and is tried again", "the reason of the hook"),
    # paths
    "an open file": Fault("a program has it open for writing, so it is not sent", "exclude it"),
    "a hard link": Fault("has 2 hard links, perhaps to a file elsewhere", "copy it instead"),
    "a FIFO": Fault("neither file, directory nor symlink", "exclude it"),
    "a link out of the directory": Fault("a symlink with an absolute target", "make it relative"),
    "a name that is no text": Fault("not valid UTF-8", "rename it"),
    "no space here": Fault("no space left", "give the volume a larger size"),
    "a file mounted by itself": Fault("another file system is mounted here", "mount its directory instead"),
    "a member of a set that cannot be placed": Fault("held back", "which was changed together with it"),
    "an edit where only pulls are": Fault("edited here, but this replica may only pull", "stays until the store"),
    "a file made where only pulls are": Fault("made here, and this mapping only pulls", "Exclude it"),
    "an edit in the store where only pushes are": Fault(
        "changed in the store, but this mapping only pushes", "replaces"
    ),
    "an edit without the lease": Fault("changed here without the lease", "when it holds the lease next"),
}


def says(name: str, text: str) -> bool:
    """Tell whether what `status` prints names a fault, with its mend in the same line or below what it mends."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if FAULTS[name].cause in line:
            below = next((mend for mend in lines[number + 1 :] if mend.startswith("      →")), "")
            if FAULTS[name].mend in line + below:
                return True
    return False
