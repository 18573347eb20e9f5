"""The client URLs of etcd: how they are read, and which are of this host. Called by `configstore.settings`."""

import ipaddress
from urllib.parse import urlsplit

from configstore.model.path import printable

DEFAULT_ENDPOINT = "http://127.0.0.1:2379"


def parse_endpoints(value: object) -> tuple[str, ...]:
    """Return client URLs of etcd, each once; one text has them with commas between. Raises ValueError."""
    parts = value.split(",") if isinstance(value, str) else value
    expected = f'expected URLs such as "{DEFAULT_ENDPOINT}"'
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(expected)
    found = tuple(_normalised(part) for part in parts if part.strip())
    if not found:
        raise ValueError(expected)
    for url in found:
        _check_endpoint(url, expected)
    return tuple(dict.fromkeys(found))


def _normalised(url: str) -> str:
    """Return a URL with its scheme in small letters, without spaces around it and a slash at its end."""
    scheme, separator, rest = url.strip().rstrip("/").partition("://")
    return f"{scheme.lower()}{separator}{rest}" if separator else scheme


def _check_endpoint(url: str, expected: str) -> None:
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise ValueError(expected) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{expected}; user and password have settings of their own")
    if (
        parts.scheme not in {"http", "https"}
        or not host
        or not port
        or parts.path
        or parts.query
        or parts.fragment
    ):
        raise ValueError(f"{expected}, not {printable(url)!r}")


def is_loopback(url: str) -> bool:
    """Return whether a URL is of this host itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
