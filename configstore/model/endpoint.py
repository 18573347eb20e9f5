"""An address at which a member of etcd listens, as a setting has it."""

import ipaddress
from urllib.parse import urlsplit

import msgspec

from configstore.model.path import printable

DEFAULT_ENDPOINT = "http://127.0.0.1:2379"


class EndpointAddress(msgspec.Struct, frozen=True):
    """The address of one member; `str()` gives its URL. host: a name or an address, in brackets for IPv6."""

    secure: bool
    host: str
    port: int

    @property
    def hostname(self) -> str:
        """The host as a socket and a certificate have it: a name in small letters, an address without brackets."""
        return urlsplit(f"//{self.host}").hostname or ""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect to it."""
        return is_loopback(self.hostname)

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address (without brackets) is this machine's loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def parse_endpoint(text: str) -> EndpointAddress:
    """Return the address in `http://HOST:PORT` or `https://HOST:PORT`; the scheme may be in any case.

    Raises ValueError with a text that continues "expected a URL" and quotes no password.
    """
    url = text.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("; user and password have settings of their own")
    wrong = parts.scheme not in {"http", "https"} or not parts.hostname or not port
    if wrong or port is None or parts.path or parts.query or parts.fragment:
        raise ValueError(f", not {printable(url)!r}")
    return EndpointAddress(parts.scheme == "https", parts.netloc.rpartition(":")[0], port)


def parse_endpoints(value: object) -> tuple[str, ...]:
    """Return the URLs of members, each once; one text has them with commas between. Raises ValueError."""
    parts = value.split(",") if isinstance(value, str) else value
    expected = f'expected URLs such as "{DEFAULT_ENDPOINT}"'
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(expected)
    try:
        found = [str(parse_endpoint(part)) for part in parts if part.strip()]
    except ValueError as error:
        raise ValueError(f"{expected}{error}") from None
    if not found:
        raise ValueError(expected)
    return tuple(dict.fromkeys(found))
