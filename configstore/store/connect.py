"""Opens the connection to etcd that settings describe. Called by the commands and the daemon."""

from configstore.settings import StoreSettings
from configstore.store.api import Kv


def connect(settings: StoreSettings) -> Kv:
    """Return a connection; its first call connects. Raises UsageError when a TLS file cannot be read."""
    # Imported here and not before: it brings grpc, which a command that does not connect need not load.
    from configstore.store.etcd.client import EtcdKv  # noqa: PLC0415

    return EtcdKv(settings)
