"""Every failure that leaves this project, each with the exit code a script may rely on.

Adapters translate what their library raises into one of these and chain the cause. A single path that cannot
be mirrored is not an exception but a value, `configstore.model.problem.Problem`.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import ClassVar


class ConfigstoreError(Exception):
    """The root of the tree; its text tells an operator what happened, to what, and what to do."""

    exit_code: ClassVar[int] = 1


class NotThereError(ConfigstoreError):
    """The path holds nothing, or what is compared differs."""

    exit_code = 1


class UsageError(ConfigstoreError):
    """An option, a settings file or an environment variable is wrong."""

    exit_code = 2


class ConflictError(ConfigstoreError):
    """A compare failed: somebody else's write came first."""

    exit_code = 3


class UnreachableError(ConfigstoreError):
    """The store did not answer in time."""

    exit_code = 4


class RefusedError(ConfigstoreError):
    """A guard, an unsafe input or missing rights stopped the work before anything was changed."""

    exit_code = 5


class StoreError(ConfigstoreError):
    """Base of what a store's adapter raises about one call.

    done, unknown: where it ended a commit of several paths, those that were written before it with their
    revisions, and those of which nobody knows whether they were, since the answer was lost.
    """

    done: Mapping[str, int] = MappingProxyType({})
    unknown: Collection[str] = ()


class StoreUnavailableError(StoreError, UnreachableError):
    """No member answered within the deadline. A write may or may not have been made."""


class StoreClosedError(StoreUnavailableError):
    """We have closed the connection ourselves: to try again is in vain."""


class PermissionDeniedError(StoreError, RefusedError):
    """Access control refused; this never means that a key is absent."""


class AuthenticationError(StoreError, RefusedError):
    """The user name, password or client certificate was not accepted."""


class CompactedError(StoreError):
    """The revision asked for was compacted away; list again.

    `compact_revision` is the oldest revision still there, 0 when the server did not say.
    """

    def __init__(self, message: str, *, compact_revision: int = 0) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision


class FutureRevisionError(StoreError):
    """The revision asked for does not exist yet: the store was restored from an older snapshot."""


class TooLargeError(StoreError, RefusedError):
    """One request is over etcd's limit on size or on operations."""


class NoSpaceError(StoreError, RefusedError):
    """etcd's space quota is exhausted: reads go on, writes fail until an operator disarms the alarm."""


class LeaseGoneError(StoreError, ConflictError):
    """The etcd lease expired or was revoked."""


class CorruptError(StoreError):
    """etcd reports data loss, or content does not match its digest."""
