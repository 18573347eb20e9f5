"""What a host's folder still holds of data sets that the store has not: `bootstrap` looks before it makes roots.

A service starts on what the store has. An empty root that is made before the import is taken for all there is:
admin signs with no key, fetchmail fetches everything anew. So it is made only where there is nothing to bring in.
"""

import os
from collections.abc import Collection, Iterable

from configstore.files.beneath import Beneath
from configstore.files.descent import descend
from configstore.files.reader import Reader
from configstore.files.walk import open_plain, walk
from configstore.model.path import ROOT, StorePath
from configstore.model.record import Kind
from configstore.presets.single_host import DataSet, data_sets


def left_behind(directory: str, presets: Iterable[str], absent: Collection[StorePath]) -> set[str]:
    """Return the mappings of presets whose subtree is `absent`, and of which a host's folder holds files.

    What cannot be read counts as well: nobody can tell that it is nothing. Raises OSError when there is no such
    folder, RefusedError when a stranger may have put a link on the way to it.
    """
    folder = descend(directory)
    try:
        wanted = [part for preset in presets for part in data_sets(preset, ROOT) if part.store in absent]
        return {part.name for part in wanted if _holds(folder, part)}
    finally:
        os.close(folder)


def _holds(folder: int, part: DataSet) -> bool:
    try:
        top = open_plain(folder, part.host)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        beneath = Beneath(top)
        seen = walk(beneath, Reader(beneath, part.symlinks, part.refuse_empty, linked=True), part.selection)
    finally:
        os.close(top)
    return bool(seen.problems) or any(entry.kind is not Kind.DIR for entry in seen.entries.values())
