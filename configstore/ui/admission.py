"""Admits or rejects each request before any page sees it. Called by `serving`.

1. The Host header must name this machine's loopback or the operator's proxy. This stops DNS rebinding: the name of
   a foreign page that an attacker points to 127.0.0.1 is neither.
2. A request without the cookie must carry the token that the command printed; the answer then sets the cookie. So
   another user of this host sees nothing.
3. Only POST changes anything, and a POST must come from this page: by its Origin, by the browser's Sec-Fetch-Site,
   and by a secret in the form, which `actions` checks. This stops cross-site requests.
"""

import hmac
import secrets
from collections.abc import Iterable
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from configstore.model.endpoint import is_loopback

MAX_BODY = 64 * 1024
"""Bytes of a form; a path has 2 KiB at most."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer a browser would send `Origin: null` with this page's own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """The secrets of one run of the page; repr does not show them.

    token: in the printed URL. session: in the cookie. form: in every form that changes something.
    """

    token: str
    session: str
    form: str

    def __repr__(self) -> str:
        """Return a text without the secrets."""
        return "Secrets(***)"


def new_secrets(token: str | None = None) -> Secrets:
    """Return new random secrets; token: the operator's own, instead of a random one."""
    return Secrets(
        token=token or secrets.token_urlsafe(32), session=secrets.token_urlsafe(32), form=secrets.token_urlsafe(32)
    )


class RejectedRequest(msgspec.Struct, frozen=True):
    """Why a request is rejected: the HTTP status, and the text of the answer."""

    status: int
    reason: str


class Admission:
    """The ASGI application around the pages, which checks each request first."""

    def __init__(self, pages: ASGIApp, known: Secrets, *, port: int, proxy: str = "", write: bool = False) -> None:
        """`proxy`: the origin at which the operator's proxy serves this page, such as https://store.example.org."""
        self._pages = pages
        self._known = known
        self._cookie = f"configstore-ui-{port}"
        self._proxy = urlsplit(proxy)
        self._proxy_origin = proxy
        self._write = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the pages, or reject it."""
        if scope["type"] != "http":
            return
        headers = Headers(scope["headers"])
        refusal = self._reject(scope, headers)
        if refusal:
            await _send_rejection(send, refusal)
            return
        fresh = self._new_cookie(headers.only("host") or "") if self._brings_token(scope) else ""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = dict(_HEADERS) | ({"set-cookie": fresh} if fresh else {})
                message = {**message, "headers": [*message.get("headers", ()), *_encoded(added)]}
            await send(message)

        await self._pages(scope, receive, with_headers)

    def _reject(self, scope: Scope, headers: "Headers") -> RejectedRequest | None:
        host = headers.only("host")
        if host is None or not self._is_own_host(host):
            return RejectedRequest(421, "this page answers to 127.0.0.1, localhost, and its --proxy-origin alone")
        if scope["method"] not in {"GET", "HEAD", "POST"}:
            return RejectedRequest(405, "only GET and POST are understood here")
        if not (self._brings_token(scope) or self._has_cookie(headers)):
            return RejectedRequest(
                401, "open the whole address that `configstore ui` printed: its token lets you in"
            )
        if scope["method"] == "POST":
            return self._refuse_change(headers, host)
        site, mode = headers.only("sec-fetch-site"), headers.only("sec-fetch-mode")
        if site in {"cross-site", "same-site"} and mode != "navigate":
            return RejectedRequest(403, "another site asks for this")
        return None

    def _refuse_change(self, headers: "Headers", host: str) -> RejectedRequest | None:
        if not self._write:
            return RejectedRequest(403, "this page only reads: `configstore ui --write` may change something")
        origin = headers.only("origin")
        if len(headers.all("origin")) > 1 or (origin is not None and origin not in self._origins(host)):
            return RejectedRequest(403, "this was sent from a page of another origin; nothing was changed")
        if headers.only("sec-fetch-site") not in {None, "same-origin"}:
            return RejectedRequest(403, "this was sent from another site; nothing was changed")
        if (headers.only("content-type") or "").partition(";")[0] != "application/x-www-form-urlencoded":
            return RejectedRequest(415, "a form is expected")
        length = headers.only("content-length") or ""
        endless = bool(headers.all("transfer-encoding"))  # it would override the length
        if endless or not length.isascii() or not length.isdigit() or int(length[:9]) > MAX_BODY:
            return RejectedRequest(413, f"a form of at most {MAX_BODY} bytes, with its length, is expected")
        return None

    def _is_own_host(self, host: str) -> bool:
        """Return whether a Host header names loopback, at any port (a tunnel has its own), or the proxy."""
        if self._proxy_origin and host == self._proxy.netloc:
            return True
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        return parts.username is None and not parts.path and not parts.query and is_loopback(name)

    def _origins(self, host: str) -> tuple[str, ...]:
        return (self._proxy_origin,) if self._proxy_origin and host == self._proxy.netloc else (f"http://{host}",)

    def _brings_token(self, scope: Scope) -> bool:
        if scope["method"] not in {"GET", "HEAD"}:
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return len(given) == 1 and _equal(given[0], self._known.token)

    def _has_cookie(self, headers: "Headers") -> bool:
        # Browsers send cookies of all ports of this host, in any form: none of them must hide this page's.
        parts = (part.strip().partition("=") for line in headers.all("cookie") for part in line.split(";"))
        return any(name == self._cookie and _equal(value, self._known.session) for name, _, value in parts)

    def _new_cookie(self, host: str) -> str:
        """Return the cookie; `Secure` when the proxy is reached by https."""
        secure = "; Secure" if self._proxy.scheme == "https" and host == self._proxy.netloc else ""
        return f"{self._cookie}={self._known.session}; Path=/; HttpOnly; SameSite=Strict{secure}"


class Headers:
    """A request's headers."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]

    def all(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for key, value in self._raw if key == name]

    def only(self, name: str) -> str | None:
        """Return the value of a header that may occur once; None when it is missing or occurs twice."""
        found = self.all(name)
        return found[0] if len(found) == 1 else None


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _send_rejection(send: Send, refusal: RejectedRequest) -> None:
    headers = dict(_HEADERS) | {"content-type": "text/plain; charset=utf-8", "connection": "close"}
    start = {"type": "http.response.start", "status": refusal.status, "headers": _encoded(headers)}
    await send(start)
    await send({"type": "http.response.body", "body": f"configstore: {refusal.reason}\n".encode()})
