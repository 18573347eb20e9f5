"""The mappings of a sidecar: presets, [[mapping]] tables and variables merged by name, key by key, and checked.

Called by `sidecar.config.settings`. For one name a preset's keys come first, then the file's, then those of the
variables CONFIGSTORE_MAPPING_<NAME>_<KEY>; the last wins.
"""

from collections.abc import Iterable
from collections.abc import Mapping as Mapped
from functools import partial
from itertools import combinations
from typing import Any

import msgspec

from configstore import presets
from configstore.errors import UsageError
from configstore.mapping_settings import MAPPING_PARSERS, MAPPING_VARIABLES, variable_of
from configstore.model.path import printable
from configstore.model.seal import Policy
from configstore.model.selection import taken_out
from configstore.parsing import below, parse_layer
from configstore.presets import combined
from configstore.settings import check_variables, checked_policy
from sidecar.mapping import Mapping

PRESET = "CONFIGSTORE_PRESET"
"""The variable that names the presets, with commas between them."""


def load_mappings(
    tables: Iterable[Mapped[str, object]],
    *,
    source: str,
    preset: str,
    environ: Mapped[str, str],
    known: Iterable[str],
    local: str | None,
) -> tuple[Mapping, ...]:
    """Merge presets (names with commas between), the file's tables and the variables, and check the result.

    source: path of the file, "" for none. known: the variables of all other settings but the store's.
    local: directory in which each service of the presets has a folder. Raises UsageError.
    """
    merged: dict[str, dict[str, Any]] = {}
    services: dict[str, str] = {}
    for each in combined.mappings_of(combined.names_in(preset)):
        path = {"path": each.path_below(local)} if local else {}
        merged[each.mapping.name] = each.mapping.settings() | path
        services[each.mapping.name] = each.service
    in_file: set[str] = set()
    for number, table in enumerate(tables, 1):
        where = f"{source}: mapping {printable(str(table.get('name', f'number {number}')))}: "
        layer = parse_layer(table, MAPPING_PARSERS, below(where))
        if "name" not in layer:
            raise UsageError(f"{where}name: missing; expected a name of its own")
        if layer["name"] in in_file:
            raise UsageError(f"{where}name: used twice; expected a name of its own")
        in_file.add(layer["name"])
        merged.setdefault(layer["name"], {}).update(layer)
    _override(merged, environ, known)
    for name, layer in merged.items():
        _complete(layer, f"{source}: mapping {name}: " if name in in_file else f"mapping {name}: ")
    if not merged:
        raise UsageError(f"no mapping: expected a [[mapping]] in the file of --config, or {PRESET}=mailu/front")
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


def _override(merged: Mapped[str, dict[str, Any]], environ: Mapped[str, str], known: Iterable[str]) -> None:
    """Apply CONFIGSTORE_MAPPING_<NAME>_<KEY>. Raises UsageError for an unknown variable."""
    targets: dict[str, list[tuple[str, str]]] = {}
    for name in merged:
        for key in MAPPING_PARSERS.keys() - {"name"}:
            targets.setdefault(variable_of(name, key), []).append((name, key))
    check_variables(environ, {PRESET, *known, *targets}, tuple(map(variable_of, _retired(environ))))
    for variable in targets.keys() & environ.keys():
        if len(targets[variable]) > 1:
            names = " and ".join(f"{key} of {name}" for name, key in targets[variable])
            raise UsageError(f"{variable}: means {names}; rename one of the mappings")
        name, key = targets[variable][0]
        merged[name] |= parse_layer({key: environ[variable]}, MAPPING_PARSERS, partial(variable_of, name))


def _complete(layer: dict[str, Any], where: str) -> None:
    if "store" not in layer:
        layer |= parse_layer({"store": layer["name"]}, MAPPING_PARSERS, below(where))
    if "path" not in layer:
        raise UsageError(f'{where}path: missing; expected an absolute directory such as "/certs"')
    if layer.get("on_change") and layer.get("signal"):
        raise UsageError(f"{where}signal: expected either this or on_change, not both")


def _check_apart(mappings: Iterable[Mapping], source: str) -> None:
    prefix = f"{source}: " if source else ""
    for one, other in combinations(mappings, 2):
        both = f"{prefix}mappings {one.name} and {other.name}"
        if one.path == other.path:
            apart = one.service != other.service
            way = "; CONFIGSTORE_LOCAL gives each service of a host a folder" if apart else ""
            raise UsageError(f"{both}: path: both mirror {one.path}; expected a directory for each{way}")
        if one.store == other.store:
            raise UsageError(f"{both}: store: both mirror {one.store or '/'}; expected a subtree for each")


def with_policies(mappings: Iterable[Mapping], keyring: str | None, default: Policy | None) -> tuple[Mapping, ...]:
    """Return the mappings, each with its policy. Raises UsageError for one that seals without a keyring."""
    checked_policy(default, keyring, "seal")
    return tuple(
        msgspec.structs.replace(
            mapping, seal=checked_policy(mapping.seal or default, keyring, f"mapping {mapping.name}: seal")
        )
        for mapping in mappings
    )


def retired_variables(mappings: Iterable[Mapping], environ: Mapped[str, str]) -> tuple[str, ...]:
    """Return a text for each variable of a mapping that only earlier versions of a preset had."""
    names = {mapping.name for mapping in mappings}
    return tuple(
        f"{variable}: has no effect, since there is no mapping {name} any more: {why}"
        for name, why in _retired(environ).items()
        if name not in names
        for variable in sorted(environ)
        if variable.startswith(variable_of(name))
    )


def _retired(environ: Mapped[str, str]) -> Mapped[str, str]:
    """Return the retired mappings. The presets' file is read for them only where a variable is of any mapping."""
    return presets.retired() if any(name.startswith(MAPPING_VARIABLES) for name in environ) else {}
