"""Opens the mirrors of all mappings, over one access to the store. Called by `commands` and `parts`."""

import secrets
import socket
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime

from configstore.clock import boottime
from configstore.errors import RefusedError
from configstore.model.keys import Keys
from configstore.store.api import Kv
from configstore.store.tree import Tree
from configstore.store.values import Writer
from sidecar.config.settings import Config
from sidecar.control.holds import Holds
from sidecar.cycle.mirror import Mirror
from sidecar.daemon.keyring import LiveKeyring
from sidecar.mapping import Mapping
from sidecar.state.directory import StateDirectory


def open_mirrors(
    config: Config,
    kv: Kv,
    stack: ExitStack,
    state: StateDirectory,
    keyring: LiveKeyring,
    *,
    watch: bool = False,
    preview: bool = False,
    told: Callable[[], None] = lambda: None,
    advanced: Callable[[], None] = lambda: None,
    holds: Holds | None = None,
    unusable: Callable[[Mapping, RefusedError], None] | None = None,
) -> list[Mirror]:
    """Return the mirrors, which `stack` closes; the options are those of `Mirror`.

    unusable: called for each mapping whose directory cannot be mirrored; without it RefusedError is raised.
    """
    writer = Writer(
        replica=config.replica,
        host=socket.gethostname(),
        now=time_now,
        new_id=lambda: secrets.token_hex(12),
    )
    tree = Tree(kv, Keys(config.store.root), writer, envelopes=keyring.envelopes, patience=config.store.timeout)
    mirrors = []
    for mapping in config.mappings:
        try:
            mirror = Mirror(
                mapping,
                tree,
                watch=watch,
                preview=preview,
                clock=boottime,
                state=state.open,
                told=told,
                advanced=advanced,
                lease=holds.view(mapping.lease) if holds and mapping.lease else None,
            )
        except RefusedError as error:
            if unusable is None:
                raise
            unusable(mapping, error)
            continue
        stack.callback(mirror.close)
        mirrors.append(mirror)
    return mirrors


def time_now() -> str:
    """Return the time of day, RFC 3339, for people."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
