"""Channels: one per endpoint, made when it is first needed, one of them in use. Called by `calls` and `watch`."""

import os
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc
import msgspec

from configstore.errors import StoreClosedError, StoreUnavailableError, UsageError
from configstore.model.endpoint import EndpointAddress, parse_endpoint
from configstore.settings import StoreSettings
from configstore.store.etcd.stubs import Message, Stub

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of one message from a server, at most: five times the largest value that etcd's own request limit allows.

Pages and reads of many keys are made smaller to fit (`api.range_all`, `items.items_at`); a watch's answers come in
fragments.
"""

CHANNEL_OPTIONS = (
    # A vanished member is noticed after keepalive_time + timeout. Below 5 s etcd answers GOAWAY too_many_pings
    # (its --grpc-keepalive-min-time).
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # despite its name, gRPC's time limit for one connect
    ("grpc.max_receive_message_length", MAX_ANSWER),
    ("grpc.enable_retries", 0),  # a txn goes out once; reads are repeated by `calls`
    ("grpc.use_local_subchannel_pool", 1),  # a new channel does not inherit an older one's back-off
    ("grpc.enable_http_proxy", 0),  # etcd is never behind the proxy that http_proxy names for the web
)

FILE_CHECK_INTERVAL = 1.0
"""Seconds between two checks whether the certificate files changed."""

Metadata = tuple[tuple[str, str], ...]


def _endpoint(url: str) -> EndpointAddress:
    try:
        return parse_endpoint(url)
    except ValueError as error:
        raise UsageError(f"endpoint: expected http://HOST:PORT or https://HOST:PORT{error}") from None


class TlsFiles(msgspec.Struct, frozen=True):
    """The PEM content of the certificate files, with a signature that shows whether they changed since."""

    signature: tuple[tuple[int, int, int] | None, ...]
    cacert: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = None


def tls_signature(settings: StoreSettings) -> tuple[tuple[int, int, int] | None, ...]:
    """Return inode, size and time of each certificate file; None for one that is missing or not configured."""
    return tuple(_signature(path) for path in (settings.cacert, settings.cert, settings.key))


def _signature(path: str | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def read_tls_files(settings: StoreSettings) -> TlsFiles:
    """Read the certificate files. Raises UsageError, naming the setting and the file."""
    if (settings.cert is None) != (settings.key is None):
        raise UsageError("cert and key: set both or neither")
    signature = tls_signature(settings)  # before reading, so that no later change is missed
    content: dict[str, bytes] = {}
    for name in ("cacert", "cert", "key"):
        path = getattr(settings, name)
        if path is None:
            continue
        try:
            with open(path, "rb") as file:
                content[name] = file.read()
        except OSError as error:
            raise UsageError(f"{name} {path}: {error.strerror}") from error
    if settings.cert and settings.key and not _fit(settings.cert, settings.key):
        raise UsageError(f"key {settings.key}: is not the key of cert {settings.cert}")
    return TlsFiles(signature, **content)


def _fit(cert: str, key: str) -> bool:
    """Return whether a key belongs to a certificate; any other fault of them, the TLS handshake reports.

    Between the two steps of a rotation it does not: gRPC would take the pair, and fail without giving the reason.
    """
    import ssl  # noqa: PLC0415 - it takes some milliseconds

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(
            cert, key, password=""
        )  # never ask on the terminal
    except ssl.SSLError as error:
        return error.reason != "KEY_VALUES_MISMATCH"
    except OSError:
        pass
    return True


class Connection:
    """A channel to one endpoint with its stubs.

    As a context manager it counts its users: a retired connection closes when the last of them has left.
    """

    def __init__(self, endpoint: EndpointAddress, settings: StoreSettings, tls: TlsFiles | None) -> None:
        self.endpoint = endpoint
        self.tls = tls
        options: list[tuple[str, Any]] = list(CHANNEL_OPTIONS)
        if settings.server_name and tls:
            options.append(("grpc.ssl_target_name_override", settings.server_name))
        target = f"{endpoint.host}:{endpoint.port}"
        if tls:
            # Without cacert, gRPC takes its own roots.
            credentials = grpc.ssl_channel_credentials(tls.cacert, tls.key, tls.cert)
            self.channel = grpc.secure_channel(target, credentials, options)
        else:
            self.channel = grpc.insecure_channel(target, options)
        self.kv: Any = Stub(self.channel, "KV")
        self.lease: Any = Stub(self.channel, "Lease")
        self.maintenance: Any = Stub(self.channel, "Maintenance")
        self.auth: Any = Stub(self.channel, "Auth")
        self._watch: Any = Stub(self.channel, "Watch")
        self._lock = threading.Lock()
        self._users = 0
        self._retired = False

    def __enter__(self) -> Self:
        with self._lock:
            self._users += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            last = self._retired and self._users == 0
        if last:
            self.close()

    # Any: the stubs of gRPC leave the `cancel` of a call untyped.
    def open_watch(self, requests: Iterator[Message], metadata: Metadata) -> Any:  # noqa: ANN401 - see above
        """Start a call of etcd's Watch service. Raises StoreUnavailableError when the channel was closed."""
        try:
            return self._watch.Watch(requests, metadata=metadata)
        except ValueError as error:
            raise StoreUnavailableError(f"watch at {self.endpoint}: the channel was closed meanwhile") from error

    def retire(self) -> None:
        """Close it once it has no user."""
        with self._lock:
            self._retired = True
            unused = self._users == 0
        if unused:
            self.close()

    def close(self) -> None:
        """Close the channel at once; calls in flight end with CANCELLED."""
        self.channel.close()


class Connections:
    """The connections to all endpoints, one in use until it failed. Safe for use by several threads."""

    def __init__(self, settings: StoreSettings) -> None:
        """Raise UsageError for a bad endpoint or an unreadable certificate file."""
        self._settings = settings
        self._endpoints = tuple(map(_endpoint, settings.endpoints))
        if not self._endpoints:
            raise UsageError("endpoints: at least one is needed")
        self._open: dict[int, Connection] = {}
        self._index = 0
        self._lock = threading.Lock()
        self._closed = False
        self._tls = read_tls_files(settings) if any(endpoint.secure for endpoint in self._endpoints) else None
        self._looked = time.monotonic()

    def __len__(self) -> int:
        return len(self._endpoints)

    def current(self) -> Connection:
        """Return the connection in use, a new one if a certificate file has changed.

        Raises StoreClosedError after `close`.
        """
        with self._lock:
            if self._closed:
                raise StoreClosedError("the connection to the store was closed")
            self._follow_tls_files()
            return self._at(self._index)

    def others(self) -> list[Connection]:
        """Return the connections to all endpoints but the one in use, in the order in which they are used.

        Raises StoreClosedError after `close`.
        """
        with self._lock:
            if self._closed:
                raise StoreClosedError("the connection to the store was closed")
            count = len(self._endpoints)
            return [self._at((self._index + step) % count) for step in range(1, count)]

    def _at(self, index: int) -> Connection:
        connection = self._open.get(index)
        if connection is None:
            endpoint = self._endpoints[index]
            tls = self._tls if endpoint.secure else None
            connection = self._open[index] = Connection(endpoint, self._settings, tls)
        return connection

    def prefer(self, connection: Connection) -> None:
        """Use a connection from now on, unless it was retired or closed."""
        with self._lock:
            for index, one in self._open.items():
                if one is connection:
                    self._index = index

    def failed(self, connection: Connection) -> None:
        """Use the next endpoint, unless another thread has moved on already."""
        with self._lock:
            if self._open.get(self._index) is connection:
                self._index = (self._index + 1) % len(self._endpoints)

    def _follow_tls_files(self) -> None:
        """Retire the connections whose certificates were replaced since.

        While a file is missing or unreadable, or the key does not belong to the certificate, as during a rotation,
        the connections stay.
        """
        now = time.monotonic()
        if self._tls is None or now - self._looked < FILE_CHECK_INTERVAL:
            return
        self._looked = now
        if tls_signature(self._settings) == self._tls.signature:
            return
        try:
            self._tls = read_tls_files(self._settings)
        except UsageError:
            return
        secure = [index for index, connection in self._open.items() if connection.tls is not None]
        for index in secure:
            self._open.pop(index).retire()

    def close(self) -> None:
        """Close all channels."""
        with self._lock:
            self._closed = True
            connections = list(self._open.values())
            self._open.clear()
        for connection in connections:
            connection.close()
