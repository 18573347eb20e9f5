"""Puts the page together, and serves it on loopback until it is stopped. Called by `configstore ui`."""

import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from configstore.cli.session import say
from configstore.errors import UsageError
from configstore.settings import StoreSettings
from configstore.store.tree import Tree
from configstore.ui.acts import Acts
from configstore.ui.audience import Audience
from configstore.ui.door import Door, Secrets
from configstore.ui.index import Index
from configstore.ui.pages import Pages, guarded
from configstore.ui.watching import Watching

LOOPBACK = "127.0.0.1"

_CONNECTIONS = 128
"""Connections at once; of more, each is told so."""

_STATIC = {
    "ui.css": "text/css; charset=utf-8",
    "ui.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def listen(port: int) -> socket.socket:
    """Return a socket on loopback; port 0 for a free one. Raises UsageError."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((LOOPBACK, port))
        found.listen()  # who has the address may come: it waits until we serve
    except OSError as error:
        found.close()
        raise UsageError(f"ui: {LOOPBACK}:{port}: {error.strerror}; choose another --port, or none") from error
    return found


class Site:
    """One run of the page."""

    def __init__(
        self,
        settings: StoreSettings,
        tree: Tree,
        at: socket.socket,
        known: Secrets,
        *,
        by: str,
        write: bool = False,
        proxy: str = "",
    ) -> None:
        """`by`: who uses it, for requests to replicas. proxy: the origin of the operator's proxy, or nothing."""
        self._tree = tree
        self._socket = at
        tree.follow_contact(lambda now: self.audience.tell("" if now.connected else "the store is silent"))
        self._index = Index()
        self.audience = Audience(self._contact)
        self.watching = Watching(
            settings, tree, self._index, told=self.audience.tell, looked_at=lambda: self.audience.size > 0
        )
        pages = Pages(tree, self._index, self.watching, form=known.form, write=write, root=settings.root)
        acts = Acts(tree, pages, form=known.form, by=by, write=write)
        app = Starlette(
            routes=[*_routes(pages, acts), Route("/events", self.audience)],
            exception_handlers={404: _not_there(pages), Exception: _broken},
        )
        self.app = Door(app, known, port=at.getsockname()[1], proxy=proxy, write=write)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                http="h11",
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,  # an address may carry the token
                proxy_headers=False,
                server_header=False,
                limit_concurrency=_CONNECTIONS,
                h11_max_incomplete_event_size=16 * 1024,
                timeout_graceful_shutdown=1,
            )
        )

    def serve(self) -> None:
        """Serve until `stop`. Raises StoreError when the store cannot be read at the start."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End it, from any thread."""
        self.watching.close()
        self.audience.close()
        self._server.should_exit = True

    def _contact(self) -> dict[str, object]:
        found = self._tree.contact()
        return {"connected": found.connected, "silent": round(found.silent), "last": found.last}


def _routes(pages: Pages, acts: Acts) -> list[Route]:
    shown: list[tuple[str, Callable[[Request], Response]]] = [
        ("/", pages.overview),
        ("/mapping/{name}", pages.mapping),
        ("/tree/", pages.tree),
        ("/tree/{path:path}", pages.tree),
        ("/path/{path:path}", pages.path),
        ("/conflicts", pages.conflicts),
        ("/leases", pages.leases),
        ("/store", pages.store),
        ("/confirm/{name}", acts.confirm),
    ]
    routes = [Route(at, guarded(pages, page), methods=["GET"]) for at, page in shown]
    routes += [Route(f"/static/{name}", _static(name), methods=["GET"]) for name in _STATIC]
    return [*routes, Route("/do/{name}", acts.do, methods=["POST"])]


def _static(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Return a file of ours, read once: no request reaches the file system."""
    content = files("configstore.ui").joinpath("static", name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(content, media_type=_STATIC[name], headers={"cache-control": "no-cache"})

    return answer


def _not_there(pages: Pages) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, __: Exception) -> Response:
        return pages.refuse(404, "there is no such page")

    return answer


def _broken(request: Request, error: Exception) -> Response:
    """Say on the terminal that a page failed, without any word that may come from a file."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    say(f"ui: {request.method} {request.scope['path']}: {type(error).__name__} at {where}")
    return PlainTextResponse("configstore: this page failed; the terminal of `configstore ui` says where\n", 500)
