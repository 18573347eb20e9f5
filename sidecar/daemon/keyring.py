"""The sidecar's keyring, whose file may be replaced while it runs, and the policy of each path.

The main thread checks the keyring's file every second (`parts.Parts.renew`). With other keys the mappings are
listed again, so that records which no key opened before are read again.
"""

import logging
from collections.abc import Callable, Iterable

from configstore.keyrings.file import KeyringFile
from configstore.model.path import ROOT, StorePath, is_below, printable
from configstore.model.replica import MAX_KEYS
from configstore.model.seal import Policy
from configstore.store.envelope import Envelopes
from sidecar.mapping import Mapping

log = logging.getLogger(__name__)

CHECK = 1.0
"""Seconds between two checks of the keyring's file; each is one stat(2) while it stays the same."""


class LiveKeyring:
    """The sidecar's keyring, and the envelopes that seal and open with it."""

    def __init__(self, root: str, mappings: Iterable[Mapping], keyring: str | None) -> None:
        """`keyring` is the path of its file, None for none. Raises UsageError when it cannot be used."""
        self._mappings = tuple(mappings)
        self._file = KeyringFile(keyring) if keyring else None
        self.envelopes = Envelopes(
            root, keyring=self._file.read() if self._file else None, policy=policy_of(self._mappings)
        )
        self._warn_of_master()

    @property
    def period(self) -> float | None:
        """The seconds until `renew` is due; None: never, since there is no keyring."""
        return CHECK if self._file else None

    @property
    def unreadable(self) -> bool:
        """Whether the keyring's file cannot be used now, so that the keys read before are."""
        return self._file is not None and bool(self._file.trouble)

    @property
    def master(self) -> bool:
        """Whether the keyring is a master key, which opens the whole store."""
        return self._file is not None and self._file.master

    def keys(self, mapping: Mapping) -> tuple[str, ...]:
        """Return the ids of a mapping's keys, first the one that seals."""
        keyring = self.envelopes.keyring
        return tuple(key.id for key in keyring.of(mapping.store))[:MAX_KEYS] if keyring else ()

    def notes(self) -> list[str]:
        """Return what is wrong with the keyring, a sentence each, with the mend; from any thread."""
        found = [self._file.trouble] if self._file and self._file.trouble else []
        return [*found, self._note_of_master()] if self.master else found

    def renew(self) -> tuple[Mapping, ...]:
        """Read the keyring again if its file was replaced, and return the mappings that have other keys now.

        A file that cannot be used is logged once, and the keys read before stay.
        """
        if self._file is None:
            return ()
        trouble, master = self._file.trouble, self.master
        found = self._file.changed()
        if self._file.trouble and self._file.trouble != trouble:
            log.warning("the keyring cannot be read", extra={"reason": self._file.trouble})
        if found is None:
            return ()
        before = list(map(self.keys, self._mappings))
        self.envelopes.keyring = found
        now = list(map(self.keys, self._mappings))
        log.info("the keyring was read again", extra={"keys": [key.id for key in found.keys[:MAX_KEYS]]})
        if not master:
            self._warn_of_master()
        return tuple(mapping for mapping, old, new in zip(self._mappings, before, now, strict=True) if old != new)

    def _warn_of_master(self) -> None:
        if self.master:
            log.warning(self._note_of_master())

    def _note_of_master(self) -> str:
        path = printable(self._file.path) if self._file else ""
        return (
            f"the keyring {path} is a master, which opens the whole store: give this sidecar the keyring of its"
            " own subtrees, which `configstore seal keygen` makes, and keep the master where no service runs"
        )


def policy_of(mappings: Iterable[Mapping]) -> Callable[[StorePath], Policy]:
    """Return a function from a path to its policy: that of the innermost mapping around it; without one, `off`."""
    policies = {mapping.store: mapping.seal or Policy.OFF for mapping in mappings}
    innermost = sorted(policies, key=len, reverse=True)

    def policy(path: StorePath) -> Policy:
        around = (store for store in innermost if store in (ROOT, path) or is_below(path, store))
        return policies.get(next(around, path), Policy.OFF)

    return policy
