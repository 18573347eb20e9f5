"""Finds files of a single host that are not imported yet, before `bootstrap` makes a root record.

A service starts with what the store has. With an empty subtree that was made before the import, admin would sign
with no key and fetchmail would fetch everything again. So it is made only where there is nothing to import.
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
    """Return the mappings of presets whose subtree is `absent` and which have files in a host's folder.

    A path that cannot be read counts as a file. Raises OSError when there is no such folder, RefusedError for a
    link on the way to it that another user may have made.
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
