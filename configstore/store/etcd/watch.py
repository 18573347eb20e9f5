"""A watch that outlives its stream: what was delivered is remembered, and the rest asked for again.

One stream of etcd's Watch service per watch and connection, but for those that share one (`shared`). The server
may split the events of a revision over several answers (`fragment`); a revision is handed on when it is complete,
so that a broken stream never leaves half of one behind, and the next stream starts at the revision after the last
one handed on.
"""

import queue
import random
import threading
import time
from collections.abc import Iterator

import grpc
from grpc import _common  # see _AWAKE

from configstore.clock import boottime
from configstore.errors import CompactedError, FutureRevisionError, StoreError, StoreUnavailableError
from configstore.store.api import Batch, Event
from configstore.store.etcd.calls import Calls
from configstore.store.etcd.connection import Connection, Metadata
from configstore.store.etcd.errors import CallFailedError, call_failed, exception_for, meaning_of
from configstore.store.etcd.liveness import LivenessProbe
from configstore.store.etcd.messages import events_of, is_fragment, nonsense, revision_of, watch_create_request
from configstore.store.etcd.shared import SharedStreams, SharedWatch
from configstore.store.etcd.stubs import Message, rpc

SHORTEST_WAIT = 0.1
"""Seconds before the second reconnect in a row, doubling up to LONGEST_WAIT; a random part of it is used."""

LONGEST_WAIT = 10.0

SPREAD = 1.0
"""Seconds within which a watch begins again, by chance, once the store answers again: many do at once then."""

WORKED = 1.0
"""Seconds after which a stream that brought something has worked, so that the next one is opened at once."""

MAX_PENDING = 32 * 1024 * 1024
"""Bytes of a revision's events that are held until the last of them has come. One request brings 1.5 MiB of
values; the end of a lease may delete a hundred thousand keys at once."""

_EVENT = 300
"""Bytes of an event besides its key and value."""

_AWAKE = 60.0
"""Seconds after which a thread that waits for a stream's next answer wakes for nothing.

grpc has it do so ten times a second, in case it is the main thread and a signal has come (its issue 19464). On
Python 3 a signal ends the wait for a lock anyway (`configstore watch` waits so), and this was half of what an idle
sidecar used.
"""
_common.MAXIMUM_WAIT_TIMEOUT = _AWAKE

_CANCEL_CODES = (
    ("permission denied", grpc.StatusCode.PERMISSION_DENIED),
    ("auth token|unauthenticated", grpc.StatusCode.UNAUTHENTICATED),
)


class EtcdWatch:
    """A running watch; see `configstore.store.api.Watch`. To be iterated by one thread, once."""

    def __init__(
        self,
        calls: Calls,
        life: LivenessProbe,
        start: bytes,
        end: bytes,
        start_revision: int,
        *,
        shared: SharedStreams | None = None,
    ) -> None:
        """`shared`: where it is opened, in place of a stream of its own."""
        self._calls = calls
        self._life = life
        self._start = start
        self._end = end
        self._next = start_revision
        self._closed = threading.Event()
        self._shared = shared
        self._in_vain = 0  # tries in a row that failed although the store answers
        self._stream: Stream | SharedWatch | None = None
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches until closed.

        An empty one follows each connect, so that its receiver may look whether the store is still the same.
        Raises CompactedError, FutureRevisionError, PermissionDeniedError, AuthenticationError, CorruptError.
        """
        failures = logins = 0
        while not self._closed.is_set():
            opened = time.monotonic()
            try:
                for received, batch in enumerate(self._batches()):
                    # The first batch only says that the stream stands.
                    if received and time.monotonic() - opened >= WORKED:
                        failures = logins = 0
                    yield batch
            except CallFailedError as failure:
                if self._closed.is_set():
                    return
                login = failure.meaning.login and self._calls.login.needed and not logins
                if not (login or failure.meaning.again or failure.meaning.elsewhere):
                    raise failure.error from failure.__cause__
                logins += login
            except StoreUnavailableError:
                pass
            if time.monotonic() - opened > LONGEST_WAIT:
                failures = logins = 0
            self._wait(failures)
            failures += 1

    def close(self) -> None:
        """End it, from any thread; a blocked iteration returns."""
        self._closed.set()
        with self._lock:
            stream = self._stream
        if stream is not None:
            stream.cut()
        self._calls.contact.look_again()

    def _wait(self, failures: int) -> None:
        """Wait before reconnecting: not at all after a stream that worked, else longer each round, jittered.

        Where the store is silent, signs of life are asked for all the while: with the first it goes on. A store
        that answers and gives no stream, since it has too much to do, is asked less often each round all the same.
        """
        if failures:
            rounds = failures // len(self._calls.connections)
            limit = min(LONGEST_WAIT, SHORTEST_WAIT * 2 ** min(rounds, 16))
            seconds = limit * random.uniform(0.5, 1.0)  # noqa: S311 # spreads load, guards nothing
            end = time.monotonic() + seconds
            if self._calls.contact.wait_while_doubtful(seconds, self._closed.is_set):
                left = min(SPREAD * 2 ** min(self._in_vain, 16), end - time.monotonic())
                self._in_vain += 1
                self._closed.wait(left * random.uniform(0.0, 1.0))  # noqa: S311 # as above
            else:
                self._in_vain = 0
                self._closed.wait(end - time.monotonic())
        else:
            self._in_vain = 0

    def _batches(self) -> Iterator[Batch]:
        """Open a stream and yield what it brings until it ends. Raises CallFailedError and what `_read` raises."""
        connection = self._calls.connections.current()
        metadata: Metadata = ()
        stream = None
        asked = boottime()
        with connection:
            try:
                metadata = self._calls.login.metadata(connection, time.monotonic() + self._calls.attempt_timeout)
                stream = self._open(connection, metadata)
                yield from self._read(stream)
            except grpc.RpcError as error:
                failure = call_failed(error, what=f"watch at {connection.endpoint}")
                self._after(failure, connection, metadata)
                if not (stream and stream.established):
                    self._doubt(failure, connection, asked)
                raise failure from error
            except CallFailedError as failure:
                self._after(failure, connection, metadata)
                raise
            finally:
                if stream is not None:
                    self._life.remove(stream)
                    stream.cut()

    def _after(self, failure: CallFailedError, connection: Connection, metadata: Metadata) -> None:
        """Choose another token or endpoint for the next stream."""
        if failure.meaning.login:
            self._calls.login.forget(metadata)
        elif issubclass(failure.meaning.error, StoreUnavailableError):
            self._calls.connections.failed(connection)

    def _doubt(self, failure: CallFailedError, connection: Connection, asked: float) -> None:
        """Have the store asked for a sign of life at once: a new stream could not be had."""
        if issubclass(failure.meaning.error, StoreUnavailableError):
            self._calls.contact.failed(str(connection.endpoint), failure.short, asked)
            self._life.look()

    def _open(self, connection: Connection, metadata: Metadata) -> "Stream | SharedWatch":
        create = watch_create_request(self._start, self._end, self._next)
        stream = (self._shared.open if self._shared else Stream)(connection, create, metadata)
        with self._lock:
            self._stream = stream
        if self._closed.is_set():
            stream.cut()
        self._life.add(stream)
        return stream

    def _read(self, stream: "Stream | SharedWatch") -> Iterator[Batch]:
        """Turn a stream's answers into batches of whole revisions."""
        pending: list[Event] = []
        held = 0
        for answer in stream:
            if answer.canceled:
                self._raise_canceled(answer, stream)
            if answer.created:
                if stream.established:
                    raise nonsense("a watch that begins twice")
                self._check_revision(revision_of(answer))
                stream.established = True
                yield Batch(revision=self._next - 1, connected=True)
                continue
            since = pending[-1].item.mod_revision if pending else self._next
            events = events_of(answer, self._start, self._end, since)
            held += sum(_EVENT + len(event.item.key) + len(event.item.value) for event in events)
            if held > MAX_PENDING:
                raise StoreError(
                    f"more than {MAX_PENDING} bytes of changes at one revision; it must be listed anew"
                )
            pending.extend(events)
            more_follows = is_fragment(answer)
            complete = whole_revisions(pending) if more_follows else len(pending)
            if complete:
                batch = Batch(revision=pending[complete - 1].item.mod_revision, events=tuple(pending[:complete]))
                del pending[:complete]
                held = sum(_EVENT + len(event.item.key) + len(event.item.value) for event in pending)
                self._next = batch.revision + 1
                yield batch
            elif not more_follows:  # progress: nothing in the range up to the header's revision
                self._next = max(self._next, revision_of(answer) + 1)
                yield Batch(revision=self._next - 1)

    def _check_revision(self, revision: int) -> None:
        """Raise FutureRevisionError when the store is behind what was seen of it: etcd would stay silent for ever.

        A member may lag behind the others, so a second look is one at the cluster.
        """
        if self._next == 0:
            self._next = revision + 1
        if revision + 1 >= self._next:
            return
        request = rpc.RangeRequest(key=self._start, keys_only=True)

        def method(connection: Connection, timeout: float, metadata: Metadata) -> Message:
            return connection.kv.Range(request, timeout=timeout, metadata=metadata)

        revision = revision_of(self._calls.repeatable("range", method))
        if revision + 1 < self._next:
            raise FutureRevisionError(
                f"the watch has seen revision {self._next - 1}, but the store is at {revision}: "
                "it was restored from an older snapshot"
            )

    def _raise_canceled(self, answer: Message, stream: "Stream | SharedWatch") -> None:
        """Raise what the server's cancelling of the watch means."""
        if answer.compact_revision:
            raise CompactedError(
                f"revision {self._next} has been compacted, {answer.compact_revision} is the oldest there",
                compact_revision=answer.compact_revision,
            )
        code = code_of_reason(answer.cancel_reason)
        meaning = meaning_of(code, answer.cancel_reason)
        if code is grpc.StatusCode.PERMISSION_DENIED:
            # etcd says the same for a token that it no longer knows.
            meaning = meaning._replace(login=True)
        what = f"watch at {stream.connection.endpoint}"
        raise CallFailedError(meaning, exception_for(meaning, code, answer.cancel_reason, what=what))


class Stream:
    """One call of etcd's Watch service with one watch in it.

    last_received: on the clock `boottime`, when the server last said something. established: whether the server
    acknowledged the watch.
    """

    def __init__(self, connection: Connection, create: Message, metadata: Metadata) -> None:
        """Open it. Raises StoreUnavailableError when the connection's channel was closed meanwhile."""
        self.connection = connection
        self.last_received = boottime()
        self.established = False
        # The request side stays open until the stream is cut: etcd's proxies end a watch with it.
        self._requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._requests.put(rpc.WatchRequest(create_request=create))
        self._call = connection.open_watch(iter(self._requests.get, None), metadata)

    def __iter__(self) -> Iterator[Message]:
        """Yield answers. Raises grpc.RpcError when the stream breaks or is cut."""
        for answer in self._call:
            self.last_received = boottime()
            yield answer

    def cut(self) -> None:
        """End it, from any thread."""
        self._requests.put(None)
        self._call.cancel()


def whole_revisions(events: list[Event]) -> int:
    """Return how many of these events belong to revisions that are surely complete: all but the last one's."""
    count = len(events)
    while count and events[count - 1].item.mod_revision == events[-1].item.mod_revision:
        count -= 1
    return count


def code_of_reason(reason: str) -> grpc.StatusCode:
    """Return the code behind a watch's `cancel_reason`, which carries the text alone."""
    lowered = reason.lower()
    for part, code in _CANCEL_CODES:
        if any(one in lowered for one in part.split("|")):
            return code
    return grpc.StatusCode.INVALID_ARGUMENT if "user name is empty" in lowered else grpc.StatusCode.UNKNOWN
