"""How the store is reached: defaults, then `ETCDCTL_*`, a TOML table, `CONFIGSTORE_*` and options, the last wins.

Called by the command line and by `sidecar.config`. A layer is a dict of raw values by key. Every layer is read
with the same parsers, so that an error always names its file, variable or option, the key, and what was expected.
No message quotes a secret.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from configstore.errors import UsageError
from configstore.model.endpoint import DEFAULT_ENDPOINT, parse_endpoint, parse_endpoints
from configstore.model.keys import DEFAULT_ROOT, Keys
from configstore.model.path import printable
from configstore.model.seal import Policy
from configstore.parsing import (
    Label,
    Parser,
    annotations_of,
    below,
    one_of,
    parse_duration,
    parse_layer,
    parse_text,
    parsers_of,
)

DEFAULT_SOCKET = "/run/configstore/control.sock"
"""The sidecar's control socket unless `CONFIGSTORE_CONTROL_SOCKET` names another."""

DEFAULT_STATE = "/var/lib/configstore"
"""The sidecar's state directory unless `CONFIGSTORE_STATE` names another."""

RETENTION = 30 * 86400.0
"""Seconds for which superseded records are kept unless a mapping says otherwise; those of commands always are."""

MAX_DELETE = 0.5
"""The share of a subtree's paths that one deletion may take unless a mapping says otherwise."""


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


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How etcd is reached, checked: each key of the `[store]` table with its type and default.

    The annotations of a key are its parser, and the metavar and the help of its option, where it has one.

    endpoints: URLs, tried in turn. root: the key below which all keys of the store lie.
    cacert, cert, key: paths of PEM files. server_name: the name expected in the server's certificate.
    password: never shown by repr. password_file: where it was read from.
    timeout: seconds that one call may take, retries and failover included.
    """

    endpoints: Annotated[
        tuple[str, ...],
        parse_endpoints,
        "URL[,URL…]",
        f"client URLs of etcd, tried in turn (default: {DEFAULT_ENDPOINT})",
    ] = (DEFAULT_ENDPOINT,)
    root: Annotated[str, _root, "KEY", f"root key of the store (default: {DEFAULT_ROOT})"] = DEFAULT_ROOT
    cacert: Annotated[str | None, parse_text, "FILE", "CA certificates that signed etcd's, PEM"] = None
    cert: Annotated[str | None, parse_text, "FILE", "client certificate, PEM"] = None
    key: Annotated[str | None, parse_text, "FILE", "key of the client certificate, PEM"] = None
    user: Annotated[str | None, _user, "NAME", "user of etcd, without the password"] = None
    password: Annotated[str | None, parse_text] = None
    password_file: Annotated[str | None, parse_text, "FILE", "file with the user's password"] = None
    server_name: Annotated[str | None, parse_text, "NAME", "name that etcd's certificate must carry"] = None
    timeout: Annotated[float, _timeout, "DURATION", "time for one call (default: 10s)"] = 10.0

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
    """How a command seals what it writes and opens what it reads.

    keyring: path of the keyring's file, None for none. policy: what is sealed, and what is accepted when read.
    """

    keyring: str | None = None
    policy: Policy = Policy.OFF


STORE_PARSERS = parsers_of(StoreSettings)
"""The parser of every key of the `[store]` table. `CONFIGSTORE_<KEY>` is its variable."""

STORE_OPTIONS = {key: (each[1], each[2]) for key, each in annotations_of(StoreSettings).items() if len(each) > 1}
"""The metavar and the help of each key that is also an option, `--<key>`."""

SEAL_PARSERS: dict[str, Parser] = {"seal_keyring": parse_text, "seal": one_of(Policy)}
"""The keys `keyring` and `policy` of the `[seal]` table, by the names of their variables and options."""

_PREFIX = "CONFIGSTORE_"


def as_variable(key: str) -> str:
    """Return the environment variable of a setting."""
    return f"{_PREFIX}{key.upper()}"


def as_option(key: str) -> str:
    """Return the option of a setting."""
    return f"--{key.replace('_', '-')}"


STORE_VARIABLES = tuple(map(as_variable, STORE_PARSERS))


def set_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are set. An empty one counts as not set, since manifests leave such behind."""
    return {name: value for name, value in environ.items() if value}


def from_variables(environ: Mapping[str, str], keys: Iterable[str]) -> dict[str, object]:
    """Return the raw values of those settings whose variables are set, by key."""
    return {key: environ[as_variable(key)] for key in keys if environ.get(as_variable(key))}


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
    """Return the settings merged from all layers.

    table: the `[store]` table of the file `source`. options: by the same keys. An empty variable and an option of
    None count as not set. Raises UsageError.
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    merged: dict[str, Any] = {}
    layers: tuple[tuple[Mapping[str, object], Label], ...] = (
        (table or {}, below(f"{source}: store.")),
        (from_variables(environ, STORE_PARSERS), as_variable),
        (given, as_option),
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
    _add_etcdctl(merged, set_variables(environ))
    _check_together(merged)
    return StoreSettings(**merged)


def load_seal(*, environ: Mapping[str, str], options: Mapping[str, object]) -> SealSettings:
    """Return the settings merged from a command's variables and options about sealing. Raises UsageError."""
    given = {key: value for key, value in options.items() if key in SEAL_PARSERS and value is not None}
    merged = parse_layer(from_variables(environ, SEAL_PARSERS), SEAL_PARSERS, as_variable)
    merged |= parse_layer(given, SEAL_PARSERS, as_option)
    keyring = merged.get("seal_keyring")
    return SealSettings(keyring=keyring, policy=checked_policy(merged.get("seal"), keyring, "seal"))


def checked_policy(policy: Policy | None, keyring: str | None, what: str) -> Policy:
    """Return the policy, or the default for None: required with a keyring, else off.

    Raises UsageError, beginning with `what`, for a policy that needs a keyring where there is none.
    """
    if policy is None:
        return Policy.REQUIRED if keyring else Policy.OFF
    if policy is not Policy.OFF and not keyring:
        raise UsageError(f"{what}: {policy} needs a keyring: set CONFIGSTORE_SEAL_KEYRING, too")
    return policy


def endpoints_are_set(environ: Mapping[str, str], options: Mapping[str, object]) -> bool:
    """Return whether options or variables name an endpoint, so that the default is not used."""
    names = ("CONFIGSTORE_ENDPOINTS", "ETCDCTL_ENDPOINTS")
    return bool(options.get("endpoints") or any(environ.get(name) for name in names))


def _add_etcdctl(merged: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Add etcdctl's own variables, read as etcdctl reads them, for what is not set yet.

    1. A user and its password are taken together: a password is not sent for the user of another layer.
    2. A certificate and its key are taken together.
    3. TLS files are taken only where an endpoint is reached over TLS; they may be there for another program.
    """
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
    # The client may fail over to any endpoint, and then sends the password there.
    if (
        "password" in merged
        and plain
        and not (plain == [*endpoints] and all(parse_endpoint(url).is_loopback for url in plain))
    ):
        raise UsageError(
            f"a password is set, but endpoint {plain[0]} is not TLS: expected https:// for all endpoints; plain"
            " http is allowed to this machine only"
        )


# What Kubernetes puts into every container for a Service called `configstore` or `configstore-…`.
_KUBERNETES = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_.+)?$|_PORT$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?$")


def unknown_variables(
    environ: Mapping[str, str], known: Iterable[str], prefixes: tuple[str, ...] = ()
) -> list[str]:
    """Return the CONFIGSTORE_* variables that are set and unknown, without those that Kubernetes sets."""
    names = {*known, *STORE_VARIABLES, *map(as_variable, SEAL_PARSERS)}
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
        meant = f"did you mean {close}?" if close else f"known are {', '.join(sorted(names))}"
        raise UsageError(f"{printable(name)}: unknown variable; {meant}")


def nearest_variable(name: str, known: Iterable[str], *, cutoff: float) -> str | None:
    """Return the known variable most like `name`, if one is at least so alike (1.0 is equal)."""
    suffixes = [variable.removeprefix(_PREFIX) for variable in known]
    close = difflib.get_close_matches(name.removeprefix(_PREFIX), suffixes, n=1, cutoff=cutoff)
    return f"{_PREFIX}{close[0]}" if close else None
