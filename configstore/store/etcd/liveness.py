"""Notices that the store is gone, and the member behind a quiet watch, by asking while nothing else is heard.

gRPC's keepalive needs 13 s for a member that vanished and is blind to one that hangs with its socket open; etcd
sends progress every 10 minutes; a stream to a killed etcd was seen to last 28 s. So a small linearizable read
with a deadline is made where nothing else was answered for INTERVAL. When the member in use does not answer it
soon, all others are asked, too, and the first that answers is used from then on. A member that stays silent until
the deadline loses its streams, which reconnect elsewhere.

The steps fit into the 5 s within which a silence is promised to be told: INTERVAL, then TURN, then what the
others need, all before `contact.SILENCE`. These questions are most of what a replica at rest costs etcd, so
INTERVAL is as long as that allows.
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
from configstore.store.etcd.errors import from_a_member, meaning_of, short_words
from configstore.store.etcd.stubs import rpc

INTERVAL = 3.5
"""Seconds without an answer from the store after which it is asked for one."""

TURN = 0.5
"""Seconds that the member in use has for it before all others are asked."""

DOUBT = 1.0
"""Seconds after the first question before which no silence is told."""

AGAIN = 0.5
"""Seconds between two questions to one member: after an election it answers within the next of them."""

PATIENCE = 3.0
"""Seconds that a member has for its answer."""

QUIET = 5.0
"""Seconds without a message on a stream after which its member is asked."""

SHORTEST_PAUSE = 0.05


class WatchedStream(Protocol):
    """A watch's stream, as seen from here (see `watch.Stream`)."""

    connection: Connection
    last_received: float
    established: bool

    def cut(self) -> None:
        """End the stream; its owner opens another."""
        ...


class Sign(enum.Enum):
    """What became of a question."""

    STORE = enum.auto()  # a majority stands behind the answer
    MEMBER = enum.auto()  # the member lives, but says that it cannot reach the others
    NONE = enum.auto()


class Question:
    """A small read on its way to one member, in the background; `ended` is called when it is over."""

    def __init__(self, connection: Connection, key: bytes, metadata: object, ended: Callable[[], None]) -> None:
        """Ask. Raises ValueError when the channel was closed meanwhile."""
        self.connection = connection
        self.asked = boottime()
        request = rpc.RangeRequest(key=key, keys_only=True)
        self._call: Any = connection.kv.Range.future(request, timeout=PATIENCE, metadata=metadata)
        self._call.add_done_callback(lambda _: ended())

    @property
    def over(self) -> bool:
        """Whether there is an answer, or there will be none."""
        return bool(self._call.done())

    def result(self) -> tuple[Sign, str]:
        """Return what it says of the store, and why it is no answer of the store's."""
        code, details = self._call.code() or grpc.StatusCode.UNKNOWN, self._call.details() or ""
        meaning = meaning_of(code, details)
        if code is grpc.StatusCode.OK or meaning.answered:
            return Sign.STORE, ""
        return Sign.MEMBER if from_a_member(details) else Sign.NONE, short_words(code, details)


class LivenessProbe:
    """Looks after the contact and the streams of one client, in a thread that starts with the first who cares."""

    def __init__(self, calls: Calls, key: bytes) -> None:
        """`key` is what is read; whether it exists, and we may read it, does not matter."""
        self._calls = calls
        self._contact = calls.contact
        self._key = key
        self._streams: list[WatchedStream] = []
        self._wake = threading.Condition()
        self._news = False
        self._thread: threading.Thread | None = None
        self._closed = False
        self._told: Callable[[Contact], None] | None = None
        # All below is the thread's own.
        self._said_connected = True
        self._asking_since: float | None = None
        self._questions: dict[Connection, Question] = {}
        self._asked: dict[object, float] = {}  # by endpoint, when it was asked last

    def follow(self, told: Callable[[Contact], None]) -> None:
        """Tell of each loss of contact and of each return, from now on; see `Kv.follow_contact`."""
        with self._wake:
            self._told = told
            self._care()

    def add(self, stream: WatchedStream) -> None:
        """Look after a stream from now on."""
        with self._wake:
            if self._closed:
                stream.cut()
                return
            self._streams.append(stream)
            self._care()

    def _care(self) -> None:
        """Have the thread look at what was added."""
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
        """Have the thread look at once, as at a question that is over; from any thread, such as gRPC's."""
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
                pause = self._look(streams) if needed else None
            except StoreClosedError:
                return

    def _look(self, streams: list[WatchedStream]) -> float:
        """Take what was answered, ask where it is due, tell what is new; return when to look again, in seconds."""
        for question in [each for each in self._questions.values() if each.over]:
            del self._questions[question.connection]
            self._take(question, streams)
        now = boottime()
        self._cut_unanswered(streams, now)
        self._ask_where_due(streams, now)
        self._tell(now)
        return self._pause(streams, now)

    def _ask_where_due(self, streams: list[WatchedStream], now: float) -> None:
        """Ask the member in use when nothing was heard, the others if it is silent, and those of quiet streams."""
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
        except ValueError:  # the channel was closed meanwhile; another is there by the next look
            return

    def _take(self, question: Question, streams: list[WatchedStream]) -> None:
        """Draw the consequences of an answer, or of there being none."""
        connection, asked = question.connection, question.asked
        sign, words = question.result()
        if sign is Sign.STORE:
            if boottime() - self._contact.heard >= INTERVAL:
                self._calls.connections.prefer(connection)
            self._contact.answered()
        else:
            self._contact.failed(str(connection.endpoint), words, asked)
        for stream in streams:
            if stream.connection is not connection:
                continue
            # The server itself ends the streams of a member that has lost the others.
            if sign is not Sign.NONE and stream.established:
                stream.last_received = max(stream.last_received, asked)
            elif stream.last_received <= asked:
                self._cut(stream)
        if sign is Sign.NONE:
            self._calls.connections.failed(connection)

    def _cut(self, stream: WatchedStream) -> None:
        """End a stream and forget it: its owner may take a while to notice."""
        self.remove(stream)
        stream.cut()

    def _cut_unanswered(self, streams: list[WatchedStream], now: float) -> None:
        """Cut the streams that were not acknowledged in time: they are dead, whatever else the server answers."""
        for stream in streams:
            if not stream.established and now - stream.last_received >= QUIET:
                self._cut(stream)
                self._calls.connections.failed(stream.connection)

    def _tell(self, now: float) -> None:
        """Tell of a loss or a return.

        Nobody is accused who was not asked: after a suspend, or when this process stood still, the first question
        comes late, and has DOUBT seconds like any other.
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
        """Return how long there is nothing to do but to wait for answers, in seconds."""
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
