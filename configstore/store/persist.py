"""A txn whose answer may be lost. Called by `commit` and `losing_side`."""

import time
from collections.abc import Callable, Sequence

import tenacity

from configstore.errors import StoreClosedError, StoreUnavailableError
from configstore.store.api import Compare, Kv, Operation, TxnResult


def persist(
    kv: Kv,
    patience: float,
    compares: Sequence[Compare],
    operations: Sequence[Operation],
    *,
    otherwise_get: Sequence[bytes],
    lost: Callable[[], None] = lambda: None,
) -> TxnResult:
    """Make one txn; an answer that leaves its outcome open is followed by the same txn again.

    That is safe where the compares fail once it landed; what was found then must be looked at for one's own.
    patience: for how many seconds it is tried; above 0 at least twice, since the wait for one answer may be as
    long. `lost` is called after each answer that did not come. Raises what `Kv.txn` raises.
    """
    began = time.monotonic()

    def make() -> TxnResult:
        try:
            return kv.txn(compares, operations, otherwise_get=otherwise_get)
        except StoreUnavailableError:
            lost()
            raise

    try:
        return make()
    except StoreClosedError:
        raise
    except StoreUnavailableError as failure:
        first = [failure]
    left = patience - (time.monotonic() - began)
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailableError)
        & tenacity.retry_if_not_exception_type(StoreClosedError),
        stop=tenacity.stop_all(tenacity.stop_after_delay(left), tenacity.stop_after_attempt(2 if patience else 1)),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=1),
        reraise=True,
    ):
        with attempt:
            if first:  # the one above counts as the first: a txn that needs no second one pays nothing for this
                raise first.pop()
            return make()
    raise AssertionError("unreachable: the last attempt returns or raises")
