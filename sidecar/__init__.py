"""The daemon that mirrors a subtree of the store into a local directory, both ways.

    local.watch ───┐          ┌── local.scan ───┐
                   ├─ cycle ──┼── state.baseline├─ planner ─┬─ remote.commit ── etcd
    remote.watch ──┘          └── remote.side ──┘           └─ local.apply ──── programs.hooks

`daemon` makes and starts the parts. What asks something of them: `control` (the application), `presence` (commands
and persons, through the store). What they show: `reporting`.
"""

import configstore.process.lean  # noqa: F401  # first: it makes later imports load less
from configstore.process.later import load_later

# Only checks and hooks use these; inotify_simple imports them by ctypes.util, of which nothing is called here.
load_later("shutil", "subprocess", "tempfile")
