"""The services of an installation and the rights each needs at etcd, from presets or a sidecar's settings.

Of a [[mapping]] only the keys that rights depend on are read; the sidecar checks the others. Called by the
commands `access` and `doctor`, and by `configstore-sidecar dev` for names of services.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from configstore import presets
from configstore.errors import UsageError
from configstore.mapping_settings import MAPPING_PARSERS, from_variables, variable_of
from configstore.model.grants import RangeNeed, Service
from configstore.model.path import printable
from configstore.parsing import Label, below, parse_layer
from configstore.presets import combined
from configstore.settings import read_toml

USER = "mailu-"
"""The user of a service is this and the service's name."""

WHOLE = "host"
"""The default name of one sidecar for all services of a product."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_KEYS = ("store", "direction", "lease")


def user_of(service: str) -> str:
    """Return the name of a service's user at etcd, of its role, and of its certificate."""
    return f"{USER}{service}"


def of_presets(names: Sequence[str], *, name: str = "") -> tuple[Service, ...]:
    """Return the services of presets: for a product all of its services, for one preset the service that runs it.

    Comma-separated presets run in one sidecar: they are one service with the first one's name. name: all
    presets run in one sidecar of that name, such as a whole host's. Raises UsageError.
    """
    if name:
        every = combined.names_in(",".join(names))
        return (_service(checked_name(name), [each for one in every for each in _with_companions(one)]),)
    found: dict[str, Service] = {}
    for text in names:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise UsageError("--preset: expected a name such as mailu or mailu/front")
        if len(parts) == 1 and "/" not in parts[0]:
            presets.load(parts[0])  # refuses one that is unknown
            many = [_of_parts(of_it) for of_it in presets.containers(parts[0]).values()]
        else:
            many = [_of_parts(parts)]
        for service in many:
            if found.setdefault(service.name, service) != service:
                raise UsageError(f"--preset {printable(text)}: service {service.name} is named twice, and differs")
    return tuple(found.values())


def _of_parts(parts: Sequence[str]) -> Service:
    names = [name for part in parts for name in _with_companions(part)]
    name = parts[0].partition("/")[2]
    if not name:
        raise UsageError(
            f"preset {printable(parts[0])}: holds those of all services; name one, such as {parts[0]}/front"
        )
    return _service(name, names)


def _service(name: str, presets_of_it: Iterable[str]) -> Service:
    names = tuple(dict.fromkeys(presets_of_it))
    needs = _needs_of(names)
    return Service(name=name, user=user_of(name), needs=tuple(needs.values()), known=_known(names))


def _with_companions(preset: str) -> tuple[str, ...]:
    product, _, service = preset.partition("/")
    presets.load(preset)
    return presets.containers(product).get(service, (preset,))


def of_settings(*, file: str | None, preset: str, environ: Mapping[str, str], name: str = "") -> Service:
    """Return the service of one sidecar, from its settings file, presets and variables, merged as it does.

    name: of the service; default: that of its first preset, `host` for a product, or of the file. Raises
    UsageError.
    """
    names = combined.names_in(preset)
    needs = _needs_of(names)
    for number, table in enumerate(_tables(file), 1):
        needs |= _need_in_file(file or "", number, table, needs)
    for mapping, need in needs.items():
        needs[mapping] = _changed(need, from_variables(environ, mapping, _KEYS), partial(variable_of, mapping))
    if not needs:
        raise UsageError(
            "no mapping: expected a preset such as mailu/front, or a [[mapping]] in the file of --config"
        )
    name = name or _first_service(preset) or os.path.basename(file or "").removesuffix(".toml")
    return Service(name=checked_name(name), user=user_of(name), needs=tuple(needs.values()), known=_known(names))


def checked_name(name: str) -> str:
    """Return a valid name of a service, as users, files and Secrets can contain it. Raises UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"service {printable(name)!r}: expected at most 40 small letters, digits and '-', such as front"
        )
    return name


def store_table(file: str | None) -> dict[str, Any]:
    """Return the `[store]` table of a settings file. Raises UsageError."""
    table = read_toml(file).get("store", {}) if file else {}
    if not isinstance(table, dict):
        raise UsageError(f"{file}: store: expected a table [store]")
    return table


def _first_service(preset: str) -> str:
    first = preset.partition(",")[0].strip()
    return (first.partition("/")[2] or WHOLE) if first else ""


def _needs_of(names: Iterable[str]) -> dict[str, RangeNeed]:
    found: dict[str, RangeNeed] = {}
    first: dict[str, str] = {}
    for name in names:
        for mapping in presets.load(name):
            need = RangeNeed(
                mapping=mapping.name, store=mapping.store, direction=mapping.direction, lease=mapping.lease or ""
            )
            other = first.setdefault(mapping.name, name)
            if found.setdefault(mapping.name, need) != need:
                raise UsageError(f"presets {other} and {name}: both have a mapping {mapping.name!r}: choose one")
    return found


def _known(names: Iterable[str]) -> tuple[RangeNeed, ...]:
    """Return all mappings of the products that the presets belong to."""
    products = dict.fromkeys(name.partition("/")[0] for name in names)
    return tuple(need for product in products for need in _needs_of([product]).values())


def _tables(file: str | None) -> list[dict[str, Any]]:
    found = read_toml(file).get("mapping", []) if file else []
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        raise UsageError(f"{file}: mapping: expected tables [[mapping]]")
    return found


def _need_in_file(
    file: str, number: int, table: Mapping[str, object], needs: Mapping[str, RangeNeed]
) -> dict[str, RangeNeed]:
    where = f"{printable(file)}: mapping {printable(str(table.get('name', f'number {number}')))}: "
    label = below(where)
    name = parse_layer({"name": table.get("name")}, MAPPING_PARSERS, label)["name"]
    given = {key: table[key] for key in _KEYS if key in table}
    base = needs.get(name)
    if base is None:
        store = parse_layer({"store": table.get("store", name)}, MAPPING_PARSERS, label)["store"]
        base = RangeNeed(mapping=name, store=store)
    return {name: _changed(base, given, label)}


def _changed(need: RangeNeed, given: Mapping[str, object], label: Label) -> RangeNeed:
    found = parse_layer(given, MAPPING_PARSERS, label)
    if "lease" in found:
        found["lease"] = found["lease"] or ""
    return msgspec.structs.replace(need, **found)
