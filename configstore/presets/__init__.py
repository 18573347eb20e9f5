"""Built-in mappings by service: `mailu/front`, or `mailu` for those of every service.

They are data: one TOML file for each product, beside this module. Called by `sidecar.config`, which makes mappings
of them, and by the commands that need a product's subtrees.
"""

import difflib
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import msgspec

from configstore.errors import UsageError
from configstore.mapping_settings import MAPPING_PARSERS, MappingSettings
from configstore.model.path import StorePath, parse_path, printable
from configstore.parsing import below, parse_bool, parse_layer, parse_text, parsers_of

_FOLDER = Path(__file__).parent


class HostFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files of a mapping on a single host: a directory relative to the installation, and which files of it."""

    host: str
    include: tuple[str, ...]


def _earlier(value: object) -> tuple[HostFiles, ...]:
    return msgspec.convert(value, tuple[HostFiles, ...])


class PresetMapping(MappingSettings, frozen=True, kw_only=True):
    """One built-in mapping: the keys of a settings file's [[mapping]], and what only a preset says.

    host: where its directory lies on a single-host installation, relative to that one's folder (such as /mailu);
    "": nowhere.
    earlier: where earlier releases kept it. about, advice, warning: for people: what it is, what picks up a
    change, and what must be known before it costs something.
    own: the directory is the sidecar's alone, mounted by no application.
    written: what the product's file says of it, as it is written there; made complete, in the order for showing.
    """

    host: Annotated[str, str]
    earlier: Annotated[tuple[HostFiles, ...], _earlier] = ()
    own: Annotated[bool, parse_bool] = False
    about: Annotated[str, parse_text]
    advice: Annotated[str, parse_text] = ""
    warning: Annotated[str, parse_text] = ""
    written: dict[str, object]

    def settings(self) -> dict[str, Any]:
        """Return the values of those keys of a [[mapping]] that the preset sets, as the sidecar has them."""
        return {key: getattr(self, key) for key in MAPPING_PARSERS if key in self.written}


class LeftBehind(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files of a single host that no mapping takes: gitignore-style patterns below its folder, and the reason.

    why: "" for folders whose content is judged path by path. loud: `import` warns of it.
    """

    paths: tuple[str, ...]
    why: str
    loud: bool = False


class _Common(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    exclude: tuple[str, ...]


class _Product(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    services: dict[str, tuple[str, ...]]
    access: dict[str, tuple[str, ...]]
    instead: dict[str, str] = {}
    common: _Common
    mapping: dict[str, dict[str, Any]]
    left: tuple[LeftBehind, ...] = ()
    retired: dict[str, str] = {}


def names() -> tuple[str, ...]:
    """Return the names of all presets."""
    return tuple(
        name for product in _products() for name in (product, *(f"{product}/{s}" for s in _read(product).services))
    )


def load(name: str) -> tuple[PresetMapping, ...]:
    """Return a preset's mappings; for a product those of all its services, each once.

    Raises UsageError for an unknown preset.
    """
    product, slash, service = name.partition("/")
    if product not in _products() or (slash and service not in _read(product).services):
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(f"preset {printable(name)!r}: unknown; {hint}known are {', '.join(names())}")
    found = _read(product)
    if slash:
        return tuple(_mapping(product, key) for key in found.services[service])
    every: dict[str, PresetMapping] = {}
    for key in found.mapping:
        mapping = _mapping(product, key)
        every.setdefault(mapping.name, mapping)
    return tuple(every.values())


def containers(product: str) -> dict[str, tuple[str, ...]]:
    """Return the services of a product that have their own certificate, with the presets that run under it."""
    return {
        service: tuple(f"{product}/{preset}" for preset in names)
        for service, names in _read(product).access.items()
    }


def container(name: str) -> str:
    """Return the container that uses a preset of one service: front for `mailu/nginx`. Raises UsageError."""
    product, slash, service = name.partition("/")
    load(name)
    if not slash:
        raise UsageError(f"preset {printable(name)}: holds those of all services; name one, such as {name}/front")
    found = _read(product)
    runs = (each for each, names in found.access.items() if service in names)
    return next(runs, found.instead.get(service, service))


def roots(name: str) -> tuple[StorePath, ...]:
    """Return the store subtrees of a preset, sorted. Raises UsageError."""
    return tuple(sorted({parse_path(mapping.store) for mapping in load(name)}))


def left(name: str) -> tuple[LeftBehind, ...]:
    """Return the files of a single host that a preset's product leaves behind, specific patterns first."""
    return _read(name.partition("/")[0]).left


def retired() -> dict[str, str]:
    """Return why each mapping of earlier versions does not exist any more, by its name."""
    return {name: why for product in _products() for name, why in _read(product).retired.items()}


def _products() -> list[str]:
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


@cache
def _read(product: str) -> _Product:
    return msgspec.convert(tomllib.loads((_FOLDER / f"{product}.toml").read_text(encoding="utf-8")), _Product)


@cache
def _mapping(product: str, key: str) -> PresetMapping:
    found = _read(product)
    table = {"name": key, "host": found.mapping[key]["store"], **found.mapping[key]}
    exclude = table.get("exclude", [])
    table["exclude"] = [*exclude, *(pattern for pattern in found.common.exclude if pattern not in exclude)]
    return PresetMapping(
        **parse_layer(table, _PARSERS, below(f"preset {product}: mapping {key}: ")),
        written={name: table[name] for name in _ORDER if name in table},
    )


_PARSERS = parsers_of(PresetMapping)
_ORDER = dict.fromkeys(("name", "store", "path", "host", "earlier", *MAPPING_PARSERS, *_PARSERS))
"""The order in which a mapping's keys are shown."""
