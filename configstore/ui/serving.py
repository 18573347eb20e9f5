"""Puts the page together, and serves it on loopback until it is stopped. Called by `cli.ui`."""

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
from configstore.ui.actions import Actions
from configstore.ui.admission import Admission, Secrets
from configstore.ui.events import EventStream
from configstore.ui.index import Index
from configstore.ui.monitor import Monitor
from configstore.ui.pages import Pages, with_errors

LOOPBACK = "127.0.0.1"

_CONNECTIONS = 128
"""Connections at the same time; a further one gets an error."""

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
        found.listen()  # from now on a browser that has the URL waits until the page is served
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
        """`by`: the person who uses it, named in requests to replicas. proxy: the origin of a proxy, or ""."""
        self._tree = tree
        self._socket = at
        tree.follow_contact(lambda now: self.events.publish("" if now.connected else "the store is silent"))
        self._index = Index()
        self.events = EventStream(self._contact)
        self.monitor = Monitor(
            settings, tree, self._index, notify=self.events.publish, has_viewers=lambda: self.events.size > 0
        )
        pages = Pages(tree, self._index, self.monitor, form=known.form, write=write, root=settings.root)
        actions = Actions(tree, pages, form=known.form, by=by, write=write)
        app = Starlette(
            routes=[*_routes(pages, actions), Route("/events", self.events)],
            exception_handlers={404: _not_there(pages), Exception: _broken},
        )
        self.app = Admission(app, known, port=at.getsockname()[1], proxy=proxy, write=write)
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
        """Serve until `stop`."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """End `serve`, from any thread."""
        self.monitor.close()
        self.events.close()
        self._server.should_exit = True

    def _contact(self) -> dict[str, object]:
        found = self._tree.contact()
        return {"connected": found.connected, "silent": round(found.silent), "last": found.last}


def _routes(pages: Pages, actions: Actions) -> list[Route]:
    shown: list[tuple[str, Callable[[Request], Response]]] = [
        ("/", pages.overview),
        ("/mapping/{name}", pages.mapping),
        ("/tree/", pages.tree),
        ("/tree/{path:path}", pages.tree),
        ("/path/{path:path}", pages.path),
        ("/conflicts", pages.conflicts),
        ("/leases", pages.leases),
        ("/store", pages.store),
        ("/confirm/{name}", actions.confirm),
    ]
    routes = [Route(at, with_errors(pages, page), methods=["GET"]) for at, page in shown]
    routes += [Route(f"/static/{name}", _static(name), methods=["GET"]) for name in _STATIC]
    return [*routes, Route("/do/{name}", actions.do, methods=["POST"])]


def _static(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Return a function that answers with a static file, read once: no request reaches the file system."""
    content = files("configstore.ui").joinpath("static", name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(content, media_type=_STATIC[name], headers={"cache-control": "no-cache"})

    return answer


def _not_there(pages: Pages) -> Callable[[Request, Exception], Response]:
    def answer(_: Request, __: Exception) -> Response:
        return pages.refuse(404, "there is no such page")

    return answer


def _broken(request: Request, error: Exception) -> Response:
    """Report on the terminal that a page failed, without any text that may come from a file."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    say(f"ui: {request.method} {request.scope['path']}: {type(error).__name__} at {where}")
    return PlainTextResponse("configstore: this page failed; the terminal of `configstore ui` says where\n", 500)
