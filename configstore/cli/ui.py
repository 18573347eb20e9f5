"""`ui`: the status page, for a browser on this host."""

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from urllib.parse import urlsplit

from configstore.cli.arguments import Commands, add_command, flag, option, port, store_settings
from configstore.cli.render import write_text
from configstore.cli.session import asker, open_tree, say
from configstore.cli.stopping import Stopping
from configstore.errors import UsageError
from configstore.settings import read_secret

SHORTEST_TOKEN = 32
"""Characters of the shortest token: 32 hexadecimal digits are 128 bits."""


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = add_command(commands, "ui", _ui, "serve the status page on this host until stopped", as_json=False)
    option(parser, "--port N", "port on 127.0.0.1 (default: a free one)", type=port(0), default=0)
    flag(parser, "--no-browser", "open no browser, only print the address")
    flag(parser, "--write", "let the page restore, resolve, resume and break leases, each after a confirmation")
    option(parser, "--proxy-origin URL", "origin at which your proxy serves the page", type=_origin)
    option(parser, "--token-file FILE", "take the token from this file, so that the address stays the same")


def _origin(text: str) -> str:
    try:
        parts = urlsplit(text)
        well = (
            parts.scheme in {"http", "https"}
            and parts.netloc
            and not (parts.path or parts.query or parts.fragment)
        )
    except ValueError:
        well = False
    if not well or "@" in text:
        raise argparse.ArgumentTypeError("expected an origin such as https://configstore.example.org")
    return text.lower()


def _ui(args: argparse.Namespace) -> int:
    try:
        from configstore.ui.admission import new_secrets  # noqa: PLC0415 - only this command needs these
        from configstore.ui.serving import Site, listen  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"anyio", "jinja2", "markupsafe", "starlette", "uvicorn"}:
            raise
        raise UsageError(
            f"ui: {error.name} is not installed: `pip install 'mailu-configstore[ui]'` brings what the page needs"
        ) from None
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    logging.getLogger("uvicorn").propagate = False
    known = new_secrets(_token(args.token_file))
    with Stopping() as stopping, open_tree(args) as tree, listen(args.port) as at:
        site = Site(
            store_settings(args), tree, at, known, by=asker(args), write=args.write, proxy=args.proxy_origin or ""
        )
        site.monitor.start()
        origin = args.proxy_origin or f"http://127.0.0.1:{at.getsockname()[1]}"
        url = f"{origin}/?token={known.token}"
        write_text(url)
        sys.stdout.flush()
        say("the page may change the store; stop it with Ctrl-C" if args.write else "stop it with Ctrl-C")
        with _browser(url) if not args.no_browser else contextlib.nullcontext():
            stopping.run(site.serve, site.stop)
    return 0


def _token(path: str | None) -> str | None:
    if path is None:
        return None
    token = read_secret(path, "--token-file")
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.replace("-", "").replace("_", "").isalnum():
        raise UsageError(
            f"--token-file: expected at least {SHORTEST_TOKEN} letters or digits, as of `openssl rand -hex 32`"
        )
    return token


@contextlib.contextmanager
def _browser(url: str) -> Iterator[None]:
    """Open a browser where there is a display.

    The browser gets a private file that leads to the address, not the address with its token: every user of the
    host can read its arguments.
    """
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"):
        yield
        return
    import webbrowser  # noqa: PLC0415 - only needed here

    with tempfile.TemporaryDirectory(prefix="configstore-ui-", dir=os.environ.get("XDG_RUNTIME_DIR")) as folder:
        name = os.path.join(folder, "open.html")
        with open(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0;url={url}">\n')
        webbrowser.open(f"file://{name}")
        yield
