"""The parts of one mapping with which a plan is carried out. Shared by `execute`, `push` and `pull`."""

import dataclasses

from configstore.store.tree import Tree
from sidecar.local.apply import Applier
from sidecar.local.scan import Scanner
from sidecar.mapping import Mapping
from sidecar.programs.check import Check
from sidecar.remote.side import RemoteSide
from sidecar.state.baseline import Baseline


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MappingParts:
    """Both sides of a mapping, what they last agreed on, and the check that guards them."""

    mapping: Mapping
    tree: Tree
    baseline: Baseline
    remote: RemoteSide
    scanner: Scanner
    applier: Applier
    check: Check
