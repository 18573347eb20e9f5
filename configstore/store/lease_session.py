"""One etcd lease that a thread keeps alive. Used by `leases`.

Two rules say how long it counts as alive:

1. While its owner waits for its turn, etcd decides: the lease may outlive an outage in which nobody could renew
   it, because a new leader of etcd's renews all leases for their whole TTL.
2. From `hold` on, our own clock decides: the lease is ours until TTL seconds after the last renewal was *sent*, on
   a clock that counts suspend. etcd counts from a later moment, so we stop before another contender can start.
"""

import logging
import threading
from collections.abc import Callable

import tenacity

from configstore.errors import LeaseGoneError, StoreClosedError, StoreError, StoreUnavailableError
from configstore.store.api import Kv

log = logging.getLogger(__name__)

RENEWALS = 6
"""Renewals within a lease's TTL."""

RETRY = 0.2
"""Seconds until a call that failed is tried again."""

LONGEST_RETRY = 5.0
"""Seconds between two tries to revoke a lease in the background, at most."""


class Session:
    """One etcd lease.

    ended: why it must not be relied on any more, or None; it never becomes None again. renewals: how many
    succeeded.
    trouble: why the last renewal failed, "" if it did not.
    """

    def __init__(
        self, kv: Kv, name: str, ttl: int, clock: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        """Grant a lease of `ttl` seconds for the queue of `name`, and start to renew it.

        changed: called in the thread when the lease has ended, and when it was renewed after `renew_soon`.
        Raises StoreError.
        """
        self.ended: str | None = None
        self.renewals = 0
        self.trouble = ""
        self._kv = kv
        self._name = name
        self._ttl = ttl
        self._clock = clock
        self._changed = changed
        self._held = False
        self._heard: float | None = None
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._renewed = clock()
        self.etcd_lease = kv.lease_grant(ttl)
        self._deadline = self._renewed + ttl
        self._thread = threading.Thread(target=self._keep, name=f"lease:{name}", daemon=True)
        self._thread.start()

    def left(self) -> float:
        """Return the seconds for which it is certainly alive; 0 or less when it may not be."""
        return 0.0 if self.ended is not None else self._deadline - self._clock()

    def hold(self) -> None:
        """From now on count it as ended as soon as it is not certain that it is alive."""
        self._held = True

    def depend(self) -> None:
        """From now on renew it only when `heard` was called since the last renewal."""
        self._heard = self._clock()

    def heard(self) -> None:
        """Note a sign of life of the client that it depends on."""
        if self._heard is not None:
            self._heard = self._clock()

    def stand_alone(self) -> None:
        """Renew it without any sign of a client again."""
        self._heard = None

    def renew_soon(self) -> None:
        """Renew it now, not when it is due."""
        self._wake.set()

    def end(self, reason: str) -> None:
        """Count it as ended, because a caller learned so from the store; from any thread."""
        if self.ended is None and not self._stopped.is_set():
            self.ended = f"lease {self._name} is lost: {reason}"
            if self._held:
                log.error("a lease is lost", extra={"lease": self._name, "reason": reason})
            self._changed()

    def stop(self, reason: str) -> None:
        """Stop renewing it. etcd ends it after its TTL, unless `revoke` ends it before."""
        self.ended = self.ended or reason
        self._stopped.set()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def revoke(self) -> threading.Thread | None:
        """End it in etcd at once, after `stop`; returns None when that is done. Never raises.

        While the store does not answer, a thread tries again until it is certain, and is returned: without it,
        each change of etcd's leader would renew the lease for its whole TTL.
        """
        if self._revoked():
            return None
        thread = threading.Thread(target=self._revoke, name=f"revoke:{self._name}", daemon=True)
        thread.start()
        return thread

    def _revoked(self) -> bool:
        """Try once to revoke it; returns False if it must be tried again."""
        try:
            self._kv.lease_revoke(self.etcd_lease)
        except LeaseGoneError:
            pass
        except StoreUnavailableError as error:
            log.warning("cannot give a lease back yet", extra={"lease": self._name, "reason": str(error)})
            return isinstance(error, StoreClosedError)
        except StoreError as error:
            log.warning("cannot give a lease back", extra={"lease": self._name, "reason": str(error)})
        return True

    def _revoke(self) -> None:
        tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda done: not done),
            wait=tenacity.wait_random_exponential(multiplier=RETRY, max=LONGEST_RETRY),
        )(self._revoked)
        log.info("a lease was given back at last", extra={"lease": self._name})

    def _keep(self) -> None:
        due = self._ttl / RENEWALS
        while not self._stopped.is_set():
            asked = self._wake.wait(due)
            self._wake.clear()
            if self._stopped.is_set():
                return None
            sent = self._clock()
            try:
                self._renew(sent)
            except LeaseGoneError:
                return self.end("it expired, or somebody ended it")
            except StoreError as error:
                self.trouble, due = str(error), min(RETRY, self._ttl / RENEWALS)
                if asked:
                    self._wake.set()
                    self._stopped.wait(due)
            else:
                due = self._ttl / RENEWALS
                if asked:
                    self._changed()
            if self.ended is not None:
                return None
            if self._held and self._clock() >= self._deadline:
                return self.end(self.trouble or "it was not renewed in time")
        return None

    def _renew(self, sent: float) -> None:
        """Renew it once. Raises StoreError."""
        if self._heard is not None and self._heard < self._renewed:
            raise StoreUnavailableError("its client was silent, as one that is stopped")
        granted = self._kv.lease_keepalive(self.etcd_lease)
        if self._held and sent >= self._deadline:
            self.end("this process stood still for longer than its TTL")
            return
        self._deadline, self._renewed = sent + min(self._ttl, granted), sent
        self.renewals += 1
        self.trouble = ""
