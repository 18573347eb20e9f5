"""What each command opens first: keyring, state directory, store, mirrors. Called by `commands` and `parts`."""

import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime

from configstore.clock import boottime
from configstore.errors import RefusedError
from configstore.model.keys import Keys
from configstore.store.connect import connect
from configstore.store.tree import Tree
from configstore.store.values import Writer
from sidecar.config.settings import Config
from sidecar.control.holds import Holds
from sidecar.cycle.mirror import Mirror
from sidecar.daemon.keyring import LiveKeyring
from sidecar.mapping import Mapping
from sidecar.state.directory import StateDirectory


class Opened:
    """The keyring, the state directory and the access to the store, until the stack closes them."""

    def __init__(self, config: Config, stack: ExitStack, *, prepare: bool = True) -> None:
        """Open them; `prepare` makes a missing state directory. Raises ConfigstoreError."""
        self._config = config
        self._stack = stack
        self.keyring = LiveKeyring(config.store.root, config.mappings, config.seal_keyring)
        self.state = stack.enter_context(closing(StateDirectory(config.state, prepare=prepare)))
        self.kv = stack.enter_context(connect(config.store))

    def mirrors(
        self,
        *,
        watch: bool = False,
        preview: bool = False,
        told: Callable[[], None] = lambda: None,
        advanced: Callable[[], None] = lambda: None,
        holds: Holds | None = None,
        unusable: Callable[[Mapping, RefusedError], None] | None = None,
    ) -> list[Mirror]:
        """Return the mirrors of all mappings, until the stack closes them; the options are those of `Mirror`.

        unusable: called for each mapping whose directory cannot be mirrored; without it RefusedError is raised.
        """
        store = self._config.store
        writer = Writer(
            replica=self._config.replica,
            host=socket.gethostname(),
            now=time_now,
            new_id=lambda: secrets.token_hex(12),
        )
        tree = Tree(self.kv, Keys(store.root), writer, envelopes=self.keyring.envelopes, patience=store.timeout)
        mirrors = []
        for mapping in self._config.mappings:
            try:
                mirror = Mirror(
                    mapping,
                    tree,
                    watch=watch,
                    preview=preview,
                    clock=boottime,
                    state=self.state.open,
                    told=told,
                    advanced=advanced,
                    lease=holds.view(mapping.lease) if holds and mapping.lease else None,
                )
            except RefusedError as error:
                if unusable is None:
                    raise
                unusable(mapping, error)
                continue
            self._stack.callback(mirror.close)
            mirrors.append(mirror)
        return mirrors


def time_now() -> str:
    """Return the time of day, RFC 3339, for people."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
