"""How a sidecar seals and opens: by its mappings' policies, and by a keyring that may be replaced meanwhile."""

from collections.abc import Callable, Iterable

from configstore.keyring import KeyringFile
from configstore.model.path import ROOT, StorePath, is_below
from configstore.model.seal import Policy
from configstore.store.envelope import Envelopes
from sidecar.planner.mapping import Mapping


class Sealed:
    """The sidecar's keyring, and the envelopes that it makes."""

    def __init__(self, root: str, mappings: Iterable[Mapping], keyring: str | None) -> None:
        """`keyring`: path of its file, None for none. Raises UsageError when it cannot be used."""
        self._file = KeyringFile(keyring) if keyring else None
        self.envelopes = Envelopes(
            root, keyring=self._file.read() if self._file else None, policy=policy_of(mappings)
        )


def policy_of(mappings: Iterable[Mapping]) -> Callable[[StorePath], Policy]:
    """Return what tells the policy of a path: that of the innermost mapping around it."""
    policies = {mapping.store: mapping.seal or Policy.OFF for mapping in mappings}
    innermost = sorted(policies, key=len, reverse=True)

    def policy(path: StorePath) -> Policy:
        around = (store for store in innermost if store in (ROOT, path) or is_below(path, store))
        return policies[next(around)]

    return policy
