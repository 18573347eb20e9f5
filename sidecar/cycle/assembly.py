"""Opens the mirrored directory of one mapping and puts its engine together. Called by `mirror`.

The order of the steps, each of which the later ones rely on:

1. The state directory is opened and locked. Its baseline names the mark by which the mirrored directory is known.
2. The mirrored directory is opened, checked, and locked against other sidecars before anything in it is changed.
3. The baseline is read; one with another mark is about another directory and counts for nothing.
4. What a crash left half-done is finished, and agreed on; only then staging directory and journal are cleared.
5. The local watch begins. The engine's first scan comes after it, so that no change falls in between.
"""

import dataclasses
import secrets
from collections.abc import Callable
from contextlib import ExitStack

from configstore.errors import RefusedError
from configstore.files.reasons import why_failed
from configstore.model.path import PRIVATE_NAME
from configstore.model.selection import Direction
from configstore.store.tree import Tree
from sidecar.cycle.engine import Engine
from sidecar.cycle.execute import PlanExecutor
from sidecar.cycle.parts import MappingParts
from sidecar.local.apply import Applier
from sidecar.local.journal import Journal
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.recovery import recover
from sidecar.local.scan import Scanner
from sidecar.local.side import LocalSide
from sidecar.local.watch import LocalWatch
from sidecar.mapping import Mapping
from sidecar.programs.check import Check
from sidecar.remote.side import RemoteSide
from sidecar.remote.watch import RemoteFeed
from sidecar.state.baseline import Baseline, Identity, mark_in
from sidecar.state.directory import StateLocation


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Assembly:
    """Puts an engine together, and again when the mirrored directory was replaced. Its fields stay the same.

    open_state: opens the state directory, as `StateDirectory.open`; None if the state is in the mount. make_watch:
    starts a local watch, or returns None where changes are not followed. make_engine: takes the parts made here.
    preview: change nothing.
    """

    mapping: Mapping
    tree: Tree
    feed: RemoteFeed
    open_state: Callable[[str, str], StateLocation | None]
    make_watch: Callable[[MirroredDirectory], LocalWatch | None]
    make_engine: Callable[..., Engine]
    clock: Callable[[], float]
    preview: bool

    def open(self, resources: ExitStack) -> tuple[Engine, RemoteSide]:
        """Open everything, to be closed by `resources`. Raises RefusedError."""
        mapping = self.mapping
        location = self.open_state(mapping.name, mapping.path)
        if location:
            resources.callback(location.close)
        root = MirroredDirectory(
            mapping.path,
            within=mapping.within,
            mark=mark_in(location.descriptor) if location else "",
            prepare=not self.preview,
            only_read=mapping.direction is Direction.PUSH,
        )
        resources.callback(root.close)
        if not self.preview:
            root.claim()
        baseline, journal = self._open_baseline(root, location, resources)
        watch = self.make_watch(root)
        if watch:
            resources.callback(watch.close)
        scanner = Scanner(root, mapping, watch)
        remote = RemoteSide(
            self.tree,
            mapping,
            baseline.sides,
            feed=self.feed,
            agree=baseline.agree_with_own,
            clock=self.clock,
        )
        parts = MappingParts(
            mapping=mapping,
            tree=self.tree,
            baseline=baseline,
            remote=remote,
            scanner=scanner,
            applier=Applier(root, mapping, journal, scanner.note, watch),
            check=Check(mapping),
        )
        local = LocalSide(mapping, baseline.sides, root=root, scanner=scanner, watch=watch, clock=self.clock)
        executor = PlanExecutor(parts)
        return self.make_engine(baseline=baseline, local=local, remote=remote, executor=executor), remote

    def _open_baseline(
        self, root: MirroredDirectory, location: StateLocation | None, resources: ExitStack
    ) -> tuple[Baseline, Journal]:
        """Read the baseline of this directory and finish what a dead process began. Raises RefusedError.

        - A journal counts only with a baseline of the same mark.
        - Older versions kept both in the mount. They count once, at the first start with a state directory, and
          only if no other user can have written them; then they are removed.
        - A read-only directory cannot bear a mark, so each start takes a random one: no baseline counts there.
        """
        private = root.private
        if root.read_only and location is None and not self.preview:
            raise RefusedError(
                f"{root.path}: is read-only, and what is remembered would lie in it: give the sidecar a directory"
                " of its own for that ([state] directory, CONFIGSTORE_STATE)"
            )
        exclusive = location is not None
        directory = location.descriptor if location else private.fd
        first = self.preview or location is None or location.is_new
        older = private.fd if first and (private.surely_ours or self.preview) else -1
        try:
            if root.read_only:
                private.mark = secrets.token_hex(16)
            elif not private.mark and not self.preview:
                private.renew_mark()
            identity = Identity(root=self.tree.keys.root, store=self.mapping.store, mark=private.mark)
            baseline = Baseline(directory, identity, exclusive=exclusive, older=older, read_only=self.preview)
            resources.callback(baseline.close)
            journal = Journal(directory, exclusive=exclusive)
            resources.callback(journal.close)
            if not self.preview:
                before = Journal(older, exclusive=True)
                if not root.read_only:
                    baseline.agree(recover(root, before if baseline.is_new else journal))
                    private.clear_staging()
                journal.clear()
                if older >= 0 and older != directory:
                    before.remove()
        except OSError as error:
            where = location.path if location else f"{root.path}/{PRIVATE_NAME}"
            reason = f"what a dead run left cannot be finished, or {where} cannot be used: {why_failed(error)}"
            raise RefusedError(f"{root.path}: cannot be mirrored: {reason}") from error
        return baseline, journal
