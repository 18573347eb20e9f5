"""Judges facts: facts in, findings out, pure. Called by `configstore doctor`.

Where one endpoint of several fails, that is a warning, since the store works.
"""

from collections.abc import Callable, Iterator

from configstore.doctor import cluster, installation, keyrings, reach
from configstore.doctor.facts import Facts, Failure
from configstore.doctor.finding import Finding, warn


def judge(facts: Facts) -> list[Finding]:
    """Return all findings, in the order in which a person would look."""
    return [found for check in _CHECKS for found in check(facts)]


def _unseen(facts: Facts) -> Iterator[Finding]:
    """Yield what was not checked, and why."""
    if not facts.statuses:
        yield warn("etcd", "members, version, space, rights and records: not asked, no endpoint answers")
    elif facts.cut_off:
        yield warn("etcd", "what is missing here was not asked: the cluster does not answer")
    elif isinstance(facts.access, Failure):
        yield warn("etcd", "compaction, rights and records: not asked without a login")


_CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    reach.endpoints,
    reach.tls,
    reach.credentials,
    reach.clock,
    cluster.members,
    cluster.version,
    cluster.alarms,
    cluster.space,
    cluster.compaction,
    installation.rights,
    installation.store,
    keyrings.keyring,
    _unseen,
    installation.directories,
)
