"""What lies below a directory by revisions alone: cheap enough to be looked at every minute."""

import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from configstore.errors import NotThereError
from configstore.model.keys import Keys
from configstore.model.path import PathError, StorePath
from configstore.store.api import Kv, range_all


class SubtreeRevisions(msgspec.Struct, frozen=True, kw_only=True):
    """The mod_revisions of all records below a directory at one revision of one cluster, without the records."""

    revision: int
    cluster_id: int
    mod_revisions: dict[StorePath, int]

    @property
    def newest(self) -> int:
        """The revision of the last change among them, 0 for none."""
        return max(self.mod_revisions.values(), default=0)


def survey(kv: Kv, keys: Keys, directory: StorePath) -> SubtreeRevisions:
    """Return the mod_revisions of all records below a directory, itself not included. Raises StoreError."""
    revision = cluster_id = 0
    found: dict[StorePath, int] = {}
    for page in range_all(kv, *keys.files_below(directory), keys_only=True):
        revision, cluster_id = revision or page.revision, page.cluster_id
        for item in page.items:
            with suppress(PathError):
                found[keys.path_of_file(item.key)] = item.mod_revision
    return SubtreeRevisions(revision=revision, cluster_id=cluster_id, mod_revisions=found)


def revision_due(
    kv: Kv,
    keys: Keys,
    directory: StorePath,
    *,
    asked: int | None,
    patience: float,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Return what must be applied of a directory for all that changed there up to revision `asked` to be so.

    asked: of the whole store, so that another directory's change may have it; None: the directory's newest. One to
    which the store has not come is waited for, at most `patience` seconds. Raises NotThereError, StoreError.
    """
    end, wait = time.monotonic() + patience, 0.05
    while asked is not None and (now := kv.range(keys.file(directory), keys_only=True).revision) < asked:
        if time.monotonic() >= end:
            raise NotThereError(f"revision {asked} is not applied yet: the store has come to {now} only")
        pause(wait)
        wait = min(1.0, 2 * wait)
    newest = survey(kv, keys, directory).newest
    return newest if asked is None else min(asked, newest)
