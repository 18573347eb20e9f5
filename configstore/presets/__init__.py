"""Built-in mappings by service: `mailu/front`, or `mailu` for those of every service.

Data lies in one TOML file a product beside this module and is read when asked for. Called by `sidecar.config`,
which turns a preset's settings into mappings, and by the commands that need to know a product's subtrees.
"""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from configstore.errors import UsageError
from configstore.model.path import StorePath, parse_path, printable

_FOLDER = Path(__file__).parent


class PresetMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One built-in mapping, in the words of a settings file's [[mapping]].

    host: where its directory lies on a single-host installation, relative to that one's folder (such as /mailu).
    """

    name: str
    store: str
    path: str
    host: str = ""
    direction: Literal["both", "pull", "push"] = "both"
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    required: bool = True
    lease: str = ""
    settle: str = ""
    symlinks: Literal["preserve", "resolve", "refuse"] = "preserve"
    create_once: bool = False
    owner: str = ""
    file_mode: str = ""
    dir_mode: str = ""
    refuse_empty: tuple[str, ...] = ()

    def settings(self) -> dict[str, object]:
        """Return what differs from the defaults, keyed as a [[mapping]] of a settings file."""
        table: dict[str, object] = msgspec.to_builtins(self)
        table.pop("host", None)
        return table


def names() -> tuple[str, ...]:
    """Return the names of all presets."""
    return tuple(
        name for product in _products() for name in (product, *(f"{product}/{s}" for s in _read(product)))
    )


def load(name: str) -> tuple[PresetMapping, ...]:
    """Return a preset's mappings; for a product those of all its services, each name once.

    Raises UsageError when there is no such preset.
    """
    product, _, service = name.partition("/")
    services = _read(product) if product in _products() else {}
    if name == product and services:
        every: dict[str, PresetMapping] = {}
        for mapping in (mapping for mappings in services.values() for mapping in mappings):
            every.setdefault(mapping.name, mapping)
        return tuple(every.values())
    if service not in services:
        raise UsageError(f"preset {printable(name)!r}: unknown; known are {', '.join(names())}")
    return services[service]


def roots(name: str) -> tuple[StorePath, ...]:
    """Return the store subtrees of a preset, sorted. Raises UsageError."""
    return tuple(sorted({parse_path(mapping.store) for mapping in load(name)}))


def _products() -> list[str]:
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def _read(product: str) -> dict[str, tuple[PresetMapping, ...]]:
    tables = tomllib.loads((_FOLDER / f"{product}.toml").read_text(encoding="utf-8"))
    common = tuple(tables.pop("common")["exclude"])
    services = {}
    for service, mappings in tables.items():
        found = msgspec.convert(mappings, tuple[PresetMapping, ...])
        services[service] = tuple(
            msgspec.structs.replace(
                mapping,
                host=mapping.host or mapping.store,
                exclude=(*mapping.exclude, *(pattern for pattern in common if pattern not in mapping.exclude)),
            )
            for mapping in found
        )
    return services
