"""Tries at etcd which rights this user has, on a key that only the doctor uses. Called by `gather`."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from configstore.doctor.endpoints import failure
from configstore.doctor.facts import AccessControl, Failure, MissingRight, RightsTrial, ServiceTrial
from configstore.errors import CompactedError, PermissionDeniedError, StoreError, StoreUnavailableError
from configstore.model.grants import Grant, Right, Service, wanted, words
from configstore.model.keys import Keys
from configstore.model.path import printable
from configstore.store.api import CreateRevision, Delete, Kv, Put
from configstore.store.permissions import may

TRIAL_TTL = 60
"""Seconds after which etcd deletes the trial's key, should neither its delete nor the lease's revoke succeed."""

Found = TypeVar("Found")


def or_failure(call: Callable[[], Found]) -> Found | Failure:
    """Return a call's result, or its failure as a value. Raises StoreUnavailableError."""
    try:
        return call()
    except StoreUnavailableError:
        raise
    except StoreError as error:
        return failure(error)


def access_control(kv: Kv, key: bytes, *, user: bool) -> AccessControl:
    """Return whether etcd checks rights. user: a user is set. Raises StoreError."""
    if user:
        return AccessControl.ON if kv.login() else AccessControl.OFF
    try:
        kv.range(key)
    except PermissionDeniedError:  # etcd took the user from the client certificate
        return AccessControl.ON
    return AccessControl.ON if kv.accounts.enabled() else AccessControl.OPEN


def may_do_everything(kv: Kv, keys: Keys) -> bool:
    """Return whether the user may read and write all keys below the root key. Raises StoreUnavailableError."""
    with suppress(StoreError):
        return may(kv, Grant(f"{keys.root}/".encode(), f"{keys.root}0".encode(), Right.READWRITE))
    return False


def try_service(kv: Kv, keys: Keys, service: Service, options: str) -> ServiceTrial:
    """Try all rights that a service needs, and one that no service may have. Raises StoreError."""
    missing = tuple(
        MissingRight(each.mapping, f"{each.grant.right} {words(keys.root, each.grant, printable)}", each.why)
        for each in wanted(keys, service)
        if not may(kv, each.grant)
    )
    start, end = keys.requests()
    beyond = ("write requests/*",) if may(kv, Grant(start, end, Right.WRITE)) else ()
    return ServiceTrial(
        service=service.name,
        options=options,
        mappings=tuple(need.mapping for need in service.needs),
        missing=missing,
        beyond=beyond,
    )


def try_leases(kv: Kv) -> RightsTrial:
    """Try what every user may do: grant, renew and revoke a lease. Raises StoreUnavailableError."""
    lease = or_failure(lambda: kv.lease_grant(TRIAL_TTL))
    if isinstance(lease, Failure):
        return RightsTrial(refused={"grant a lease": lease}, untried=("renew a lease",))
    renewed = or_failure(lambda: kv.lease_keepalive(lease))
    with suppress(StoreError):
        kv.lease_revoke(lease)
    if isinstance(renewed, Failure):
        return RightsTrial(allowed=("grant a lease",), refused={"renew a lease": renewed})
    return RightsTrial(allowed=("grant a lease", "renew a lease"))


def try_rights(kv: Kv, key: bytes) -> RightsTrial:
    """Try every right that an operator's commands need, on a key that is deleted again.

    Raises StoreUnavailableError.
    """
    allowed: list[str] = []
    refused: dict[str, Failure] = {}

    def attempt(right: str, call: Callable[[], Found]) -> Found | None:
        found = or_failure(call)
        if isinstance(found, Failure):
            refused[right] = found
            return None
        allowed.append(right)
        return found

    attempt("read", lambda: kv.range(key))
    lease = attempt("grant a lease", lambda: kv.lease_grant(TRIAL_TTL))
    if lease is None:
        return RightsTrial(
            allowed=tuple(allowed), refused=refused, untried=("renew a lease", "write", "watch", "delete")
        )
    attempt("renew a lease", lambda: kv.lease_keepalive(lease))  # a proxy may grant leases and yet not renew any
    begun, took, left = time.monotonic(), 0.0, False
    try:
        made = attempt("write", lambda: kv.txn((CreateRevision(key, 0),), (Put(key, b"", lease),)))
        if made:
            took, left = time.monotonic() - begun, True
            at = made.revision
            attempt("watch", lambda: _first_event(kv, key, at))
            left = not attempt("delete", lambda: kv.txn((CreateRevision(key, at),), (Delete(key),)))
    finally:
        with suppress(StoreError):
            kv.lease_revoke(lease)
            left = False
    untried = () if made else ("watch", "delete")
    return RightsTrial(allowed=tuple(allowed), refused=refused, untried=untried, took=took, left=left)


def compacted(kv: Kv, key: bytes) -> int:
    """Return the oldest revision that etcd still has, 0 when it was never compacted. Raises StoreError.

    Only a watch names that revision. It is opened only when a read shows that revision 1 is gone: otherwise etcd
    would go through its whole history for it.
    """
    try:
        kv.range(key, revision=1)
    except CompactedError:
        try:
            _first_event(kv, key, 1)
        except CompactedError as error:
            return error.compact_revision
    return 0


def _first_event(kv: Kv, key: bytes, revision: int, patience: float = 2.0) -> bool:
    """Watch a key from a revision on until its first event, and return True. Raises StoreError."""
    watch = kv.watch(key, key + b"\0", start_revision=revision)
    timer = threading.Timer(patience, watch.close)
    timer.start()
    try:
        if not any(batch.events for batch in watch):
            raise StoreError(f"a watch showed no change within {patience:g} s; does a proxy hold streams back?")
    finally:
        timer.cancel()
        watch.close()
    return True
