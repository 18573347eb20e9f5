"""Reads the mappings and the keyring of a sidecar from its settings file, presets and variables. For `cli.doctor`.

Only what the doctor judges is read, and as if the settings were valid: the sidecar itself reports bad settings.
"""

from collections.abc import Mapping
from typing import Any

from configstore import presets
from configstore.doctor.facts import MappingSealing
from configstore.mapping_settings import MAPPING_PARSERS, from_variables
from configstore.model.path import printable
from configstore.model.seal import Policy
from configstore.parsing import below, parse_layer
from configstore.presets import combined
from configstore.settings import read_toml, set_variables


class SidecarSettings:
    """The settings of a sidecar that the doctor judges. keyring: the path of its file, None for none."""

    def __init__(self, *, file: str | None, preset: str | None, environ: Mapping[str, str]) -> None:
        """Read them. Raises UsageError for a file that cannot be read, and for an unknown preset."""
        environ = set_variables(environ)
        document = read_toml(file) if file else {}
        table = document.get("seal", {})
        table = table if isinstance(table, dict) else {}
        self.keyring = environ.get("CONFIGSTORE_SEAL_KEYRING") or table.get("keyring")
        self._default = environ.get("CONFIGSTORE_SEAL") or table.get("policy")
        self._found: dict[str, dict[str, Any]] = {}
        for name in combined.names_in(preset or environ.get("CONFIGSTORE_PRESET") or ""):
            for each in presets.load(name):
                self._found[each.name] = {"store": each.store}
        tables = document.get("mapping", [])
        for each in tables if isinstance(tables, list) else ():
            if isinstance(each, dict) and isinstance(each.get("name"), str):
                self._found.setdefault(each["name"], {}).update(each)
        for name, keys in self._found.items():
            keys.update(from_variables(environ, name, _KEYS))

    def mappings(self, keyring: str | None) -> tuple[MappingSealing, ...]:
        """Return all mappings with their policies; keyring: the one that is used. Raises UsageError."""
        usual = Policy.REQUIRED if keyring else Policy.OFF
        return tuple(
            self._judged(name, keys.get("store", name), keys.get("seal") or self._default or usual)
            for name, keys in self._found.items()
        )

    @staticmethod
    def _judged(name: str, store: object, seal: object) -> MappingSealing:
        where = f"mapping {printable(name)}: "
        found = parse_layer({"store": store, "seal": seal}, MAPPING_PARSERS, below(where))
        return MappingSealing(name=name, store=found["store"], policy=found["seal"])


_KEYS = ("store", "seal")
