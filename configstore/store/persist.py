"""Makes a txn again while its answer is lost. Called by `commit`, `losing_side` and `resealing`."""

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
    """Make one txn; while its answer leaves open whether it was made, make the same txn again.

    This is safe only if the compares fail once the txn was made. The caller must then look in what was found for
    its own write. patience: seconds during which it is tried; above 0 at least twice, since the wait for one lost
    answer may take all of them. `lost` is called after each answer that was lost. Raises what `Kv.txn` raises.
    """

    def make() -> TxnResult:
        try:
            return kv.txn(compares, operations, otherwise_get=otherwise_get)
        except StoreUnavailableError:
            lost()
            raise

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailableError)
        & tenacity.retry_if_not_exception_type(StoreClosedError),
        stop=tenacity.stop_all(
            tenacity.stop_after_delay(patience), tenacity.stop_after_attempt(2 if patience else 1)
        ),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=1),
        reraise=True,
    )
    return retrying(make)
