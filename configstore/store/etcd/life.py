"""Notices that the server behind a quiet watch is gone.

gRPC's keepalive needs 13 s for a member that vanished and is blind to one that hangs with its socket open; etcd
sends progress every 10 minutes. So, when a watch received nothing for a while, one small read with a deadline
is made on the same channel; when it fails, the watches on that channel are cut and reconnect elsewhere.
"""

import threading
import time
from typing import Any, Protocol

import grpc

from configstore.store.etcd.calls import Calls
from configstore.store.etcd.connection import Connection
from configstore.store.etcd.errors import CallFailedError, call_failed
from configstore.store.etcd.stubs import rpc

QUIET = 5.0
"""Seconds without a message after which a sign of life is asked for."""

PATIENCE = 3.0
"""Seconds that the server has for its answer."""


class Stream(Protocol):
    """A watch's stream, as seen from here (see `watch.Stream`)."""

    connection: Connection
    key: bytes
    last_received: float
    established: bool

    def cut(self) -> None:
        """End the stream; its owner opens another."""
        ...


class SignsOfLife:
    """Looks after the streams of one client, in a thread that exists while there are any."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._streams: list[Stream] = []
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, stream: Stream) -> None:
        """Look after a stream from now on."""
        with self._wake:
            if self._closed:
                stream.cut()
                return
            self._streams.append(stream)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="etcd-signs-of-life", daemon=True)
                self._thread.start()

    def remove(self, stream: Stream) -> None:
        """Forget a stream that ended."""
        with self._wake:
            if stream in self._streams:
                self._streams.remove(stream)

    def close(self) -> None:
        """Cut all streams and end the thread."""
        with self._wake:
            self._closed = True
            streams = list(self._streams)
            thread = self._thread
            self._wake.notify_all()
        for stream in streams:
            stream.cut()
        if thread is not None and thread is not threading.current_thread():
            thread.join(PATIENCE)

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._closed:
                    return
                due = min((stream.last_received for stream in self._streams), default=time.monotonic()) + QUIET
                self._wake.wait(max(0.1, due - time.monotonic()))
                quiet = [one for one in self._streams if one.last_received + QUIET <= time.monotonic()]
            for connection in {id(one.connection): one.connection for one in quiet}.values():
                self._check(connection, [one for one in quiet if one.connection is connection])

    def _check(self, connection: Connection, streams: list[Stream]) -> None:
        asked = time.monotonic()
        # A stream that the server has not even acknowledged in this time is dead, whatever unary calls say.
        alive = [one for one in streams if one.established]
        answered = bool(alive) and self._answers(connection, alive[0].key)
        for stream in streams:
            if answered and stream.established:
                stream.last_received = max(stream.last_received, asked)
            elif stream.last_received <= asked:
                stream.cut()
        if not answered and not self._closed:
            self._calls.connections.failed(connection)

    def _answers(self, connection: Connection, key: bytes) -> bool:
        """Whether the member answers a read from its own state; any answer, even a refusal, is life."""
        request: Any = rpc.RangeRequest(key=key, keys_only=True, serializable=True)
        try:
            with connection:
                metadata = self._calls.login.metadata(connection, time.monotonic() + PATIENCE)
                connection.kv.Range(request, timeout=PATIENCE, metadata=metadata)
        except CallFailedError as failure:
            return not failure.meaning.again
        except grpc.RpcError as error:
            return not call_failed(error, what="sign of life").meaning.again
        except ValueError:  # the channel was closed meanwhile
            return False
        return True
