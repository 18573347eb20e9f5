"""The check: a command that a set must pass before it is applied here, or published.

It runs in the engine's thread, on a copy of the mapping as it would be (`preview`), without the sidecar's rights.
A set that it refuses is not applied, and not published.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Map

from configstore.errors import RefusedError
from configstore.files.reasons import why_failed
from configstore.model.path import StorePath
from configstore.model.record import Entry, Kind
from sidecar.local.change import LocalChange
from sidecar.mapping import Mapping
from sidecar.planner.plan import Pull, Push
from sidecar.planner.sides import LocalEntry
from sidecar.programs.hooks import run
from sidecar.programs.preview import showing

log = logging.getLogger(__name__)

RETRY = 3.0
"""Seconds after which a check is run again that did not end by itself, such as one that was killed."""

Contents = Callable[[StorePath, Entry], Iterable[bytes]]
"""Returns the content of a local file, in pieces."""

TIMEOUT = 30.0
"""Seconds that a check may take: the engine waits for it, and is stuck after `reporting.stalls.STUCK`."""

RECHECK = 60.0
"""Seconds after which a refused set is checked again although nothing in it changed."""


class Check:
    """The check of one mapping. It remembers what was refused, so that one set is not checked all the time."""

    def __init__(self, mapping: Mapping, clock: Callable[[], float] = time.monotonic) -> None:
        self._mapping = mapping
        self._clock = clock
        self._refused: dict[object, tuple[str, float]] = {}

    @property
    def wanted(self) -> bool:
        """Whether the mapping has a check."""
        return bool(self._mapping.check)

    def known(self, key: object) -> str | None:
        """Return why the set with this key was refused a short while ago, or None."""
        reason, until = self._refused.get(key, ("", 0.0))
        return reason if reason and self._clock() < until else None

    def ask(self, key: object, directory: str) -> str | None:
        """Run the check on a directory with the mapping as it would be; returns why the set is refused, or None.

        `{}` in its arguments is replaced by the directory, which is also CONFIGSTORE_STAGED and its working
        directory.
        """
        command = [part.replace("{}", directory) for part in self._mapping.check]
        more = {"CONFIGSTORE_MAPPING": self._mapping.name, "CONFIGSTORE_STAGED": directory}
        outcome = run(command, cwd=directory, more=more, timeout=TIMEOUT, run_as=self._mapping.run_as)
        self._refused.clear()
        if outcome.failure is None:
            return None
        reason = f"refused by the check: {outcome.reported(self._mapping)}"
        log.error(reason, extra={"mapping": self._mapping.name, "output": outcome.output})
        self._refused[key] = (reason, self._clock() + (RECHECK if outcome.judged else RETRY))
        return reason

    def known_of(self, pulls: Sequence[Pull]) -> str | None:
        """Return why a set that is to be applied was refused a short while ago, or None."""
        return self.known(_key_of(pulls)) if self.wanted else None

    def refuses_to_publish(
        self, pushes: Sequence[Push], local: Map[StorePath, LocalEntry], contents: Contents
    ) -> str | None:
        """Check the mapping as it is here; returns why nothing of it may be published, or None.

        Raises what `contents` raises.
        """
        if not self.wanted:
            return None
        key = tuple((push.path, push.entry) for push in pushes)
        return self.known(key) or self._judge(key, {path: found.entry for path, found in local.items()}, contents)

    def refuses_to_apply(
        self,
        pulls: Sequence[Pull],
        changes: Sequence[LocalChange],
        local: Map[StorePath, LocalEntry],
        contents: Contents,
    ) -> str | None:
        """Check the mapping as it would be after `changes`; returns why they are refused, or None.

        Raises what `contents` and the changes' contents raise.
        """
        if not self.wanted:
            return None
        changed = {change.path: change for change in changes}

        def now(path: StorePath, entry: Entry) -> Iterable[bytes]:
            new = changed[path].content if path in changed else None
            return new() if new else contents(path, entry)

        entries = {path: found.entry for path, found in local.items()}
        return self._judge(_key_of(pulls), entries | {path: each.desired for path, each in changed.items()}, now)

    def _judge(self, key: object, entries: Map[StorePath, Entry], contents: Contents) -> str | None:
        """Run the check on a view of entries; returns why they are refused, or None."""
        try:
            with showing(self._mapping.run_as) as view:
                for path, entry in sorted(entries.items()):
                    if entry.kind is Kind.DIR:
                        view.directory(path)
                    elif entry.kind is Kind.SYMLINK:
                        view.link(path, entry.target)
                    elif entry.kind is Kind.FILE:
                        view.file(path, contents(path, entry))
                return self.ask(key, view.path)
        except RefusedError as error:
            return f"cannot be checked: {error}"
        except OSError as error:
            return f"cannot be checked: what the check must see cannot be laid into memory: {why_failed(error)}"


def _key_of(pulls: Sequence[Pull]) -> object:
    return tuple((pull.path, pull.remote.mod_revision) for pull in pulls)
