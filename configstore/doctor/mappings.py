"""The mappings of a sidecar, as far as the doctor judges them: from its settings file, its presets, its variables.

What is wrong with settings is the sidecar's to say; here they are read as it would read good ones.
"""

import re
from collections.abc import Mapping
from typing import Any

from configstore import presets
from configstore.doctor.facts import Sealing
from configstore.errors import UsageError
from configstore.model.path import ROOT, PathError, StorePath, parse_path, printable
from configstore.model.seal import Policy
from configstore.presets import together
from configstore.settings import parse_policy, read_toml, set_variables


class Settings:
    """What was named of a sidecar's settings. keyring: path of its file, None for none."""

    def __init__(self, *, file: str | None, preset: str | None, environ: Mapping[str, str]) -> None:
        """Read them. Raises UsageError for a file that cannot be read, and for an unknown preset."""
        environ = set_variables(environ)
        document = read_toml(file) if file else {}
        table = document.get("seal", {})
        table = table if isinstance(table, dict) else {}
        self.keyring = environ.get("CONFIGSTORE_SEAL_KEYRING") or table.get("keyring")
        self._default = environ.get("CONFIGSTORE_SEAL") or table.get("policy")
        self._found: dict[str, dict[str, Any]] = {}
        for name in together.names_in(preset or environ.get("CONFIGSTORE_PRESET") or ""):
            for each in presets.load(name):
                self._found[each.name] = {"store": each.store}
        tables = document.get("mapping", [])
        for each in tables if isinstance(tables, list) else ():
            if isinstance(each, dict) and isinstance(each.get("name"), str):
                self._found.setdefault(each["name"], {}).update(each)
        for name, keys in self._found.items():
            prefix = f"CONFIGSTORE_MAPPING_{re.sub(r'[^A-Z0-9]', '_', name.upper())}_"
            keys |= {
                key: environ[f"{prefix}{key.upper()}"] for key in _KEYS if f"{prefix}{key.upper()}" in environ
            }

    def mappings(self, keyring: str | None) -> tuple[Sealing, ...]:
        """Return all mappings, with their policies given the keyring that is used. Raises UsageError."""
        usual = Policy.REQUIRED if keyring else Policy.OFF
        return tuple(
            Sealing(
                name=name,
                store=_store(name, keys.get("store", name)),
                policy=_policy(name, keys.get("seal") or self._default or usual),
            )
            for name, keys in self._found.items()
        )


_KEYS = ("store", "seal")


def _store(name: str, value: object) -> StorePath:
    try:
        return ROOT if value == "/" else parse_path(str(value))
    except PathError as error:
        raise UsageError(f"mapping {printable(name)}: store: {error}") from None


def _policy(name: str, value: object) -> Policy:
    try:
        return Policy(parse_policy(value))
    except ValueError as error:
        raise UsageError(f"mapping {printable(name)}: seal: {error}") from None
