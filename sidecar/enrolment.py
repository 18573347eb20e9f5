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
from configstore.model.replica import Expected, Report, encode
from configstore.store.api import Delete, Kv, ModRevision, Put
from configstore.store.replicas import everyone, live

KEPT = 7 * 86400
"""Seconds for which a replica that went without a goodbye is known."""

RENEW = 3600.0
"""Seconds between two renewals."""


class Enrolment:
    """The keys of this process. error: why they are not all there, None when they are."""

    def __init__(self, kv: Kv, keys: Keys, directories: Map[str, str]) -> None:
        """directories: the local one of each mapping."""
        self.error: ConfigstoreError | None = None
        self._kv = kv
        self._keys = keys
        self._directories = directories
        self._lease = 0
        self._renewed = 0.0
        self._mine: tuple[Expected, ...] = ()

    def keep(self, reports: Iterable[Report], now: float) -> None:
        """Enrol, or renew when it is due; what fails is `error`. now: seconds on a clock that never goes back."""
        if self._lease and self.error is None and now - self._renewed < RENEW:
            return
        try:
            self._renew(reports)
        except ConfigstoreError as error:
            self.error = error
        else:
            self.error, self._renewed = None, now

    def _renew(self, reports: Iterable[Report]) -> None:
        try:
            if self._lease:
                self._kv.lease_keepalive(self._lease)
        except LeaseGoneError:
            self._lease = 0
        if not self._lease or self.error is not None:
            self._enrol(reports)
        self._take_places()

    def _enrol(self, reports: Iterable[Report]) -> None:
        self._lease = self._lease or self._kv.lease_grant(KEPT)
        self._mine = self._mine or tuple(
            Expected(
                mapping=each.mapping,
                replica=each.replica,
                host=each.host,
                directory=self._directories.get(each.mapping, ""),
                time=each.time,
            )
            for each in reports
        )
        for each in self._mine:
            key = self._keys.expected(each.mapping, each.replica)
            found = self._kv.range(key, keys_only=True).items
            revision = found[0].mod_revision if found else 0
            self._kv.txn((ModRevision(key, revision),), (Put(key, encode(each), self._lease),))

    def leave(self) -> None:
        """Say goodbye. Raises StoreError."""
        if self._lease:
            self._kv.lease_revoke(self._lease)
            self._take_places()

    def _take_places(self) -> None:
        """Remove those in whose places we are. Raises StoreError."""
        before = {
            key: revision
            for mine in self._mine
            for key, (each, revision) in everyone(self._kv, self._keys, mine.mapping).expected.items()
            if mine.replaces(each)
        }
        if not before:
            return
        reports = (each for each, _ in live(self._kv, self._keys).values())
        alive = {self._keys.expected(each.mapping, each.replica) for each in reports}
        for key in before.keys() - alive:
            self._kv.txn((ModRevision(key, before[key]),), (Delete(key),))
