"""HTTP/1.1 in its smallest form, one request a connection, within limits that hold whatever a peer sends.

Called by `health` and `control.server`, which answer the requests. The limits:
1. A connection costs one thread, and at most HEAD bytes until its request is complete.
2. At most CONNECTIONS are open. A further one cuts off the oldest, so a peer that sends its request at once is
   served whatever slow peers do.
3. Further connections wait in the kernel, and take none of the descriptors that the mirror needs.
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
"""Connections that are open at once, without those that stay (`Exchange.stay`)."""

BACKLOG = 1024
"""Connections that wait in the kernel, which costs this process nothing. A Unix socket refuses further clients at
once (EAGAIN), so this is more than a flood brings between two calls of accept."""

ARRIVAL = 5.0
"""Seconds for a whole request to arrive, however slowly its bytes come."""

ANSWER = 5.0
"""Seconds for a peer to take what is sent, each time."""

HEAD = 8 * 1024
"""Bytes of a request's first line and headers together, at most."""

LINES = 100
"""Headers of a request, at most."""

RETRY = 0.1
"""Seconds until the next accept after one that failed, such as without a free descriptor."""

_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00\r\n]*)")
_LENGTH = re.compile(rb"[0-9]{1,9}")
_LINE_END = re.compile(rb"\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")


class HttpRequest(msgspec.Struct, frozen=True):
    """A request. length: bytes of the content that follows."""

    method: str
    target: str
    length: int = 0


class MalformedError(Exception):
    """A request that is not accepted; `status` is the answer to the peer."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def parse(head: bytes) -> HttpRequest:
    """Return the request of a head, which is given without the empty line at its end. Raises MalformedError."""
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
            raise MalformedError(HTTPStatus.BAD_REQUEST, "expected headers of the form NAME: VALUE")
        name = header[1].lower()
        if name == b"transfer-encoding":
            raise MalformedError(HTTPStatus.NOT_IMPLEMENTED, "expected a Content-Length, and no Transfer-Encoding")
        if name == b"content-length":
            lengths.add(header[2].strip(b" \t"))
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise MalformedError(HTTPStatus.BAD_REQUEST, "expected one Content-Length, in bytes")
    return HttpRequest(match[1].decode(), match[2].decode(), int(lengths.pop()) if lengths else 0)


class Exchange:
    """A connection, its request, and the answer. Each method may raise OSError: the peer is gone, or too slow."""

    def __init__(self, connection: socket.socket, stay: Callable[["Exchange"], None]) -> None:
        self.connection = connection
        self._stay = stay
        self._until = time.monotonic() + ARRIVAL
        self._came = b""

    def request(self) -> HttpRequest:
        """Read the request. Raises MalformedError; ConnectionError when the peer ended before."""
        searched = 0
        while (end := _HEAD_END.search(self._came, max(0, searched - 3))) is None:  # 3: its end may be cut in two
            searched = len(self._came)
            if searched >= HEAD:
                raise MalformedError(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {HEAD} bytes of headers"
                )
            self._receive(HEAD - searched)
        head, self._came = self._came[: end.start()], self._came[end.end() :]
        return parse(head)

    def content(self, length: int) -> bytes:
        """Read the content, whose length the caller has limited. Raises ConnectionError likewise."""
        while len(self._came) < length:
            self._receive(length - len(self._came))
        return self._came[:length]

    def stay(self) -> None:
        """Count no more among CONNECTIONS, and be cut off by no other, for a wait that the caller limits."""
        self._stay(self)

    def answer(self, status: HTTPStatus, kind: str, content: bytes, *, head_only: bool = False) -> None:
        """Send an answer; `kind`: its Content-Type. With `head_only` the content is left out."""
        head = f"HTTP/1.1 {status} {status.phrase}\r\nServer: configstore\r\nContent-Type: {kind}\r\n"
        head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        self.send(head.encode() + (b"" if head_only else content))

    def begin(self, kind: str) -> None:
        """Begin an answer whose content ends with the connection."""
        self.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode())

    def send(self, content: bytes) -> None:
        """Send some bytes within ANSWER seconds."""
        self.connection.settimeout(ANSWER)  # for all of the bytes (`socket.sendall`)
        self.connection.sendall(content)

    def cut(self) -> None:
        """Shut the connection down from another thread; its own thread closes it."""
        with suppress(OSError):  # the peer has ended it already
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
    """The thread that accepts connections, and one thread for each of them."""

    def __init__(
        self,
        listener: socket.socket,
        serve: Callable[[Exchange, HttpRequest], None],
        *,
        name: str,
        admit: Callable[[socket.socket], bool] = lambda _: True,
    ) -> None:
        """Serve a listening socket, which is closed at the end.

        serve: answers a request; may raise MalformedError or OSError. admit: returns whether a peer is served at
        all.
        """
        self.closing = threading.Event()
        self._accepting = True
        self._listener = listener
        self._answer = serve
        self._admit = admit
        self._name = name
        self._open: dict[Exchange, None] = {}  # oldest first
        self._left = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept no more, and let the connections that stay see by `closing` that they are to end."""
        self.closing.set()
        self.stop_accepting()

    def stop_accepting(self) -> None:
        """Accept no more; open connections continue."""
        with self._left:
            self._accepting = False
            self._left.notify_all()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while self._accepting:
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
        """Give a connection a thread, after the oldest was cut off if there are CONNECTIONS."""
        with self._left:
            while len(self._open) >= CONNECTIONS and self._accepting:
                next(iter(self._open)).cut()
                self._left.wait()  # until its thread has closed it, so that limit 2 holds for descriptors as well
            self._open[exchange] = None
        try:
            threading.Thread(target=self._serve, args=(exchange,), name=self._name, daemon=True).start()
        except RuntimeError:  # no thread can be started
            self._end(exchange)

    def _serve(self, exchange: Exchange) -> None:
        try:
            try:
                self._answer(exchange, exchange.request())
            except MalformedError as error:
                exchange.answer(error.status, "text/plain; charset=utf-8", f"{error}\n".encode())
        except OSError as error:  # most often a peer that is gone
            log.debug("a connection broke off", extra={"to": self._name, "reason": str(error)})
        except Exception:  # whatever a peer sends ends this connection, not the process
            log.exception("a request could not be answered", extra={"to": self._name})
        finally:
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        with self._left:  # `cut` must not hit a later connection that got the same descriptor
            exchange.connection.close()
            self._open.pop(exchange, None)
            self._left.notify_all()

    def _leave(self, exchange: Exchange) -> None:
        with self._left:
            self._open.pop(exchange, None)
            self._left.notify_all()
