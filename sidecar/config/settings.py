"""The daemon's whole configuration: presets, a TOML file, environment variables and options, the last wins.

Called by `sidecar.__main__`; the other rooms read the checked, frozen `Config`, which describes each setting once:
its type, its default, its parser, and its place in a settings file. Its variable is CONFIGSTORE_<NAME>.
"""

import re
import secrets
import socket
from collections.abc import Iterable
from collections.abc import Mapping as Mapped
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from configstore.errors import UsageError
from configstore.model.path import printable
from configstore.model.replica import made_id
from configstore.model.seal import Policy
from configstore.parsing import (
    annotations_of,
    below,
    hint,
    one_of,
    parse_directory,
    parse_duration,
    parse_layer,
    parse_name,
    parse_text,
    parsers_of,
)
from configstore.settings import (
    DEFAULT_SOCKET,
    DEFAULT_STATE,
    STORE_PARSERS,
    StoreSettings,
    as_option,
    as_variable,
    from_variables,
    load_store,
    read_toml,
    set_variables,
)
from sidecar.config.mappings import PRESET, load_mappings, retired_variables, with_policies
from sidecar.mapping import Mapping
from sidecar.state.directory import IN_MOUNT

MAX_SOCKET = 107
"""Bytes of a Unix socket's path (unix(7)), the NUL at its end left out."""

DEFAULT_LISTEN = "127.0.0.1:9650"
"""The address of the health endpoint unless `CONFIGSTORE_HEALTH_LISTEN` says otherwise."""

INIT_TIMEOUT = 60.0
"""Seconds for which `init` and `plan` wait for the store unless `--timeout` says otherwise."""


class LogLevel(StrEnum):
    """The least severity that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """The form of a line of the log."""

    TEXT = "text"
    JSON = "json"


STOP_TIMEOUT = 8.0
"""Seconds; Docker kills a container 10 seconds after SIGTERM unless it is told otherwise."""


_NOWHERE = ("", "none")  # an empty variable counts as not set, so switching something off takes a word
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
    text = str(value)  # refuses a boolean
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


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the daemon, checked. A key's annotations are its parser and its `section.key` in a file.

    state: the state directory, "mount" for one in each mirrored directory; None for the default directory, or for
        one in each mirrored directory where the default cannot be made.
    control_socket: path of the control socket, "" for none.
    control_group: number of the group that may use it besides root and the sidecar's user, None for no other.
    control_groups: the same for the sockets of single services, by their names, in a sidecar of a whole host.
    local: directory in which each service of the presets has a folder, which makes this the sidecar of a whole
        host, with a control socket for each service. None for the paths that the presets name.
    health_listen: `host:port`, "" for none.
    timeout: seconds that `init` and `plan` wait for the store; CONFIGSTORE_TIMEOUT is for a single call instead.
    seal_keyring: path of the keyring's file, None for none.
    seal: the policy of mappings that have none.
    stop_timeout: seconds after which a stopping `run` ends, although something is not sent.
    notes: what is logged once at the start, such as a variable that has no effect any more.
    """

    store: StoreSettings
    mappings: tuple[Mapping, ...]
    state: Annotated[str | None, _state, "state.directory"] = None
    control_socket: Annotated[str, _socket, "control.socket"] = DEFAULT_SOCKET
    control_group: Annotated[int | None, _group, "control.group"] = None
    control_groups: Annotated[Mapped[str, int], _groups, "control.groups"] = {}
    local: Annotated[str | None, parse_directory, "local.directory"] = None
    health_listen: Annotated[str, _listen, "health.listen"] = DEFAULT_LISTEN
    log_level: Annotated[LogLevel, one_of(LogLevel), "log.level"] = LogLevel.INFO
    log_format: Annotated[LogFormat, one_of(LogFormat), "log.format"] = LogFormat.TEXT
    replica: Annotated[str, parse_name]
    seal_keyring: Annotated[str | None, parse_text, "seal.keyring"] = None
    seal: Annotated[Policy | None, one_of(Policy), "seal.policy"] = None
    timeout: Annotated[float, parse_duration] = INIT_TIMEOUT
    stop_timeout: Annotated[float, parse_duration] = STOP_TIMEOUT
    notes: tuple[str, ...] = ()

    @property
    def services(self) -> tuple[str, ...]:
        """The services of a whole host, each with a control socket, "" for mappings of none; else "" alone."""
        return tuple(dict.fromkeys(mapping.service for mapping in self.mappings)) if self.local else ("",)

    def socket_of(self, service: str) -> str:
        """Return the path of a service's control socket, "" for none."""
        above, _, name = self.control_socket.rpartition("/")
        return f"{above}/{service}/{name}" if name and service else self.control_socket

    def group_of(self, service: str) -> int | None:
        """Return the group that may use a service's control socket, None for no other."""
        return self.control_groups.get(service, self.control_group)


SETTING_PARSERS = parsers_of(Config)
"""The parser of every setting but the store's and the mappings', by its name in `Config`."""

FILE_KEYS = {tuple(each[1].split(".")): name for name, each in annotations_of(Config).items() if len(each) > 1}
"""The names of those settings that a file may have, by section and key there."""

SETTING_VARIABLES = {as_variable(name): name for name in SETTING_PARSERS if name != "timeout"}
"""The names of settings by their variables."""


def load_config(*, file: str | None, environ: Mapped[str, str], options: Mapped[str, object]) -> Config:
    """Read and check everything.

    options: by the names of `StoreSettings` and `Config`, and `preset`; None counts as not given. `timeout` there
    is that of `Config`; the time for a single call comes from the file or from CONFIGSTORE_TIMEOUT.
    Raises UsageError naming the file, variable or option, the key, and what was expected.
    """
    given = {name: value for name, value in options.items() if value is not None}
    environ = set_variables(environ)
    source = file or ""
    document = read_toml(file) if file else {}
    settings = _file_settings(document, source)
    settings |= parse_layer(from_variables(environ, SETTING_VARIABLES.values()), SETTING_PARSERS, as_variable)
    preset = given.pop("preset", None) or environ.get(PRESET) or ""
    store_options = {name: given.pop(name) for name in STORE_PARSERS if name in given and name != "timeout"}
    settings |= parse_layer(given, SETTING_PARSERS, as_option)
    store = load_store(
        environ=environ, table=_table(document, "store", source), source=source, options=store_options
    )
    mappings = load_mappings(
        _tables(document, source),
        source=source,
        preset=str(preset),
        environ=environ,
        known=SETTING_VARIABLES,
        local=settings.get("local"),
    )
    mappings = with_policies(mappings, settings.get("seal_keyring"), settings.get("seal"))
    _check_state(settings.get("state") or DEFAULT_STATE, mappings)
    settings.setdefault("replica", default_replica())
    config = Config(store=store, mappings=mappings, notes=retired_variables(mappings, environ), **settings)
    _check_services(config)
    return config


def _check_state(state: str, mappings: Iterable[Mapping]) -> None:
    for mapping in mappings:
        if state == mapping.path or state.startswith(f"{mapping.path}/"):
            raise UsageError(
                f"state: {state} is inside {mapping.path}, the directory of mapping {mapping.name}, which the"
                " application can write to; expected a directory that no application mounts"
            )


def _check_services(config: Config) -> None:
    """Raise UsageError for the group of an unknown service, and for a socket whose path is too long."""
    for service in config.control_groups:
        if config.local is None:
            raise UsageError("control.groups: is for the sidecar of a whole host: set CONFIGSTORE_LOCAL, too")
        if service not in config.services:
            meant = hint(service, config.services)
            raise UsageError(f"control.groups: {service}: no such service here; {meant}")
    for service in config.services:
        if len(config.socket_of(service).encode()) > MAX_SOCKET:
            raise UsageError(
                f"control.socket: {config.socket_of(service)}: expected at most {MAX_SOCKET} bytes, the folder of"
                f" {service} included"
            )


def default_replica() -> str:
    """Return a new replica id: the host's name and something random."""
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
    sections = {section for section, _ in FILE_KEYS}
    for name in document:
        if name not in sections | {"store", "mapping"}:
            meant = hint(name, sections | {"store", "mapping"})
            raise UsageError(f"{source}: {printable(name)}: unknown key; {meant}")
    found: dict[str, Any] = {}
    for section in sorted(sections):
        names = {key: name for (of, key), name in FILE_KEYS.items() if of == section}
        parsers = {key: SETTING_PARSERS[name] for key, name in names.items()}
        layer = parse_layer(_table(document, section, source), parsers, below(f"{source}: {section}."))
        found |= {names[key]: value for key, value in layer.items()}
    return found
