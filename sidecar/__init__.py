"""The daemon that mirrors a subtree of the store into a local directory, both ways.

local.watch ──┐              ┌ local.scan  ┐
├─ wake → engine ┤ baseline    ├→ planner → guards → remote.commit → etcd
remote.watch ─┘              └ remote.side ┘                    └→ local.apply → hooks
"""

import configstore.process.lean  # noqa: F401 - before all that loads less by it
from configstore.process.later import load_later

# Of use for checks and hooks alone; inotify_simple imports them with ctypes.util, of which it needs nothing here.
load_later("shutil", "subprocess", "tempfile")
