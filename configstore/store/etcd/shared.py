"""Several watches in one call of etcd's Watch service, for ranges that seldom change. Used by `watch`.

A call costs etcd three goroutines and some 35 KiB for each client; a further watch in it costs next to nothing. A
watch that must be quick has a call of its own (`watch.Stream`), because here each answer passes through one more
thread.
"""

import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import grpc

from configstore.clock import boottime
from configstore.errors import StoreUnavailableError
from configstore.store.etcd.connection import Connection, Metadata
from configstore.store.etcd.stubs import Message, rpc

AHEAD = 16
"""Answers that may wait for one watch; with more, the call is not read any further, and etcd has to wait."""

PAUSE = 1.0
"""Seconds between two checks whether a watch for which answers wait has left."""


class SharedStreams:
    """The call that the watches of one client share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: _Call | None = None

    def open(self, connection: Connection, create: Message, metadata: Metadata) -> "SharedWatch":
        """Start a watch, in the existing call if possible. Raises StoreUnavailableError."""
        with self._lock:
            part = self._newest.add(connection, create, metadata) if self._newest else None
            if part is None:
                self._newest = _Call(connection, metadata)
                part = self._newest.add(connection, create, metadata)
            if part is None:
                raise StoreUnavailableError(f"watch at {connection.endpoint}: the stream has ended at once")
            return part


class SharedWatch:
    """One watch in a shared call, with the interface of a stream of its own (see `watch.Stream`)."""

    def __init__(self, call: "_Call") -> None:
        self.connection = call.connection
        self.last_received = boottime()
        self.established = False
        self.number: int | None = None  # etcd's id of it
        self._call = call
        self._answers: queue.Queue[Message | grpc.RpcError | None] = queue.Queue(AHEAD)
        self._cut = threading.Event()

    def __iter__(self) -> Iterator[Message]:
        """Yield answers. Raises grpc.RpcError when the call breaks or this watch is cut."""
        while (answer := self._answers.get()) is not None:
            if self._cut.is_set():
                raise _CutError
            if isinstance(answer, grpc.RpcError):
                raise answer
            yield answer

    def put(self, answer: Message | grpc.RpcError | None) -> None:
        """Pass on an answer, or the end of the call; waits while AHEAD answers wait, unless the watch is cut."""
        while not self._cut.is_set():
            with suppress(queue.Full):
                self._answers.put(answer, timeout=PAUSE)
                return

    def cut(self) -> None:
        """End it, from any thread; the other watches in the call go on."""
        self._cut.set()
        self._call.leave(self)
        with suppress(queue.Full):  # then its receiver is not waiting
            self._answers.put_nowait(_CutError())


class _CutError(grpc.RpcError):
    """The error of a cancelled call, for one watch in it."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        return "Locally cancelled by application!"


class _Call:
    """One call. Once a watch has left it no other joins: the watch may have left because the call is silent."""

    def __init__(self, connection: Connection, metadata: Metadata) -> None:
        """Start it. Raises StoreUnavailableError when the connection's channel was closed meanwhile."""
        self.connection = connection
        self._metadata = metadata
        self._lock = threading.Lock()
        self._beginning: deque[SharedWatch] = deque()  # etcd answers them in this order
        self._parts: set[SharedWatch] = set()
        self._closed = False
        self._requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._call = connection.open_watch(iter(self._requests.get, None), metadata)
        threading.Thread(target=self._read, name="etcd-shared-watch", daemon=True).start()

    def add(self, connection: Connection, create: Message, metadata: Metadata) -> SharedWatch | None:
        """Start a watch in it; None if it is another connection's or user's call, or is ending."""
        with self._lock:
            if self._closed or connection is not self.connection or metadata != self._metadata:
                return None
            part = SharedWatch(self)
            self._parts.add(part)
            self._beginning.append(part)
            self._requests.put(rpc.WatchRequest(create_request=create))
            return part

    def leave(self, part: SharedWatch) -> None:
        """End a watch; with the last watch, end the call."""
        with self._lock:
            if part not in self._parts:
                return
            self._parts.remove(part)
            self._closed = True
            last = not self._parts
            if part.number is not None and not last:
                self._cancel(part.number)
        if last:
            self._requests.put(None)
            self._call.cancel()

    def _cancel(self, number: int) -> None:
        self._requests.put(rpc.WatchRequest(cancel_request=rpc.WatchCancelRequest(watch_id=number)))

    def _read(self) -> None:
        end: grpc.RpcError | None = None
        try:
            for answer in self._call:
                self._take(answer)
        except grpc.RpcError as error:
            end = error
        finally:  # after any error: a watch that learns of no end would wait for ever, since its member answers
            with self._lock:
                self._closed = True
                parts, self._parts = self._parts, set()
            for part in parts:
                part.put(end)

    def _take(self, answer: Message) -> None:
        """Pass an answer to its watch."""
        now = boottime()
        with self._lock:
            for each in self._parts:
                each.last_received = now
            if answer.created and self._beginning:
                part: SharedWatch | None = self._beginning.popleft()
                if part in self._parts:
                    part.number = None if answer.canceled else answer.watch_id
                elif not answer.canceled:  # it left before etcd started it
                    self._cancel(answer.watch_id)
            else:
                part = next((each for each in self._parts if each.number == answer.watch_id), None)
            if part not in self._parts:
                return
        part.put(answer)
