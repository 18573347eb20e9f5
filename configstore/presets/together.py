"""The presets that one sidecar has, `mailu/front,mailu/acme` or those of a whole host, and whose each mapping is.

Called by `sidecar.config.settings`, and by the commands that look at a sidecar's settings from outside.
"""

import msgspec

from configstore import presets
from configstore.errors import UsageError
from configstore.model.path import printable


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping, the preset that it comes from, and the container that it is for."""

    preset: str
    service: str
    mapping: presets.PresetMapping

    def path_below(self, directory: str) -> str:
        """Return the mapping's directory where each container has a folder of its own below `directory`."""
        return self.mapping.path if self.mapping.own else f"{directory}/{self.service}{self.mapping.path}"


def names_in(text: str) -> tuple[str, ...]:
    """Return the presets in a text with commas between them; a product's own name is those of all its containers.

    Raises UsageError for an unknown one, one that is named twice, an empty one, such as a variable that is not set
    leaves behind, and two for one container.
    """
    if not text.strip():
        return ()
    found: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if not name:
            raise UsageError(f"preset {printable(text)!r}: a name is empty; expected such as mailu/front")
        presets.load(name)  # says which there are
        found += [name] if "/" in name else _today(name)
    for number, name in enumerate(found):
        if name in found[:number]:
            raise UsageError(f"preset {printable(text)!r}: has {name} twice")
    _refuse_rivals(found)
    return tuple(found)


def _today(product: str) -> list[str]:
    return [name for names in presets.containers(product).values() for name in names]


def _refuse_rivals(names: list[str]) -> None:
    """Refuse two presets for one container, but for what runs beside its own, as `mailu/acme` does."""
    first: dict[str, str] = {}
    for name in names:
        service = presets.container(name)
        product, _, last = name.partition("/")
        if last != service and name in presets.containers(product).get(service, ()):
            continue
        if first.setdefault(service, name) != name:
            raise UsageError(f"presets {first[service]} and {name}: both are for {service}: choose one")


def taken(names: tuple[str, ...]) -> tuple[Taken, ...]:
    """Return the mappings of presets. Raises UsageError where two of them have one of the same name."""
    found: dict[str, Taken] = {}
    for name in names:
        for mapping in presets.load(name):
            each = Taken(preset=name, service=presets.container(name), mapping=mapping)
            if (other := found.setdefault(mapping.name, each)) != each:
                raise UsageError(
                    f"presets {other.preset} and {name}: both have a mapping {mapping.name!r}, and one sidecar has"
                    " one of a name: choose one, or give the other a sidecar of its own"
                )
    return tuple(found.values())
