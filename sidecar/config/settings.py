"""The daemon's whole configuration: presets, a TOML file, environment variables and options, the last wins.

Called by `sidecar.__main__`; everything else sees the checked, frozen `Config`. Mappings are merged by name, key
by key: a preset's, then the file's [[mapping]], then CONFIGSTORE_MAPPING_<NAME>_<KEY>.
"""

import re
import secrets
import socket
from collections.abc import Iterable
from collections.abc import Mapping as Mapped
from enum import StrEnum
from itertools import combinations
from typing import Any

import msgspec

from configstore import presets
from configstore.errors import UsageError
from configstore.model.path import printable
from configstore.model.replica import made_id
from configstore.model.seal import Policy
from configstore.model.selection import taken_out
from configstore.presets import together
from configstore.settings import (
    STORE_PARSERS,
    Label,
    Parser,
    StoreSettings,
    check_variables,
    checked_policy,
    load_store,
    nearest,
    parse_duration,
    parse_layer,
    parse_name,
    parse_policy,
    parse_text,
    read_toml,
    set_variables,
)
from sidecar.config.mapping_keys import MAPPING_PARSERS, parse_choice, parse_directory
from sidecar.mapping import Mapping
from sidecar.state.directory import DEFAULT as DEFAULT_STATE
from sidecar.state.directory import IN_MOUNT

DEFAULT_SOCKET = "/run/configstore/control.sock"

MAX_SOCKET = 107
"""Bytes of a Unix socket's path (unix(7)), the NUL at its end left out."""

INIT_TIMEOUT = 60.0
"""Seconds for which `init` waits for the store unless `--timeout` says otherwise."""


class LogLevel(StrEnum):
    """The least important thing that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How a line of the log looks."""

    TEXT = "text"
    JSON = "json"


STOP_TIMEOUT = 8.0
"""Seconds: Docker kills a container 10 after it asked it to stop, unless told otherwise."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon is told to do, checked.

    state: directory for what is remembered, "mount" for the mirrored directories; None for the default one, or for
        these where it cannot be had.
    control_socket: path of the control socket, "" for none.
    control_group: number of the group that may use it besides root and our own user, None for no other.
    control_groups: the same for the sockets of single services, by their names, in a sidecar of a whole host.
    local: directory in which each service of the presets has a folder of its own, which makes this the sidecar of
        a whole host: with a control socket for each service. None for the paths that the presets name.
    health_listen: `host:port`, "" for none.
    replica: this replica's id.
    timeout: seconds for which `init` waits for the store.
    seal_keyring: path of the keyring's file, None for none.
    seal: the policy of mappings that do not say otherwise.
    stop_timeout: seconds after which a stopping `run` ends, whatever is still unsent.
    notes: what is said once at the start, such as a variable of which nothing comes any more.
    """

    store: StoreSettings
    mappings: tuple[Mapping, ...]
    state: str | None = None
    control_socket: str = DEFAULT_SOCKET
    control_group: int | None = None
    control_groups: Mapped[str, int] = {}
    local: str | None = None
    health_listen: str = "127.0.0.1:9650"
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT
    replica: str
    seal_keyring: str | None = None
    seal: Policy | None = None
    timeout: float = INIT_TIMEOUT
    stop_timeout: float = STOP_TIMEOUT
    notes: tuple[str, ...] = ()

    @property
    def services(self) -> tuple[str, ...]:
        """Those of a whole host, each with a control socket of its own, "" for mappings of none; else "" alone."""
        return tuple(dict.fromkeys(mapping.service for mapping in self.mappings)) if self.local else ("",)

    def socket_of(self, service: str) -> str:
        """Return the path of a service's control socket, "" for none."""
        above, _, name = self.control_socket.rpartition("/")
        return f"{above}/{service}/{name}" if name and service else self.control_socket

    def group_of(self, service: str) -> int | None:
        """Return the group that may use a service's control socket, None for no other."""
        return self.control_groups.get(service, self.control_group)


_NOWHERE = ("", "none")  # an empty variable is an unset one, so that it takes a word to switch something off
_LISTEN = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]*):([0-9]{1,5})")


def _listen(value: object) -> str:
    if value in _NOWHERE:
        return ""
    match = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) > 65535:
        raise ValueError('expected "host:port" such as "0.0.0.0:9650" or "[::]:9650", or "none"')
    return str(value)


def _socket(value: object) -> str:
    if value in _NOWHERE:
        return ""
    if not (parse_text(value).startswith("/") and len(parse_text(value).encode()) <= MAX_SOCKET):
        raise ValueError(f'expected an absolute path of at most {MAX_SOCKET} bytes, or "none"')
    return str(value)


def _group(value: object) -> int:
    text = str(value)  # a boolean is refused here
    if not text.isascii() or not text.isdecimal() or int(text) >= 2**32 - 1:
        raise ValueError("expected a group's number, such as 101: names differ between containers")
    return int(text)


_OF_SERVICE = re.compile(r"([a-z0-9-]+):([0-9]+)")


def _groups(value: object) -> dict[str, int]:
    words = [part.strip() for part in value.split(",")] if isinstance(value, str) else []
    found = [_OF_SERVICE.fullmatch(word) for word in words]
    try:
        groups = [(match[1], _group(match[2])) for match in found if match]
    except ValueError:
        groups = []
    if not groups or len(dict(groups)) != len(words):
        raise ValueError('expected services with the numbers of their groups, such as "fetchmail:101"')
    return dict(groups)


def _state(value: object) -> str:
    return IN_MOUNT if value == IN_MOUNT else parse_directory(value)


_SETTINGS: dict[tuple[str, str], tuple[str, Parser]] = {
    ("state", "directory"): ("state", _state),
    ("control", "socket"): ("control_socket", _socket),
    ("control", "group"): ("control_group", _group),
    ("control", "groups"): ("control_groups", _groups),
    ("local", "directory"): ("local", parse_directory),
    ("health", "listen"): ("health_listen", _listen),
    ("seal", "keyring"): ("seal_keyring", parse_text),
    ("seal", "policy"): ("seal", parse_policy),
    ("log", "level"): ("log_level", parse_choice(LogLevel)),
    ("log", "format"): ("log_format", parse_choice(LogFormat)),
}
_PARSERS: dict[str, Parser] = {
    **dict(_SETTINGS.values()),
    "replica": parse_name,
    "timeout": parse_duration,
    "stop_timeout": parse_duration,
}
_VARIABLES = {f"CONFIGSTORE_{name.upper()}": name for name in _PARSERS if name != "timeout"}
_PRESET = "CONFIGSTORE_PRESET"
_MAPPING_PREFIX = "CONFIGSTORE_MAPPING_"

SIDECAR_VARIABLES = (_PRESET, *_VARIABLES)
"""The variables that the daemon reads besides the store's and CONFIGSTORE_MAPPING_<NAME>_<KEY>."""


def load_config(*, file: str | None, environ: Mapped[str, str], options: Mapped[str, object]) -> Config:
    """Read and check everything.

    options: by the names of `StoreSettings` and `Config`, and `preset`; None is "not given". `timeout` there is
    that of `init`; the one for a single call comes from the file or from CONFIGSTORE_TIMEOUT.
    Raises UsageError naming the file, variable or option, the key, and what was expected.
    """
    given = {name: value for name, value in options.items() if value is not None}
    environ = set_variables(environ)
    source = file or ""
    document = read_toml(file) if file else {}
    settings = _file_settings(document, source)
    settings |= _environment_settings(environ)
    preset = given.pop("preset", None) or environ.get(_PRESET) or ""
    store_options = {name: given.pop(name) for name in STORE_PARSERS if name in given and name != "timeout"}
    settings |= parse_layer(given, _PARSERS, lambda key: f"--{key.replace('_', '-')}")
    store = load_store(
        environ=environ, table=_table(document, "store", source), source=source, options=store_options
    )
    mappings = load_mappings(
        _tables(document, source), source=source, preset=str(preset), environ=environ, local=settings.get("local")
    )
    mappings = _sealed(mappings, settings.get("seal_keyring"), settings.get("seal"))
    _check_state(settings.get("state") or DEFAULT_STATE, mappings)
    settings.setdefault("replica", default_replica())
    config = Config(store=store, mappings=mappings, notes=_notes(mappings, environ), **settings)
    _check_services(config)
    return config


def _check_services(config: Config) -> None:
    """Raise UsageError for groups of services that are none, and for a socket whose path is too long."""
    for service in config.control_groups:
        if config.local is None:
            raise UsageError("control.groups: is for the sidecar of a whole host: set CONFIGSTORE_LOCAL, too")
        if service not in config.services:
            hint = nearest(service, config.services)
            raise UsageError(f"control.groups: {service}: no such service here; {hint}")
    for service in config.services:
        if len(config.socket_of(service).encode()) > MAX_SOCKET:
            raise UsageError(
                f"control.socket: {config.socket_of(service)}: expected at most {MAX_SOCKET} bytes, the folder of"
                f" {service} included"
            )


def _sealed(mappings: Iterable[Mapping], keyring: str | None, default: Policy | None) -> tuple[Mapping, ...]:
    """Give each mapping its policy. Raises UsageError for one that seals without a keyring."""
    checked_policy(default, keyring, "seal")
    return tuple(
        msgspec.structs.replace(
            mapping, seal=checked_policy(mapping.seal or default, keyring, f"mapping {mapping.name}: seal")
        )
        for mapping in mappings
    )


def _notes(mappings: Iterable[Mapping], environ: Mapped[str, str]) -> tuple[str, ...]:
    """Return words for each variable of a mapping that presets had once, and that no mapping has now."""
    names = {mapping.name for mapping in mappings}
    return tuple(
        f"{variable}: nothing comes of it, since there is no mapping {name} any more: {why}"
        for name, why in presets.retired().items()
        if name not in names
        for variable in sorted(environ)
        if variable.startswith(_variable(name))
    )


def _variable(mapping: str) -> str:
    """Return what the variables of a mapping begin with."""
    return f"{_MAPPING_PREFIX}{re.sub(r'[^A-Z0-9]', '_', mapping.upper())}_"


def default_replica() -> str:
    """Return a fresh replica id: the host's name and something random."""
    return made_id(socket.gethostname(), secrets.token_hex(4))


def _table(document: Mapped[str, Any], name: str, source: str) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{source}: {name}: expected a table [{name}]")
    return table


def _tables(document: Mapped[str, Any], source: str) -> list[dict[str, Any]]:
    tables = document.get("mapping", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{source}: mapping: expected tables [[mapping]]")
    return tables


def _file_settings(document: Mapped[str, Any], source: str) -> dict[str, Any]:
    sections = {section for section, _ in _SETTINGS}
    for name in document:
        if name not in sections | {"store", "mapping"}:
            hint = nearest(name, sections | {"store", "mapping"})
            raise UsageError(f"{source}: {printable(name)}: unknown key; {hint}")
    found: dict[str, Any] = {}
    for section in sorted(sections):
        parsers = {key: parser for (of, key), (_, parser) in _SETTINGS.items() if of == section}
        layer = parse_layer(_table(document, section, source), parsers, _label(f"{source}: {section}."))
        found |= {_SETTINGS[section, key][0]: value for key, value in layer.items()}
    return found


def _environment_settings(environ: Mapped[str, str]) -> dict[str, Any]:
    raw: dict[str, object] = {
        name: environ[variable] for variable, name in _VARIABLES.items() if variable in environ
    }
    return parse_layer(raw, _PARSERS, lambda key: f"CONFIGSTORE_{key.upper()}")


def _label(prefix: str) -> Label:
    return lambda key: f"{prefix}{key}"


def _always(text: str) -> Label:
    return lambda _: text


def load_mappings(
    tables: Iterable[Mapped[str, object]],
    *,
    source: str,
    preset: str,
    environ: Mapped[str, str],
    local: str | None = None,
) -> tuple[Mapping, ...]:
    """Merge presets (names with commas between), the file's tables and the variables, and check the result.

    local: directory in which each service of the presets has a folder. Raises UsageError.
    """
    merged: dict[str, dict[str, Any]] = {}
    services: dict[str, str] = {}
    for each in together.taken(together.names_in(preset)):
        name, where = each.mapping.name, f"preset {each.preset}: mapping {each.mapping.name}: "
        path = {"path": each.path_below(local)} if local else {}
        merged[name] = parse_layer(each.mapping.settings() | path, MAPPING_PARSERS, _label(where))
        services[name] = each.service
    in_file: set[str] = set()
    for number, table in enumerate(tables, 1):
        where = f"{source}: mapping {printable(str(table.get('name', f'number {number}')))}: "
        layer = parse_layer(table, MAPPING_PARSERS, _label(where))
        if "name" not in layer:
            raise UsageError(f"{where}name: missing; expected a name of its own")
        if layer["name"] in in_file:
            raise UsageError(f"{where}name: used twice; expected a name of its own")
        in_file.add(layer["name"])
        merged.setdefault(layer["name"], {}).update(layer)
    _override(merged, environ)
    for name, layer in merged.items():
        _complete(layer, f"{source}: mapping {name}: " if name in in_file else f"mapping {name}: ")
    if not merged:
        raise UsageError(f"no mapping: expected a [[mapping]] in the file of --config, or {_PRESET}=mailu/front")
    mappings = [Mapping(service=services.get(name, ""), **layer) for name, layer in merged.items()]
    _check_apart(mappings, source)
    places = [(mapping.store, mapping.path) for mapping in mappings]
    return tuple(
        msgspec.structs.replace(
            mapping,
            holes=taken_out((mapping.store, mapping.path), places),
            within=max((path for _, path in places if mapping.path.startswith(f"{path}/")), key=len, default=""),
        )
        for mapping in mappings
    )


def _override(merged: Mapped[str, dict[str, Any]], environ: Mapped[str, str]) -> None:
    """Apply CONFIGSTORE_MAPPING_<NAME>_<KEY>, and refuse every variable that nobody reads."""
    targets: dict[str, list[tuple[str, str]]] = {}
    for name in merged:
        for key in MAPPING_PARSERS.keys() - {"name"}:
            targets.setdefault(f"{_variable(name)}{key.upper()}", []).append((name, key))
    of_mappings = any(variable.startswith(_MAPPING_PREFIX) for variable in environ)
    retired = presets.retired() if of_mappings else ()  # what all presets say takes 5 ms
    check_variables(environ, {*SIDECAR_VARIABLES, *targets}, tuple(map(_variable, retired)))
    for variable in targets.keys() & environ.keys():
        if len(targets[variable]) > 1:
            names = " and ".join(f"{key} of {name}" for name, key in targets[variable])
            raise UsageError(f"{variable}: means {names}; rename one of the mappings")
        name, key = targets[variable][0]
        merged[name] |= parse_layer({key: environ[variable]}, MAPPING_PARSERS, _always(variable))


def _complete(layer: dict[str, Any], where: str) -> None:
    if "store" not in layer:
        layer |= parse_layer({"store": layer["name"]}, MAPPING_PARSERS, _label(where))
    if "path" not in layer:
        raise UsageError(f'{where}path: missing; expected an absolute directory such as "/certs"')
    if layer.get("on_change") and layer.get("signal"):
        raise UsageError(f"{where}signal: expected either this or on_change, not both")


def _check_state(state: str, mappings: Iterable[Mapping]) -> None:
    for mapping in mappings:
        if state == mapping.path or state.startswith(f"{mapping.path}/"):
            raise UsageError(
                f"state: {state} lies in {mapping.path}, the directory of mapping {mapping.name}, where the"
                " application may come; expected a directory that no application mounts"
            )


def _check_apart(mappings: Iterable[Mapping], source: str) -> None:
    prefix = f"{source}: " if source else ""
    for one, other in combinations(mappings, 2):
        both = f"{prefix}mappings {one.name} and {other.name}"
        if one.path == other.path:
            hint = (
                "; CONFIGSTORE_LOCAL gives each service of a host a folder" if one.service != other.service else ""
            )
            raise UsageError(f"{both}: path: both mirror {one.path}; expected a directory for each{hint}")
        if one.store == other.store:
            raise UsageError(f"{both}: store: both mirror {one.store or '/'}; expected a subtree for each")
