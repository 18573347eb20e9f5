"""How the store is reached: defaults, then `ETCDCTL_*`, a TOML table, `CONFIGSTORE_*` and options, the last wins.

Called by the command line and by `sidecar.config`. A layer is a dict of raw values by key; every layer goes
through the same table of parsers, so that an error always names its file, variable or option, the key, and what
was expected. No message ever quotes a secret.
"""

import difflib
import ipaddress
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from configstore.errors import UsageError
from configstore.model.keys import DEFAULT_ROOT, Keys
from configstore.model.path import printable
from configstore.model.seal import Policy

DEFAULT_ENDPOINT = "http://127.0.0.1:2379"

Parser = Callable[[object], Any]
"""Turns a raw value (of TOML, or text) into the wanted one; raises ValueError saying what was expected."""

Label = Callable[[str], str]
"""Names a key of one layer for an error message, such as `file.toml: store.root` or `CONFIGSTORE_ROOT`."""


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach etcd, checked.

    endpoints: URLs, tried in turn. root: the key below which everything lies.
    cacert, cert, key: paths of PEM files. server_name: the name expected in the server's certificate.
    password: never shown by repr. password_file: where it was read from.
    timeout: seconds for which one call may take, retries and failover included.
    """

    endpoints: tuple[str, ...] = (DEFAULT_ENDPOINT,)
    root: str = DEFAULT_ROOT
    cacert: str | None = None
    cert: str | None = None
    key: str | None = None
    user: str | None = None
    password: str | None = None
    password_file: str | None = None
    server_name: str | None = None
    timeout: float = 10.0

    def __repr__(self) -> str:
        """Show everything but the password."""
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name != "password"}
        fields = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"StoreSettings({fields}, password={'None' if self.password is None else '***'})"

    __str__ = __repr__

    @property
    def tls(self) -> bool:
        """Whether any endpoint is reached over TLS."""
        return any(endpoint.startswith("https://") for endpoint in self.endpoints)


class SealSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a command seals and opens.

    keyring: path of its file, None for none. policy: of what it reads and writes.
    """

    keyring: str | None = None
    policy: Policy = Policy.OFF


_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_MAX_DURATION = 36500 * 86400.0


def parse_duration(value: object) -> float:
    """Return seconds, for `"250ms"`, `"2s"`, `"5m"`, `"1h"`, `"30d"` or a number of seconds.

    Raises ValueError for anything else, negative, or above a hundred years.
    """
    seconds = math.nan
    if isinstance(value, str):
        if match := _DURATION.fullmatch(value.strip()):
            seconds = float(match[1]) * _UNITS[match[2]]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) <= _MAX_DURATION else math.inf
    if not 0 <= seconds <= _MAX_DURATION:
        raise ValueError('expected a duration such as "250ms", "2s", "5m", "30d", or a number of seconds')
    return seconds


def parse_text(value: object) -> str:
    """Return a non-empty text without NUL. Raises ValueError."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("expected a text")
    return value


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def parse_name(value: object) -> str:
    """Return the name of a mapping, a lease or a replica: it may stand in a key, a variable and a log line.

    Raises ValueError.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("expected a name of letters, digits, '.', '_' and '-', at most 63, the first no sign")
    return value


def set_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are set: an empty one is as good as none, as manifests leave it behind."""
    return {name: value for name, value in environ.items() if value}


def _endpoints(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    expected = f'expected URLs such as "{DEFAULT_ENDPOINT}"'
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(expected)
    found = tuple(_plain(part) for part in parts if part.strip())
    if not found:
        raise ValueError(expected)
    for url in found:
        _check_endpoint(url, expected)
    return tuple(dict.fromkeys(found))


def _plain(url: str) -> str:
    """Return a URL with its scheme in small letters, and without what may stand around it."""
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


def _root(value: object) -> str:
    try:
        return Keys(parse_text(value)).root
    except ValueError:
        raise ValueError(f'expected a key such as "{DEFAULT_ROOT}": a leading "/", none at the end') from None


def _timeout(value: object) -> float:
    seconds = parse_duration(value)
    if seconds <= 0:
        raise ValueError("expected a duration above 0")
    return seconds


def _user(value: object) -> str:
    name = parse_text(value)
    if ":" in name:
        raise ValueError("expected a user name alone; the password comes from a file or CONFIGSTORE_PASSWORD")
    return name


STORE_PARSERS: dict[str, Parser] = {
    "endpoints": _endpoints,
    "root": _root,
    "cacert": parse_text,
    "cert": parse_text,
    "key": parse_text,
    "user": _user,
    "password": parse_text,
    "password_file": parse_text,
    "server_name": parse_text,
    "timeout": _timeout,
}
"""Every key of the `[store]` table. `CONFIGSTORE_<KEY>` is its variable, `--<key>` its option."""


def parse_policy(value: object) -> Policy:
    """Return what is done about sealing. Raises ValueError."""
    try:
        return Policy(str(value))
    except ValueError:
        raise ValueError(f"expected one of {', '.join(Policy)}") from None


SEAL_PARSERS: dict[str, Parser] = {"seal_keyring": parse_text, "seal": parse_policy}
"""Of the `[seal]` table, `keyring` and `policy`, by the names of their variables and options."""

SEAL_VARIABLES = {f"CONFIGSTORE_{key.upper()}": key for key in SEAL_PARSERS}

STORE_VARIABLES = {f"CONFIGSTORE_{key.upper()}": key for key in STORE_PARSERS}


def parse_layer(raw: Mapping[str, object], parsers: Mapping[str, Parser], label: Label) -> dict[str, Any]:
    """Parse one layer's values. Raises UsageError for an unknown key (naming the nearest) or a bad value."""
    parsed = {}
    for key, value in raw.items():
        if key not in parsers:
            raise UsageError(f"{label(printable(key))}: unknown key; {nearest(key, parsers)}")
        try:
            parsed[key] = parsers[key](value)
        except ValueError as error:
            raise UsageError(f"{label(key)}: {error}") from None
    return parsed


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known name that `name` was probably meant to be, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"


def read_toml(path: str) -> dict[str, Any]:
    """Read a settings file. Raises UsageError naming it when it cannot be read or is no TOML."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{printable(path)}: {error.strerror}") from None
    except RecursionError:
        raise UsageError(f"{printable(path)}: not a TOML file: nested too deep") from None
    except ValueError as error:
        raise UsageError(f"{printable(path)}: not a TOML file: {error}") from None


def read_secret(path: str, label: str) -> str:
    """Read a secret's file, without the line end behind it. Raises UsageError naming `label` and the file."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(65536).rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{label}: {printable(path)}: {reason}") from None
    if not text or "\0" in text:
        raise UsageError(f"{label}: {printable(path)}: expected a file with one secret in it")
    return text


def load_store(
    *,
    environ: Mapping[str, str],
    table: Mapping[str, object] | None = None,
    source: str = "",
    options: Mapping[str, object] | None = None,
) -> StoreSettings:
    """Merge all layers. `table` is the `[store]` table of the file `source`; `options` come keyed as the table.

    An empty variable and an option of None count as not set. Raises UsageError.
    """
    environ = set_variables(environ)
    variables = {key: environ[name] for name, key in STORE_VARIABLES.items() if name in environ}
    given = {key: value for key, value in (options or {}).items() if value is not None}
    merged: dict[str, Any] = {}
    layers: tuple[tuple[Mapping[str, object], Label], ...] = (
        (table or {}, lambda key: f"{source}: store.{key}"),
        (variables, lambda key: f"CONFIGSTORE_{key.upper()}"),
        (given, lambda key: f"--{key.replace('_', '-')}"),
    )
    for raw, label in layers:
        layer = parse_layer(raw, STORE_PARSERS, label)
        if "password" in layer and "password_file" in layer:
            raise UsageError(f"{label('password')}: set this or {label('password_file')}, not both")
        if "password" in layer:
            merged.pop("password_file", None)
        if "password_file" in layer:
            layer["password"] = read_secret(layer["password_file"], label("password_file"))
        merged |= layer
    _add_etcdctl(merged, environ)
    _check_together(merged)
    return StoreSettings(**merged)


def load_seal(*, environ: Mapping[str, str], options: Mapping[str, object]) -> SealSettings:
    """Merge a command's variables and options about sealing. Raises UsageError."""
    environ = set_variables(environ)
    variables = {key: environ[name] for name, key in SEAL_VARIABLES.items() if name in environ}
    given = {key: value for key, value in options.items() if key in SEAL_PARSERS and value is not None}
    merged = parse_layer(variables, SEAL_PARSERS, lambda key: f"CONFIGSTORE_{key.upper()}")
    merged |= parse_layer(given, SEAL_PARSERS, lambda key: f"--{key.replace('_', '-')}")
    keyring = merged.get("seal_keyring")
    return SealSettings(keyring=keyring, policy=checked_policy(merged.get("seal"), keyring, "seal"))


def checked_policy(policy: Policy | None, keyring: str | None, what: str) -> Policy:
    """Return a policy, or the default one. Raises UsageError, beginning with `what`, for one without a keyring."""
    if policy is None:
        return Policy.REQUIRED if keyring else Policy.OFF
    if policy is not Policy.OFF and not keyring:
        raise UsageError(f"{what}: {policy} needs a keyring: set CONFIGSTORE_SEAL_KEYRING, too")
    return policy


def endpoints_are_set(environ: Mapping[str, str], options: Mapping[str, object]) -> bool:
    """Tell whether options or variables name an endpoint; else it is the default's turn."""
    names = ("CONFIGSTORE_ENDPOINTS", "ETCDCTL_ENDPOINTS")
    return bool(options.get("endpoints") or any(environ.get(name) for name in names))


def _add_etcdctl(merged: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Take etcdctl's own variables for what is still missing, as etcdctl reads them."""
    values = {}
    for key in ("endpoints", "cacert", "cert", "key", "user", "password"):
        name = f"ETCDCTL_{key.upper()}"
        if name in environ:
            values[key] = environ[name]
        elif key in {"user", "password"} and f"{name}_FILE" in environ:
            values[key] = read_secret(environ[f"{name}_FILE"], f"{name}_FILE")
    if "endpoints" in values:  # etcdctl takes them without a scheme, too
        scheme = "https" if {"cacert", "cert"} & values.keys() else "http"
        parts = [part.strip() for part in values["endpoints"].split(",") if part.strip()]
        values["endpoints"] = ",".join(part if "://" in part else f"{scheme}://{part}" for part in parts)
    user, _, password = values.get("user", "").partition(":")
    if user:
        values["user"] = user
        if password and "user" not in merged:
            values.setdefault("password", password)
    missing = {key: value for key, value in values.items() if key not in merged}
    if "user" not in merged and "user" not in missing:
        missing.pop("password", None)
    if "cert" in merged or "key" in merged:
        missing = {key: value for key, value in missing.items() if key not in {"cert", "key"}}
    layer = parse_layer(missing, STORE_PARSERS, lambda key: f"ETCDCTL_{key.upper()}")
    endpoints = layer.get("endpoints") or merged.get("endpoints") or (DEFAULT_ENDPOINT,)
    if not any(url.startswith("https://") for url in endpoints):
        layer = {key: value for key, value in layer.items() if key not in {"cacert", "cert", "key"}}
    merged |= layer


def _check_together(merged: Mapping[str, Any]) -> None:
    endpoints = merged.get("endpoints", (DEFAULT_ENDPOINT,))
    plain = [url for url in endpoints if url.startswith("http://")]
    for key in ("cacert", "cert", "key"):
        if key in merged and plain:
            raise UsageError(f"{key} is set, but endpoint {plain[0]} is not TLS: expected https://")
    for one, other in (("cert", "key"), ("key", "cert"), ("user", "password"), ("password", "user")):
        if one in merged and other not in merged:
            raise UsageError(f"{one} is set without {other}: set CONFIGSTORE_{other.upper()}, too")
    # Any endpoint may be the one that gets the password.
    if "password" in merged and plain and not (plain == [*endpoints] and all(map(_is_loopback, plain))):
        raise UsageError(
            f"a password is set, but endpoint {plain[0]} is not TLS: expected https:// for all endpoints; plain"
            " http is for this machine alone"
        )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_PREFIX = "CONFIGSTORE_"
# What Kubernetes puts into every container for a Service called `configstore` or `configstore-…`.
_KUBERNETES = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_.+)?$|_PORT$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?$")


def unknown_variables(
    environ: Mapping[str, str], known: Iterable[str], prefixes: tuple[str, ...] = ()
) -> list[str]:
    """Return the CONFIGSTORE_* names that are set and that nobody reads; Kubernetes' own are left out."""
    names = set(known) | STORE_VARIABLES.keys() | SEAL_VARIABLES.keys()
    return sorted(
        name
        for name in set_variables(environ)
        if name.startswith(_PREFIX)
        and name not in names
        and not name.startswith(prefixes)
        and not _KUBERNETES.search(name)
    )


def check_variables(environ: Mapping[str, str], known: Iterable[str], prefixes: tuple[str, ...] = ()) -> None:
    """Refuse a misspelt CONFIGSTORE_* variable. Raises UsageError naming it and the nearest known one."""
    names = {*known, *STORE_VARIABLES}
    for name in unknown_variables(environ, names, prefixes):
        close = nearest_variable(name, names, cutoff=0.6)
        hint = f"did you mean {close}?" if close else f"known are {', '.join(sorted(names))}"
        raise UsageError(f"{printable(name)}: unknown variable; {hint}")


def nearest_variable(name: str, known: Iterable[str], *, cutoff: float) -> str | None:
    """Return the known variable most like `name`, if one is at least so alike (1.0 is equal)."""
    suffixes = [variable.removeprefix(_PREFIX) for variable in known]
    close = difflib.get_close_matches(name.removeprefix(_PREFIX), suffixes, n=1, cutoff=cutoff)
    return f"{_PREFIX}{close[0]}" if close else None
