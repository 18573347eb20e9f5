"""Notices a store that is silent, and a silent member behind a quiet watch, by asking while nothing else is heard.

Nothing else notices them in time: gRPC's keepalive takes 13 s for a member that vanished, and does not see one
that hangs with its socket open; etcd sends a watch's progress every 10 minutes; a stream to a killed etcd has
lasted 28 s.

1. After INTERVAL seconds without any answer, a small linearizable read is sent to the member in use.
2. If it is not answered within TURN, all other members are asked as well; the first that answers is used from then
   on.
3. A member that is silent until the read's deadline loses its streams, which reconnect elsewhere.

A silence is promised to be reported within 5 s, so INTERVAL, TURN and the others' answers must fit before
`contact.SILENCE`. These reads are most of the load of an idle replica on etcd, so INTERVAL is as long as that
allows.
"""

import enum
import threading
from collections.abc import Callable
from typing import Any, Protocol

import grpc

from configstore.clock import boottime
from configstore.errors import StoreClosedError
from configstore.store.api import Contact
from configstore.store.etcd import contact
from configstore.store.etcd.calls import Calls
from configstore.store.etcd.connection import Connection
from configstore.store.etcd.errors import from_a_member, meaning_of, short_reason
from configstore.store.etcd.stubs import rpc

INTERVAL = 3.5
"""Seconds without an answer from the store after which it is asked for one."""

TURN = 0.5
"""Seconds that the member in use has to answer before all others are asked."""

DOUBT = 1.0
"""Seconds after the first question during which no silence is reported."""

AGAIN = 0.5
"""Seconds between two questions to one member; after an election it answers the next one."""

PATIENCE = 3.0
"""Seconds that a member has to answer."""

QUIET = 5.0
"""Seconds without a message on a stream after which its member is asked."""

SHORTEST_PAUSE = 0.05


class WatchedStream(Protocol):
    """The part of a watch's stream that is needed here (see `watch.Stream`)."""

    connection: Connection
    last_received: float
    established: bool

    def cut(self) -> None:
        """End the stream; its owner opens another."""
        ...


class Sign(enum.Enum):
    """The outcome of a question."""

    STORE = enum.auto()  # a majority of the members answered
    MEMBER = enum.auto()  # the member is alive, but cannot reach the others
    NONE = enum.auto()


class Question:
    """A small read that was sent to one member, in the background; `ended` is called when it is over."""

    def __init__(self, connection: Connection, key: bytes, metadata: object, ended: Callable[[], None]) -> None:
        """Send it. Raises ValueError when the channel was closed meanwhile."""
        self.connection = connection
        self.asked = boottime()
        request = rpc.RangeRequest(key=key, keys_only=True)
        self._call: Any = connection.kv.Range.future(request, timeout=PATIENCE, metadata=metadata)
        self._call.add_done_callback(lambda _: ended())

    @property
    def over(self) -> bool:
        """Whether there is an answer, or will be none."""
        return bool(self._call.done())

    def result(self) -> tuple[Sign, str]:
        """Return who answered, and why it was not the store."""
        code, details = self._call.code() or grpc.StatusCode.UNKNOWN, self._call.details() or ""
        meaning = meaning_of(code, details)
        if code is grpc.StatusCode.OK or meaning.answered:
            return Sign.STORE, ""
        return Sign.MEMBER if from_a_member(details) else Sign.NONE, short_reason(code, details)


class LivenessProbe:
    """Watches over the contact and the streams of one client, in a thread that starts when it is first needed."""

    def __init__(self, calls: Calls, key: bytes) -> None:
        """`key` is read; it need neither exist nor be readable for us."""
        self._calls = calls
        self._contact = calls.contact
        self._key = key
        self._streams: list[WatchedStream] = []
        self._wake = threading.Condition()
        self._news = False
        self._thread: threading.Thread | None = None
        self._closed = False
        self._told: Callable[[Contact], None] | None = None
        # Only the thread uses what follows.
        self._said_connected = True
        self._asking_since: float | None = None
        self._questions: dict[Connection, Question] = {}
        self._asked: dict[object, float] = {}  # by endpoint: when it was last asked

    def follow(self, told: Callable[[Contact], None]) -> None:
        """Report each loss of contact and each return from now on; see `Kv.follow_contact`."""
        with self._wake:
            self._told = told
            self._care()

    def add(self, stream: WatchedStream) -> None:
        """Watch over a stream from now on."""
        with self._wake:
            if self._closed:
                stream.cut()
                return
            self._streams.append(stream)
            self._care()

    def _care(self) -> None:
        """Have the thread check what was added; the caller has the lock."""
        self._news = True
        self._wake.notify_all()
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="etcd-signs-of-life", daemon=True)
            self._thread.start()

    def remove(self, stream: WatchedStream) -> None:
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

    def look(self) -> None:
        """Have the thread check at once, for example a question that is over; from any thread, such as gRPC's."""
        with self._wake:
            self._news = True
            self._wake.notify_all()

    def _run(self) -> None:
        pause: float | None = 0.0
        while True:
            with self._wake:
                if not self._news and not self._closed:
                    self._wake.wait(pause)
                if self._closed:
                    return
                self._news = False
                streams = list(self._streams)
                needed = streams or self._told
            try:
                pause = self._check(streams) if needed else None
            except StoreClosedError:
                return

    def _check(self, streams: list[WatchedStream]) -> float:
        """Take answers, ask where it is due, report changes; return the seconds until the next check."""
        for question in [each for each in self._questions.values() if each.over]:
            del self._questions[question.connection]
            self._take(question, streams)
        now = boottime()
        self._cut_unanswered(streams, now)
        self._ask_where_due(streams, now)
        self._report(now)
        return self._pause(streams, now)

    def _ask_where_due(self, streams: list[WatchedStream], now: float) -> None:
        """Ask the member in use if nothing was heard, the others if it is silent, and those of quiet streams."""
        current = self._calls.connections.current()
        question_now = self._questions.get(current)
        if question_now and now - question_now.asked >= TURN:
            self._contact.failed(str(current.endpoint), "does not answer", question_now.asked)
        quiet = now - self._contact.heard >= INTERVAL
        wanted = [current] if quiet or self._contact.doubtful else []
        if quiet and self._contact.doubtful:
            wanted += self._calls.connections.others()
        self._asking_since = (self._asking_since or now) if quiet else None
        wanted += [each.connection for each in streams if now - each.last_received >= QUIET]
        for connection in dict.fromkeys(wanted):
            self._ask(connection, now)

    def _ask(self, connection: Connection, now: float) -> None:
        """Ask a member, unless it is being asked or was just now."""
        endpoint = connection.endpoint
        if connection in self._questions or now - self._asked.get(endpoint, -AGAIN) < AGAIN:
            return
        self._asked[endpoint] = now
        metadata = self._calls.login.metadata_at_hand()
        try:
            self._questions[connection] = Question(connection, self._key, metadata, self.look)
        except ValueError:  # the channel was closed meanwhile; by the next check there is another one
            return

    def _take(self, question: Question, streams: list[WatchedStream]) -> None:
        """Act on an answer, or on there being none."""
        connection, asked = question.connection, question.asked
        sign, reason = question.result()
        if sign is Sign.STORE:
            if boottime() - self._contact.heard >= INTERVAL:
                self._calls.connections.prefer(connection)
            self._contact.answered()
        else:
            self._contact.failed(str(connection.endpoint), reason, asked)
        for stream in streams:
            if stream.connection is not connection:
                continue
            # A member that has lost the others ends its streams itself.
            if sign is not Sign.NONE and stream.established:
                stream.last_received = max(stream.last_received, asked)
            elif stream.last_received <= asked:
                self._cut(stream)
        if sign is Sign.NONE:
            self._calls.connections.failed(connection)

    def _cut(self, stream: WatchedStream) -> None:
        """End a stream and forget it at once: its owner may take a while to notice."""
        self.remove(stream)
        stream.cut()

    def _cut_unanswered(self, streams: list[WatchedStream], now: float) -> None:
        """Cut the streams that the server did not acknowledge in time, even if it answers other calls."""
        for stream in streams:
            if not stream.established and now - stream.last_received >= QUIET:
                self._cut(stream)
                self._calls.connections.failed(stream.connection)

    def _report(self, now: float) -> None:
        """Report a loss or a return.

        A store that was not asked is not reported as silent: after a suspend, or when this process was stopped,
        the first question is sent late, and has DOUBT seconds like any other.
        """
        if self._told is None:
            return
        found = self._contact.now()
        asked = self._asking_since is not None and now - self._asking_since >= DOUBT
        lost = found.silent >= contact.SILENCE and asked
        if found.connected != self._said_connected and (found.connected or lost):
            self._said_connected = found.connected
            self._told(found)

    def _pause(self, streams: list[WatchedStream], now: float) -> float:
        """Return the seconds during which nothing is due unless an answer comes."""
        heard = self._contact.heard
        current = self._calls.connections.current()
        asked = self._asked.get(current.endpoint, -AGAIN)
        due = [now + PATIENCE]
        if current not in self._questions:
            due.append(asked + AGAIN if self._contact.doubtful else max(heard + INTERVAL, asked + AGAIN))
        elif now < asked + TURN:
            due.append(asked + TURN)
        for stream in streams:
            if stream.connection not in self._questions:
                again = self._asked.get(stream.connection.endpoint, -AGAIN) + AGAIN
                due.append(max(stream.last_received + QUIET, again))
        if self._said_connected and now < heard + contact.SILENCE:
            due.append(heard + contact.SILENCE)
        if self._asking_since is not None and now < self._asking_since + DOUBT:
            due.append(self._asking_since + DOUBT)
        return max(SHORTEST_PAUSE, min(due) - now)
