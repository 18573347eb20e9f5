"""The presets that one sidecar combines, such as `mailu/front,mailu/acme`, or `mailu` for those of a whole host.

Called by `sidecar.config.settings`, `doctor.mappings` and `presets.services`.
"""

import msgspec

from configstore import presets
from configstore.errors import UsageError
from configstore.model.path import printable


class SidecarMapping(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping of a sidecar, its preset, and the container that uses it."""

    preset: str
    service: str
    mapping: presets.PresetMapping

    def path_below(self, directory: str) -> str:
        """Return the mapping's directory when each container has its own folder below `directory`."""
        return self.mapping.path if self.mapping.own else f"{directory}/{self.service}{self.mapping.path}"


def names_in(text: str) -> tuple[str, ...]:
    """Return the presets in a comma-separated text; a product's name stands for those of all its containers.

    Raises UsageError for an unknown name, a name that occurs twice, an empty name (an unset variable leaves one),
    and two presets for one container.
    """
    if not text.strip():
        return ()
    found: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if not name:
            raise UsageError(f"preset {printable(text)!r}: a name is empty; expected such as mailu/front")
        presets.load(name)  # its error lists the known names
        found += [name] if "/" in name else _all_of(name)
    for number, name in enumerate(found):
        if name in found[:number]:
            raise UsageError(f"preset {printable(text)!r}: has {name} twice")
    _refuse_rivals(found)
    return tuple(found)


def _all_of(product: str) -> list[str]:
    return [name for names in presets.containers(product).values() for name in names]


def _refuse_rivals(names: list[str]) -> None:
    """Refuse two presets for one container, except one that runs beside the container's own, as `mailu/acme`."""
    first: dict[str, str] = {}
    for name in names:
        service = presets.container(name)
        product, _, last = name.partition("/")
        if last != service and name in presets.containers(product).get(service, ()):
            continue
        if first.setdefault(service, name) != name:
            raise UsageError(f"presets {first[service]} and {name}: both are for {service}: choose one")


def mappings_of(names: tuple[str, ...]) -> tuple[SidecarMapping, ...]:
    """Return the mappings of presets. Raises UsageError when two presets have a mapping of the same name."""
    found: dict[str, SidecarMapping] = {}
    for name in names:
        for mapping in presets.load(name):
            each = SidecarMapping(preset=name, service=presets.container(name), mapping=mapping)
            if (other := found.setdefault(mapping.name, each)) != each:
                raise UsageError(
                    f"presets {other.preset} and {name}: both have a mapping {mapping.name!r}, and one sidecar has"
                    " one of a name: choose one, or give the other a sidecar of its own"
                )
    return tuple(found.values())
