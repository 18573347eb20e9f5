"""Has the store know for a week that this replica is to be there, so that its going without a goodbye is seen.

A key for each mapping, under an etcd lease of its own: a sidecar that is stopped takes them with it, one that is
killed leaves them (`configstore replicas forget`). A replica's id is new at each start unless it is set, so one
that is started again takes the place of those that mirrored the same directory of the same host before. Called by
`presence`.
"""

from collections.abc import Iterable
from collections.abc import Mapping as Map

from configstore.errors import ConfigstoreError, LeaseGoneError
from configstore.model.keys import Keys
from configstore.model.replica import ExpectedReplica, Report, encode, made_of
from configstore.store.api import Delete, Kv, ModRevision, Put
from configstore.store.replicas import expected

KEPT = 7 * 86400
"""Seconds for which a replica that went without a goodbye is known."""

RENEW = 3600.0
"""Seconds between two renewals."""

RETRY = 20.0
"""Seconds between two tries while it cannot be written."""


class Enrolment:
    """The keys of this process. error: why they are not all there, None when they are."""

    def __init__(self, kv: Kv, keys: Keys, directories: Map[str, str]) -> None:
        """directories: the local one of each mapping."""
        self.error: ConfigstoreError | None = None
        self._kv = kv
        self._keys = keys
        self._directories = directories
        self._lease = 0
        self._due = 0.0
        self._at: dict[str, int] = {}  # by mapping: since which revision we are known
        self._before: dict[bytes, tuple[bytes, int]] = {}  # who was in our places before us, and may live

    def again(self) -> None:
        """Enrol anew with the next `keep`: the store lost what it held, or others may have forgotten us."""
        self._lease, self._due = 0, 0.0

    def keep(self, reports: Iterable[Report], now: float) -> None:
        """Enrol, or renew when it is due; what fails is `error`. now: seconds on a clock that never goes back.

        reports: what was reported; without any it is not known yet who we are.
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
                self._before |= self._earlier(mapping, us, directory, at)
                self._at[mapping] = at
        # The last report of a run that died just now stands for a minute: by its key it is known who replaced it.
        self._take_places(also_living=False)

    def leave(self) -> None:
        """Say goodbye, also for those in whose places we are. Raises StoreError."""
        if self._lease:
            self._take_places(also_living=True)
            self._kv.lease_revoke(self._lease)

    def _earlier(self, mapping: str, us: Report, directory: str, at: int) -> dict[bytes, tuple[bytes, int]]:
        """Return who was in our place of a mapping before us, by key: the key of the report, and the revision.

        Where our id was made from the host's name, so was theirs, and only those of this host are read: else each
        replica that starts would read all there are.
        """
        known = expected(self._kv, self._keys, mapping, beginning=made_of(us.replica, us.host))
        return {
            key: (self._keys.replica(mapping, each.replica), made)
            for key, (each, made) in known.items()
            if each.place == (mapping, us.host, directory) and made < at
        }

    def _take_places(self, *, also_living: bool) -> None:
        """Remove those who were in our places before us. Raises StoreError."""
        for key, (report, at) in list(self._before.items()):
            if also_living or not self._kv.range(report, keys_only=True).items:
                self._kv.txn((ModRevision(key, at),), (Delete(key),))
                del self._before[key]
