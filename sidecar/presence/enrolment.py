"""Writes into the store that this replica is expected, so that its loss is noticed. Called by `presence`.

There is a key for each mapping, under an etcd lease of a week. A sidecar that is stopped removes its keys (it says
goodbye), one that is killed leaves them until `configstore replicas forget`. A replica's id is new at each start
unless it is set, so a sidecar that is started again removes the keys of its predecessors: those that mirrored the
same directory of the same host.
"""

from collections.abc import Iterable
from collections.abc import Mapping as Map

from configstore.errors import ConfigstoreError, LeaseGoneError
from configstore.model.replica import ExpectedReplica, Report, encode, made_of
from configstore.store.api import Delete, ModRevision, Put
from configstore.store.replicas import expected
from configstore.store.store import Store

KEPT = 7 * 86400
"""Seconds for which a replica that said no goodbye is expected."""

RENEW = 3600.0
"""Seconds between two renewals."""

RETRY = 20.0
"""Seconds between two attempts while the keys cannot be written."""


class Enrolment:
    """The keys of this process. error: why they are not all written, None when they are."""

    def __init__(self, store: Store, directories: Map[str, str]) -> None:
        """directories: the local directory of each mapping."""
        self.error: ConfigstoreError | None = None
        self._store = store
        self._kv = store.kv
        self._keys = store.keys
        self._directories = directories
        self._lease = 0
        self._due = 0.0
        self._at: dict[str, int] = {}  # by mapping: the revision of our key
        self._predecessors: dict[bytes, tuple[bytes, int]] = {}  # by key: the key of its report, its revision

    def again(self) -> None:
        """Have the next `keep` write all keys: the store may have lost them, or a person may have removed them."""
        self._lease, self._due = 0, 0.0

    def keep(self, reports: Iterable[Report], now: float) -> None:
        """Write the keys, or renew them when that is due; a failure is kept in `error`.

        reports: those written to the store; without one the replica's id is not known yet. now: seconds on a clock
        that never goes back.
        """
        us = next(iter(reports), None)
        if us is None or (now < self._due):
            return
        try:
            self._renew(us)
        except ConfigstoreError as error:
            self.error, self._due = error, now + RETRY
        else:
            self.error, self._due = None, now + RENEW

    def _renew(self, us: Report) -> None:
        try:
            if self._lease:
                self._kv.lease_keepalive(self._lease)
        except LeaseGoneError:
            self._lease = 0
        self._lease = self._lease or self._kv.lease_grant(KEPT)
        for mapping, directory in self._directories.items():
            key = self._keys.expected(mapping, us.replica)
            found = self._kv.range(key).items
            at = found[0].mod_revision if found else 0
            if not found or found[0].lease != self._lease:
                mine = ExpectedReplica(
                    mapping=mapping, replica=us.replica, host=us.host, directory=directory, time=us.time
                )
                result = self._kv.txn((ModRevision(key, at),), (Put(key, encode(mine), self._lease),))
                at = result.revision if result.succeeded else 0
            if self._at.get(mapping) != at:
                self._predecessors |= self._earlier(mapping, us, directory, at)
                self._at[mapping] = at
        # The report of a sidecar that died just now stays for a minute. Until it is gone its key stays too: by the
        # key a reader sees that the silent replica was replaced.
        self._take_over(also_living=False)

    def leave(self) -> None:
        """Say goodbye, for this replica and its predecessors. Raises StoreError."""
        if self._lease:
            self._take_over(also_living=True)
            self._kv.lease_revoke(self._lease)

    def _earlier(self, mapping: str, us: Report, directory: str, at: int) -> dict[bytes, tuple[bytes, int]]:
        """Return a mapping's predecessors by key: the key of the report, and the revision.

        Where this replica's id was made from the host's name, so were theirs, and only the keys of this host are
        read; else each replica that starts would read those of all.
        """
        known = expected(self._store, mapping, beginning=made_of(us.replica, us.host))
        return {
            key: (self._keys.replica(mapping, each.replica), made)
            for key, (each, made) in known.items()
            if each.place == (mapping, us.host, directory) and made < at
        }

    def _take_over(self, *, also_living: bool) -> None:
        """Remove the keys of predecessors, with `also_living` of those that still report. Raises StoreError."""
        for key, (report, at) in list(self._predecessors.items()):
            if also_living or not self._kv.range(report, keys_only=True).items:
                self._kv.txn((ModRevision(key, at),), (Delete(key),))
                del self._predecessors[key]
