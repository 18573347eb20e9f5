"""The revisions of all records below a directory, without the records: cheap enough to be read every minute.

Called by the mirror, to compare the store with what its watch reported, and by whoever waits for a revision.
"""

import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from configstore.errors import NotThereError
from configstore.model.path import PathError, StorePath
from configstore.store.api import range_all
from configstore.store.store import Store


class SubtreeRevisions(msgspec.Struct, frozen=True, kw_only=True):
    """The mod_revisions of all records below a directory, at one revision of one cluster."""

    revision: int
    cluster_id: int
    mod_revisions: dict[StorePath, int]

    @property
    def newest(self) -> int:
        """The revision of the last change among them, 0 for none."""
        return max(self.mod_revisions.values(), default=0)


def revisions_below(store: Store, directory: StorePath) -> SubtreeRevisions:
    """Return the mod_revisions of all records below a directory, without its own. Raises StoreError."""
    revision = cluster_id = 0
    found: dict[StorePath, int] = {}
    for page in range_all(store.kv, *store.keys.files_below(directory), keys_only=True):
        revision, cluster_id = revision or page.revision, page.cluster_id
        for item in page.items:
            with suppress(PathError):
                found[store.keys.path_of_file(item.key)] = item.mod_revision
    return SubtreeRevisions(revision=revision, cluster_id=cluster_id, mod_revisions=found)


def revision_due(
    store: Store,
    directory: StorePath,
    *,
    asked: int | None,
    patience: float,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Return the revision of a directory that must be applied so that all its changes up to `asked` are.

    asked: a revision of the whole store, so it may be that of another directory's change; None: the directory's
    newest. If the store has not reached it yet, it is waited for, at most `patience` seconds.
    Raises NotThereError, StoreError.
    """
    end, wait = time.monotonic() + patience, 0.05
    while asked is not None and (now := store.revision(directory)) < asked:
        if time.monotonic() >= end:
            raise NotThereError(f"revision {asked} is not applied yet: the store has come to {now} only")
        pause(wait)
        wait = min(1.0, 2 * wait)
    newest = revisions_below(store, directory).newest
    return newest if asked is None else min(asked, newest)
