"""The browsers that listen for news: server-sent events, for a bounded number of clients, none of them waited for.

A client holds no queue: it is told that there is news, and reads the page again. Whoever takes nothing for
PATIENCE seconds is dropped, and connects again by itself.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

PLACES = 32
"""Browsers' pages that may listen at once."""

PATIENCE = 10.0
"""Seconds for which one may take nothing of what it is sent."""

BEAT = 5.0
"""Seconds between two signs of life, by which a page knows that what it shows is still followed."""

GATHERING = 0.15
"""Seconds for which further news wait for those that follow, so that a burst makes one."""


NAMED = 5
"""News that are named in one event."""


class Client:
    """One page that listens; `words`: some of what it has not been told yet."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.words: list[str] = []

    def hear(self, words: str) -> None:
        """Take news; of many, the first are named."""
        if words and words not in self.words and len(self.words) < NAMED:
            self.words.append(words)
        self.news.set()

    def told(self) -> str:
        """Return what is to be told, once."""
        words, self.words = "; ".join(self.words), []
        self.news.clear()
        return words


class Audience:
    """All who listen. `tell` may be called by any thread, the rest by the server's."""

    def __init__(self, contact: Callable[[], dict[str, object]]) -> None:
        """`contact` returns what is sent with every event: how the store is reached."""
        self._contact = contact
        self._clients: set[Client] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """How many listen."""
        return len(self._clients)

    def tell(self, words: str) -> None:
        """Tell all who listen that something changed."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                loop.call_soon_threadsafe(self._spread, words)

    def close(self) -> None:
        """Let all who listen go; from any thread."""
        self._closed = True
        self.tell("")

    def _spread(self, words: str) -> None:
        for each in self._clients:
            each.hear(words)

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until it goes, or takes nothing any more."""
        self._loop = asyncio.get_running_loop()
        if len(self._clients) >= PLACES or self._closed:
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
            news = asyncio.ensure_future(client.news.wait())
            waiting: set[asyncio.Future[Any]] = {gone, news}
            await asyncio.wait(waiting, timeout=BEAT, return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            if gone.done():
                return
            if not client.news.is_set():
                await _send(send, self._event("beat", ""))
                continue
            await asyncio.sleep(GATHERING)
            if not self._closed:
                await _send(send, self._event("changed", client.told()))
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
    words = f"{PLACES} pages listen already; close one, or reload this one by hand\n".encode()
    await send({"type": "http.response.body", "body": words})


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    """Send a piece. Raises TimeoutError when it is not taken."""
    message: Message = {"type": "http.response.body", "body": body, "more_body": more}
    await asyncio.wait_for(send(message), PATIENCE)
