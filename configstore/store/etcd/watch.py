"""A watch that outlives its stream: it remembers the last revision it delivered, and continues after that.

Each watch has one stream of etcd's Watch service, but for those that share one (`shared`). The server may split
the events of a revision into several answers (`fragment`). A revision is delivered only when it is complete, and
the next stream starts at the revision after the last delivered one. So a broken stream never leaves half a
revision, and no event is lost or repeated.
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
from configstore.store.etcd.calls import Calls, unary
from configstore.store.etcd.connection import Connection, Metadata
from configstore.store.etcd.errors import CallFailedError, call_failed, exception_for, meaning_of
from configstore.store.etcd.liveness import LivenessProbe
from configstore.store.etcd.messages import events_of, is_fragment, nonsense, revision_of, watch_create_request
from configstore.store.etcd.shared import SharedStreams, SharedWatch
from configstore.store.etcd.stubs import Message, rpc

SHORTEST_WAIT = 0.1
"""Seconds before the second reconnect in a row, at most; doubles up to LONGEST_WAIT. A random part is waited."""

LONGEST_WAIT = 10.0

SPREAD = 1.0
"""Seconds after which a watch starts again once the store answers, at most; random, since many do so then."""

WORKED = 1.0
"""Seconds after which a stream that delivered something counts as working, so that the next is opened at once."""

MAX_PENDING = 32 * 1024 * 1024
"""Bytes of a revision's events that are held until its last event has come, at most.

One request writes 1.5 MiB of values at most, but the end of a lease may delete a hundred thousand keys at once.
"""

_EVENT = 300
"""Bytes of an event besides its key and value."""

_AWAKE = 60.0
"""Seconds after which a thread that waits for a stream's next answer wakes although there is none.

grpc wakes it ten times a second, in case it is the main thread and a signal has arrived (grpc issue 19464). Python
3 ends the wait for a lock at a signal anyway (`configstore watch` waits so), and these wakes were half of an idle
sidecar's CPU time. grpc has no option for it; a test fails when this is not needed any more
(docs/decisions/0038-foreign-privates.md).
"""
_common.MAXIMUM_WAIT_TIMEOUT = _AWAKE

_CANCEL_CODES = (
    ("permission denied", grpc.StatusCode.PERMISSION_DENIED),
    ("auth token|unauthenticated", grpc.StatusCode.UNAUTHENTICATED),
)


class EtcdWatch:
    """A running watch; see `configstore.store.api.Watch`. One thread may iterate it, once."""

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
        """`shared`: the call in which it is opened, instead of a stream of its own."""
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

        An empty one follows each connect, so that the receiver can check whether it is still the same store.
        Raises CompactedError, FutureRevisionError, PermissionDeniedError, AuthenticationError, CorruptError.
        """
        failures = logins = 0
        while not self._closed.is_set():
            opened = time.monotonic()
            try:
                for received, batch in enumerate(self._batches()):
                    # The first batch only reports that the stream was acknowledged.
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

        While the store is silent, `liveness` asks it, and the wait ends at its first answer. If it answers and yet
        gives no stream, because it is overloaded, the wait still gets longer each round.
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
        """Open a stream and yield its batches until it ends. Raises CallFailedError and what `_read` raises."""
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
        """Have `liveness` ask the store at once, because no new stream could be opened."""
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
        """Raise FutureRevisionError when the store is behind the watch, since etcd would then be silent for ever.

        One member may lag behind the others, so a linearizable read decides.
        """
        if self._next == 0:
            self._next = revision + 1
        if revision + 1 >= self._next:
            return
        request = rpc.RangeRequest(key=self._start, keys_only=True)
        revision = revision_of(self._calls.repeatable("range", unary("kv", "Range", request)))
        if revision + 1 < self._next:
            raise FutureRevisionError(
                f"the watch has seen revision {self._next - 1}, but the store is at {revision}: "
                "it was restored from an older snapshot"
            )

    def _raise_canceled(self, answer: Message, stream: "Stream | SharedWatch") -> None:
        """Raise the error that the server's cancelling of the watch means."""
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

    last_received: the time of the server's last answer, on the clock `boottime`. established: whether the server
    acknowledged the watch.
    """

    def __init__(self, connection: Connection, create: Message, metadata: Metadata) -> None:
        """Open it. Raises StoreUnavailableError when the connection's channel was closed meanwhile."""
        self.connection = connection
        self.last_received = boottime()
        self.established = False
        # The request side stays open until the stream is cut: etcd's proxies end a watch when its requests end.
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
    """Return how many of these events are of revisions that are certainly complete: all but the last revision."""
    count = len(events)
    while count and events[count - 1].item.mod_revision == events[-1].item.mod_revision:
        count -= 1
    return count


def code_of_reason(reason: str) -> grpc.StatusCode:
    """Return the code that belongs to a watch's `cancel_reason`, which is only a text."""
    lowered = reason.lower()
    for part, code in _CANCEL_CODES:
        if any(one in lowered for one in part.split("|")):
            return code
    return grpc.StatusCode.INVALID_ARGUMENT if "user name is empty" in lowered else grpc.StatusCode.UNKNOWN
