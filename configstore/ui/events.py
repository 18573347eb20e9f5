"""Server-sent events that say that a page is out of date, for a bounded number of browsers.

A client has no queue: an event says that something changed, and the browser reads the page again. A client that
takes nothing for SEND_TIMEOUT seconds is dropped, and connects again by itself; it delays no other client.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

MAX_CLIENTS = 32
"""Pages that may listen at the same time."""

SEND_TIMEOUT = 10.0
"""Seconds for which a client may take nothing."""

HEARTBEAT = 5.0
"""Seconds between two events without news, by which a page knows that the store is still followed."""

BATCH_TIME = 0.15
"""Seconds for which a change waits for further ones, so that many changes make one event."""

NAMED = 5
"""Changes that are named in one event."""


class Client:
    """One page that listens. words: some of the changes that were not sent yet."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.words: list[str] = []

    def add(self, words: str) -> None:
        """Note a change; of many, only the first NAMED are kept."""
        if words and words not in self.words and len(self.words) < NAMED:
            self.words.append(words)
        self.changed.set()

    def take(self) -> str:
        """Return the noted changes as one text, and forget them."""
        words, self.words = "; ".join(self.words), []
        self.changed.clear()
        return words


class EventStream:
    """All listening pages: an ASGI application. Any thread may call `publish` and `close`."""

    def __init__(self, contact: Callable[[], dict[str, object]]) -> None:
        """`contact` returns what is sent with every event: whether the store answers, and since when."""
        self._contact = contact
        self._clients: set[Client] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """How many pages listen."""
        return len(self._clients)

    def publish(self, words: str) -> None:
        """Send an event to all pages: something changed. words: what, for a person, or ""."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._spread, words)

    def close(self) -> None:
        """End all connections."""
        self._closed = True
        self.publish("")

    def _spread(self, words: str) -> None:
        for each in self._clients:
            each.add(words)

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until it disconnects, or takes nothing any more."""
        self._loop = asyncio.get_running_loop()
        if len(self._clients) >= MAX_CLIENTS or self._closed:
            await _refuse(send)
            return
        client = Client()
        self._clients.add(client)
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await _start(send)
            await self._serve(client, gone, send)
        except TimeoutError:
            return  # without the end of the answer: the server cuts the connection
        finally:
            self._clients.discard(client)
            gone.cancel()

    async def _serve(self, client: Client, gone: "asyncio.Future[None]", send: Send) -> None:
        await _send(send, self._event("hello", ""))
        while not self._closed:
            news = asyncio.ensure_future(client.changed.wait())
            waiting: set[asyncio.Future[Any]] = {gone, news}
            await asyncio.wait(waiting, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            if gone.done():
                return
            if not client.changed.is_set():
                await _send(send, self._event("beat", ""))
                continue
            await asyncio.sleep(BATCH_TIME)
            if not self._closed:
                await _send(send, self._event("changed", client.take()))
        await _send(send, b"", more=False)

    def _event(self, kind: str, words: str) -> bytes:
        told = json.dumps({"words": words, **self._contact()})
        return f"event: {kind}\ndata: {told}\n\n".encode()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"10")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    words = f"{MAX_CLIENTS} pages listen already; close one, or reload this one by hand\n".encode()
    await send({"type": "http.response.body", "body": words})


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    """Send a part of the answer. Raises TimeoutError when the client does not take it."""
    message: Message = {"type": "http.response.body", "body": body, "more_body": more}
    await asyncio.wait_for(send(message), SEND_TIMEOUT)
