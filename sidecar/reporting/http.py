"""HTTP/1.1 in its smallest form, within limits that hold whatever a peer sends: one request a connection.

Called by `health` and `control.server`, which say what is answered. A connection costs one thread and at most HEAD
bytes until its request is there. At most CONNECTIONS of them are open: a further one cuts off the oldest, so that
who sends its request at once gets through whatever slow peers do. The rest waits in the kernel, and takes none of
the descriptors that the mirror needs.
"""

import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

import msgspec

log = logging.getLogger(__name__)

CONNECTIONS = 16
"""Connections that are open at once, but for those that were given leave to stay."""

BACKLOG = 1024
"""Connections that wait in the kernel, where they cost us nothing. Further clients of a Unix socket are refused at
once (EAGAIN), so it is more than a flood brings between two looks."""

ARRIVAL = 5.0
"""Seconds for a whole request to arrive, however slowly its bytes drip."""

ANSWER = 5.0
"""Seconds for what is sent to be taken, each time."""

HEAD = 8 * 1024
"""Bytes of a request's first line and its headers, in all."""

LINES = 100
"""Headers of a request."""

RETRY = 0.1
"""Seconds until it is tried again to accept, where the process has no descriptor left."""

_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00\r\n]*)")
_LENGTH = re.compile(rb"[0-9]{1,9}")
_LINE_END = re.compile(rb"\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class HttpRequest(msgspec.Struct, frozen=True):
    """What a peer asks for. length: of the content that follows, in bytes."""

    method: str
    target: str
    length: int = 0


class MalformedError(Exception):
    """What came is no request that is taken; `status` says so to the peer."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


def parse(head: bytes) -> HttpRequest:
    """Return the request of a head, without the empty line at its end. Raises MalformedError."""
    first, *lines = _LINE_END.split(head)
    match = _REQUEST.fullmatch(first)
    if match is None:
        raise MalformedError(HTTPStatus.BAD_REQUEST, "expected a request of HTTP/1.1")
    if len(lines) > LINES:
        raise MalformedError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {LINES} headers")
    lengths = set()
    for line in lines:
        header = _HEADER.fullmatch(line)
        if header is None:
            raise MalformedError(HTTPStatus.BAD_REQUEST, "a header is none")
        name = header[1].lower()
        if name == b"transfer-encoding":
            raise MalformedError(HTTPStatus.NOT_IMPLEMENTED, "expected a Content-Length, and no Transfer-Encoding")
        if name == b"content-length":
            lengths.add(header[2].strip(b" \t"))
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise MalformedError(HTTPStatus.BAD_REQUEST, "expected one Content-Length, in bytes")
    return HttpRequest(match[1].decode(), match[2].decode(), int(lengths.pop()) if lengths else 0)


class Exchange:
    """A connection, its request, and the answer. Each method may raise OSError: the peer is gone, or slow."""

    def __init__(self, connection: socket.socket, stay: Callable[["Exchange"], None]) -> None:
        self.connection = connection
        self._stay = stay
        self._until = time.monotonic() + ARRIVAL
        self._came = b""

    def request(self) -> HttpRequest:
        """Read what is asked. Raises MalformedError; ConnectionError when the peer ended before."""
        looked_at = 0
        while (end := _HEAD_END.search(self._came, max(0, looked_at - 3))) is None:
            looked_at = len(self._came)
            if looked_at >= HEAD:
                raise MalformedError(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {HEAD} bytes of headers"
                )
            self._receive(HEAD - looked_at)
        head, self._came = self._came[: end.start()], self._came[end.end() :]
        return parse(head)

    def content(self, length: int) -> bytes:
        """Read the content that follows; `length` is for the caller to limit. Raises ConnectionError likewise."""
        while len(self._came) < length:
            self._receive(length - len(self._came))
        return self._came[:length]

    def stay(self) -> None:
        """Give up the place among CONNECTIONS, for a wait that the caller bounds; it is not cut off any more."""
        self._stay(self)

    def answer(self, status: HTTPStatus, kind: str, content: bytes, *, head_only: bool = False) -> None:
        """Send an answer; `kind`: its Content-Type. With `head_only` the content is left out."""
        head = f"HTTP/1.1 {status} {status.phrase}\r\nServer: configstore\r\nContent-Type: {kind}\r\n"
        head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        self.send(head.encode() + (b"" if head_only else content))

    def begin(self, kind: str) -> None:
        """Begin an answer whose content goes on until the connection ends."""
        self.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode())

    def send(self, content: bytes) -> None:
        """Send some bytes within ANSWER seconds."""
        self.connection.settimeout(ANSWER)  # `sendall` takes it for all of them
        self.connection.sendall(content)

    def cut(self) -> None:
        """End it from another thread; its own closes it."""
        with suppress(OSError):  # the peer was faster
            self.connection.shutdown(socket.SHUT_RDWR)

    def _receive(self, most: int) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self.connection.settimeout(left)
        came = self.connection.recv(most)
        if not came:
            raise ConnectionError("the request broke off")
        self._came += came


class Server:
    """The thread that accepts, and those of the connections."""

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[Exchange, HttpRequest], None],
        *,
        name: str,
        admit: Callable[[socket.socket], bool] = lambda _: True,
    ) -> None:
        """Serve a listening socket, which is closed at the end.

        serve: answers a request; may raise MalformedError or OSError. admit: whether a peer may speak at all.
        """
        self.closing = threading.Event()
        self._listener = listener
        self._answer = serve
        self._admit = admit
        self._name = name
        self._open: dict[Exchange, None] = {}  # oldest first
        self._left = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept no more."""
        with self._left:
            self.closing.set()
            self._left.notify_all()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                log.debug("cannot accept a connection", extra={"to": self._name, "reason": str(error)})
                self.closing.wait(RETRY)
                continue
            if self._admitted(connection):
                self._begin(Exchange(connection, self._leave))
            else:
                connection.close()

    def _admitted(self, connection: socket.socket) -> bool:
        try:
            return self._admit(connection)
        except OSError:  # it is gone already
            return False

    def _begin(self, exchange: Exchange) -> None:
        """Make room for a connection, and give it a thread."""
        with self._left:
            while len(self._open) >= CONNECTIONS and not self.closing.is_set():
                next(iter(self._open)).cut()
                self._left.wait()  # until its thread has closed it: no more descriptors than are promised
            self._open[exchange] = None
        try:
            threading.Thread(target=self._serve, args=(exchange,), name=self._name, daemon=True).start()
        except RuntimeError:  # there is no thread to be had
            self._end(exchange)

    def _serve(self, exchange: Exchange) -> None:
        try:
            try:
                self._answer(exchange, exchange.request())
            except MalformedError as error:
                exchange.answer(error.status, "text/plain; charset=utf-8", f"{error}\n".encode())
        except OSError as error:  # most often a peer that is gone
            log.debug("a connection broke off", extra={"to": self._name, "reason": str(error)})
        except Exception:  # whatever a peer sends, it ends this connection, not the process
            log.exception("a request could not be answered", extra={"to": self._name})
        finally:
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        with self._left:  # nobody may cut what has the same number by then
            exchange.connection.close()
            self._open.pop(exchange, None)
            self._left.notify_all()

    def _leave(self, exchange: Exchange) -> None:
        with self._left:
            self._open.pop(exchange, None)
            self._left.notify_all()
