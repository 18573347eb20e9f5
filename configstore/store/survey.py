"""What lies below a directory by revisions alone: cheap enough to be looked at every minute."""

from contextlib import suppress

import msgspec

from configstore.model.keys import Keys
from configstore.model.path import PathError, StorePath
from configstore.store.api import Kv, range_all


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """The mod_revisions of all records below a directory at one revision of one cluster, without the records."""

    revision: int
    cluster_id: int
    mod_revisions: dict[StorePath, int]

    @property
    def newest(self) -> int:
        """The revision of the last change among them, 0 for none."""
        return max(self.mod_revisions.values(), default=0)


def survey(kv: Kv, keys: Keys, directory: StorePath) -> Survey:
    """Return the mod_revisions of all records below a directory, itself not included. Raises StoreError."""
    revision = cluster_id = 0
    found: dict[StorePath, int] = {}
    for page in range_all(kv, *keys.files_below(directory), keys_only=True):
        revision, cluster_id = revision or page.revision, page.cluster_id
        for item in page.items:
            with suppress(PathError):
                found[keys.path_of_file(item.key)] = item.mod_revision
    return Survey(revision=revision, cluster_id=cluster_id, mod_revisions=found)
