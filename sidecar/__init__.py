"""The daemon that mirrors a subtree of the store into a local directory, both ways.

local.watch ──┐              ┌ local.scan  ┐
├─ wake → engine ┤ baseline    ├→ planner → guards → remote.commit → etcd
remote.watch ─┘              └ remote.fetch ┘                   └→ local.apply → hooks
"""
