"""The check that a set must pass before it is applied here, or published: a command that looks at it.

Runs in the engine's thread. It sees the mapping as it would be; a set that it refuses stays where it is.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Map
from typing import Self

from configstore.model.path import StorePath
from configstore.model.record import Kind
from sidecar.hooks import run
from sidecar.local.change import LocalChange
from sidecar.planner.mapping import Mapping
from sidecar.planner.plan import Pull, Push
from sidecar.planner.sides import LocalEntry

log = logging.getLogger(__name__)

TIMEOUT = 30.0
"""Seconds that a check may take: it stands in the mirror's way, and a mirror that makes no progress for longer is
taken for stuck (`progress`)."""

RECHECK = 60.0
"""Seconds after which a set that was refused is checked again, though nothing in it changed."""


class Check:
    """The check of one mapping. Remembers what it refused, so that the same is not asked all the time."""

    def __init__(self, mapping: Mapping, clock: Callable[[], float] = time.monotonic) -> None:
        self._mapping = mapping
        self._clock = clock
        self._refused: dict[object, tuple[str, float]] = {}

    @property
    def wanted(self) -> bool:
        """Whether the mapping has a check."""
        return bool(self._mapping.check)

    def known(self, key: object) -> str | None:
        """Return why a set (named by `key`) was refused not long ago, or None."""
        reason, until = self._refused.get(key, ("", 0.0))
        return reason if reason and self._clock() < until else None

    def ask(self, key: object, directory: str) -> str | None:
        """Run the check on a directory that holds the mapping as it would be; returns why it is refused.

        In its arguments `{}` stands for the directory, which is also CONFIGSTORE_STAGED and its working directory.
        """
        command = [part.replace("{}", directory) for part in self._mapping.check]
        more = {"CONFIGSTORE_MAPPING": self._mapping.name, "CONFIGSTORE_STAGED": directory}
        outcome = run(command, cwd=directory, more=more, timeout=TIMEOUT)
        self._refused.clear()
        if outcome.failure is None:
            return None
        reason = f"refused by the check: {outcome.failure}"
        log.error(reason, extra={"mapping": self._mapping.name, "output": outcome.output})
        self._refused[key] = (reason, self._clock() + RECHECK)
        return reason

    def known_of(self, pulls: Sequence[Pull]) -> str | None:
        """Return why a set that is to be placed was refused not long ago, or None."""
        return self.known(_key_of(pulls)) if self.wanted else None

    def refuses_to_publish(self, pushes: Sequence[Push]) -> str | None:
        """Look at the directory as it is; returns why nothing of it may be published."""
        if not self.wanted:
            return None
        key = tuple((push.path, push.entry) for push in pushes)
        return self.known(key) or self.ask(key, self._mapping.path)

    def refuses_to_apply(
        self,
        pulls: Sequence[Pull],
        changes: Sequence[LocalChange],
        local: Map[StorePath, LocalEntry],
        make_view: "Callable[[], View]",
    ) -> str | None:
        """Look at the directory as it would be; returns why the changes are refused.

        Raises what the changes' contents raise.
        """
        if not self.wanted:
            return None
        entries = {path: found.entry for path, found in local.items()}
        changed = {change.path: change for change in changes}
        entries |= {path: change.desired for path, change in changed.items()}
        with make_view() as view:
            for path, entry in sorted(entries.items()):
                content = changed[path].content if path in changed else None
                if entry.kind is Kind.DIR:
                    view.directory(path)
                elif entry.kind is Kind.SYMLINK:
                    view.link(path, entry.target)
                elif entry.kind is Kind.FILE and content is not None:
                    view.file(path, content())
                elif entry.kind is Kind.FILE:
                    view.unchanged(path)
            return self.ask(_key_of(pulls), view.path)


def _key_of(pulls: Sequence[Pull]) -> object:
    return tuple((pull.path, pull.remote.mod_revision) for pull in pulls)


class View:
    """A directory that shows a mapping as it would be: what stays, by links; what changes, by its new content."""

    def __init__(self, private: str, root: str) -> None:
        """Make it in `private`, a directory of our own; `root` is the mapping's."""
        self.path = os.path.join(private, "check")
        self._root = root

    def __enter__(self) -> Self:
        """Begin with an empty one."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.mkdir(self.path, 0o700)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)

    def directory(self, path: StorePath) -> None:
        """Show a directory."""
        os.makedirs(self._at(path), mode=0o700, exist_ok=True)

    def unchanged(self, path: StorePath) -> None:
        """Show what lies in the mapping, be it a file."""
        self._link(path, os.path.join(self._root, path))

    def link(self, path: StorePath, target: str) -> None:
        """Show a symlink."""
        self._link(path, target)

    def file(self, path: StorePath, content: Iterable[bytes]) -> None:
        """Show new content, given in pieces."""
        self._above(path)
        descriptor = os.open(self._at(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            file.writelines(content)

    def _link(self, path: StorePath, target: str) -> None:
        self._above(path)
        os.symlink(target, self._at(path))

    def _above(self, path: StorePath) -> None:
        os.makedirs(os.path.dirname(self._at(path)), mode=0o700, exist_ok=True)

    def _at(self, path: StorePath) -> str:
        return os.path.join(self.path, path)
