"""Opens the connection to etcd that settings describe; called by commands and by the daemon.

The adapter is imported here and not before: it brings grpc, which no command needs that does not connect.
"""

from typing import TYPE_CHECKING

from configstore.settings import StoreSettings

if TYPE_CHECKING:
    from configstore.store.etcd.client import EtcdKv


def connect(settings: StoreSettings) -> "EtcdKv":
    """Return a connection; the first call connects. Raises UsageError when a TLS file cannot be read."""
    from configstore.store.etcd.client import EtcdKv  # noqa: PLC0415 - see the module's docstring

    return EtcdKv(settings)
