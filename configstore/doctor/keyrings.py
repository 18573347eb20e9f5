"""Judges keyrings: the one that is set, whether it fits the mappings, and which replica lacks a key.

Pure; called by `judge`, and by `overview.judge` for the replicas.
"""

from collections.abc import Iterable, Iterator, Sequence

from configstore.doctor.facts import Facts, KeyringFacts, Records
from configstore.doctor.finding import Finding, fail, ok, some, warn
from configstore.model.grouping import grouped
from configstore.model.path import printable, shell_word
from configstore.model.replica import Report
from configstore.model.seal import Policy

CHECK = "keyring"

GIVEN = "/run/secrets/"
"""Where Swarm mounts a secret; every user of that one container may read it."""


def keyring(facts: Facts) -> Iterator[Finding]:
    """Judge the keyring that is set, and which records it cannot open."""
    ring = facts.keyring
    if ring is None:
        return
    if ring.failure:
        yield fail(CHECK, ring.failure, "bring the keyring that `configstore seal keygen` made", 2)
        return
    yield from _file(ring)
    yield from _mappings(ring)
    if isinstance(facts.records, Records):
        yield from _store(ring, facts.records)


def _file(ring: KeyringFacts) -> Iterator[Finding]:
    path = printable(ring.path)
    if ring.master and ring.mappings:
        mend = "give a sidecar the keyring of its own subtrees, which `configstore seal keygen` makes"
        yield warn(CHECK, f"{path} is a master, which opens the whole store", mend)
    if ring.mode & 0o022:
        yield warn(CHECK, f"{path} may be changed by others than its owner (mode {ring.mode:04o})", _chmod(path))
    elif ring.mode & 0o004 and not ring.path.startswith(GIVEN):
        found = f"{path} may be read by every user of this host or container (mode {ring.mode:04o})"
        mend = f"{_chmod(path)}; where it is mounted into a container of its own, that is the only reader"
        yield warn(CHECK, found, mend)
    else:
        kind = "the master" if ring.master else f"{len(ring.keys)} keys"
        yield ok(CHECK, f"{path}: {kind}, mode {ring.mode:04o}")


def _chmod(path: str) -> str:
    return f"`chmod 0600 {shell_word(path)}`, or 0440 for a group"


def _mappings(ring: KeyringFacts) -> Iterator[Finding]:
    """Judge whether each mapping can seal with the keyring."""
    for each in ring.mappings:
        where = printable(each.store or "/")
        if each.policy is Policy.OFF:
            found = f"{each.name}: is written plain (seal = off), though there is a keyring"
            yield warn(CHECK, found, "set seal to accept, `configstore seal rotate`, then to required")
        elif not each.fits:
            mend = f"`configstore seal keygen --out DIR --subtree {shell_word(where)}` makes one that has"
            yield fail(CHECK, f"{each.name}: the keyring has no key of {where}", mend, 5)
        elif each.policy is Policy.ACCEPT:
            found = f"{each.name}: plain records are believed (seal = accept), as a hostile store may make them"
            yield warn(CHECK, found, "set seal to required once `configstore seal status` shows nothing plain")
        else:
            yield ok(CHECK, f"{each.name}: is sealed with a key of {where}")


def _store(ring: KeyringFacts, records: Records) -> Iterator[Finding]:
    if records.unopened:
        named = some(tuple(f"{key} ({count})" for key, count in sorted(records.unopened.items())))
        found = f"records of which the keyring has no key: {named}"
        mine = bool(ring.mappings) and not ring.master
        mend = "`configstore seal status` with the master says whose they are"
        yield ok(CHECK, f"{found}: other services' subtrees") if mine else warn(CHECK, found, mend)
    yield from lacking(records.reports)
    masters = tuple(dict.fromkeys(each.name for each in records.reports if each.master is True))
    if masters and not ring.mappings:
        mend = "give it the keyring of its own subtrees, which `configstore seal keygen` makes"
        yield warn(CHECK, f"a master lies in {some(masters)}", mend)


def lacking(reports: Iterable[Report]) -> Iterator[Finding]:
    """Yield replicas without a key with which another replica of their subtree seals: its records stay closed."""
    for store, whose in grouped(reports, lambda each: each.store).items():
        sealing = dict.fromkeys(key for each in whose for key in _keys(each)[:1])
        for key in sealing:
            without = [each for each in whose if key not in _keys(each)]
            if without:
                writers = [each for each in whose if _keys(each)[:1] == (key,)]
                yield _lack(key, printable(store or "/"), without, writers)


def _lack(key: str, where: str, without: Sequence[Report], writers: Sequence[Report]) -> Finding:
    who, whom = (some([*dict.fromkeys(report.name for report in each)]) for each in (without, writers))
    found = f"{who}: lacks the key {printable(key)} of {where}, with which {whom} seals, so cannot read that"
    made = f"`configstore seal keygen --out DIR --subtree {shell_word(where)}` makes it"
    about = ", ".join(dict.fromkeys(each.mapping for each in without))
    return warn(about, found, f"give it the keyring of {where}; {made}")


def _keys(report: Report) -> tuple[str, ...]:
    return report.keys or ()
