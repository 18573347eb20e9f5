"""What stands in for a mapping's engine while its directory cannot be taken: no permission, read-only, not there.

`run` goes on with its other mappings, shows the reason wherever a mapping's state is shown, and tries again. Used
by `mirror`, which puts an engine in its place once the directory can be taken.
"""

import msgspec

from configstore.errors import RefusedError
from configstore.model.path import ROOT, StorePath
from configstore.model.replica import Request
from sidecar.planner.plan import Plan
from sidecar.status import Status

RETRY = 2.0
"""Seconds until a directory that could not be taken is tried again."""


class Untaken:
    """Says why nothing is done. Its methods are those of an engine that others call."""

    def __init__(self, before: Status, reason: str) -> None:
        """before: what the mapping showed last; its counters stay."""
        self.status = msgspec.structs.replace(
            before, ready=False, halted=None, waiting_for=reason, problems=(), pending=0, pending_since=None
        )
        self.reason = reason

    def cycle(self, *, flush: bool = False) -> float:  # noqa: ARG002  # as an engine's
        """Do nothing; returns when to try again, in seconds."""
        return RETRY

    def request(self, request: Request) -> None:
        """Ignore a person's choice: there is no halt that it could end."""

    def unsent(self) -> dict[StorePath, str]:
        """Return why nothing is known of what lies here."""
        return {ROOT: self.reason}

    def pull_once(self) -> list[str]:
        """Return why nothing is complete."""
        return [self.reason]

    def preview(self) -> Plan:
        """Raise RefusedError: there is nothing to plan with."""
        raise RefusedError(self.reason)
