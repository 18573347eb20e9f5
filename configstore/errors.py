"""Every failure that a caller of this project sees, each with the exit code that a script may rely on.

An adapter translates what its library raises into one of these, and chains the cause. A single path that cannot be
mirrored is not an exception but a value, `configstore.model.problem.Problem`.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import ClassVar


class ConfigstoreError(Exception):
    """The base of all these classes. Its text says what happened, to what, and what to do."""

    exit_code: ClassVar[int] = 1


class NotThereError(ConfigstoreError):
    """There is nothing at the path, or what was compared differs."""

    exit_code = 1


class UsageError(ConfigstoreError):
    """An option, a settings file or an environment variable is wrong."""

    exit_code = 2


class ConflictError(ConfigstoreError):
    """A compare failed, because another write came first."""

    exit_code = 3


class UnreachableError(ConfigstoreError):
    """The store did not answer in time."""

    exit_code = 4


class RefusedError(ConfigstoreError):
    """A guard, an unsafe input or a missing right stopped the work before anything was changed."""

    exit_code = 5


class StoreError(ConfigstoreError):
    """The base of the errors that a call of the store raises.

    done, unknown: if it ended a commit of several paths, the paths that were written before it with their
    revisions, and the paths of which it is unknown whether they were written, because the answer was lost.
    """

    done: Mapping[str, int] = MappingProxyType({})
    unknown: Collection[str] = ()


class StoreUnavailableError(StoreError, UnreachableError):
    """No member of the store answered within the deadline. A write may or may not have been made."""


class StoreClosedError(StoreUnavailableError):
    """This process has closed the connection, so trying again is useless."""


class PermissionDeniedError(StoreError, RefusedError):
    """The store's access control refused the call; this never means that a key is absent."""


class AuthenticationError(StoreError, RefusedError):
    """The user name, password or client certificate was not accepted."""


class CompactedError(StoreError):
    """The revision asked for was compacted away; list again.

    compact_revision: the oldest revision that is still there, 0 if the server did not report it.
    """

    def __init__(self, message: str, *, compact_revision: int = 0) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision


class FutureRevisionError(StoreError):
    """The revision asked for does not exist yet: the store was restored from an older snapshot."""


class TooLargeError(StoreError, RefusedError):
    """A request exceeds etcd's limit on size or on operations."""


class NoSpaceError(StoreError, RefusedError):
    """etcd's space quota is exhausted: reads work, but writes fail until an operator disarms the alarm."""


class LeaseGoneError(StoreError, ConflictError):
    """The etcd lease expired or was revoked."""


class CorruptError(StoreError):
    """etcd reports lost data, or content does not match its digest."""
