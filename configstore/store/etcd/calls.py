"""Makes a call: under a deadline, with a token, at another endpoint when one fails, again if that is safe."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

import grpc
import tenacity

from configstore.clock import boottime
from configstore.errors import StoreClosedError, StoreUnavailableError
from configstore.settings import StoreSettings
from configstore.store.etcd.connection import Connection, Connections, Metadata
from configstore.store.etcd.contact import LastContact
from configstore.store.etcd.errors import CallFailedError, Meaning, call_failed
from configstore.store.etcd.login import Login
from configstore.store.etcd.stubs import Message

FIRST_WAIT = 0.1
"""Seconds before the second round of the endpoints, at most; doubles each round. A random part is waited."""

LONGEST_WAIT = 2.0
"""Seconds before a further round, at most."""

ANSWERED_BY_ONE_MEMBER = frozenset({"status", "lease keepalive", "login"})
"""Calls that a member answers without the others, or that send nothing: they prove no contact with the store."""


class Method(Protocol):
    """One RPC on a given connection."""

    def __call__(self, connection: Connection, timeout: float, metadata: Metadata) -> Message:
        """Make it once within `timeout` seconds. Raises grpc.RpcError."""
        ...


def unary(service: str, name: str, request: Message) -> Method:
    """Return the RPC `name` of a connection's stub, with one request and one answer."""

    def method(connection: Connection, timeout: float, metadata: Metadata) -> Message:
        return getattr(getattr(connection, service), name)(request, timeout=timeout, metadata=metadata)

    return method


class Calls:
    """Makes calls on the connection in use. Safe for use by several threads."""

    def __init__(self, settings: StoreSettings) -> None:
        self.timeout = settings.timeout
        self.connections = Connections(settings)
        self.login = Login(settings)
        self.contact = LastContact()
        self.closed = threading.Event()
        self._repeating = self._retrying(lambda _: True)
        self._resending = self._retrying(lambda meaning: meaning.unsent)

    def _retrying(self, allowed: Callable[[Meaning], bool]) -> tenacity.Retrying:
        """Return the rule by which calls are tried again after failures that `allowed` accepts."""
        rounds = tenacity.wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)

        def first_round(state: tenacity.RetryCallState) -> bool:
            return state.attempt_number < len(self.connections)

        def wait(state: tenacity.RetryCallState) -> float:
            return 0.0 if first_round(state) else rounds(state)

        def again(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            if not isinstance(error, CallFailedError) or not allowed(error.meaning):
                return False
            return error.meaning.again or (error.meaning.elsewhere and first_round(state))

        def stop(state: tenacity.RetryCallState) -> bool:
            deadline: float = state.args[-1]
            return self.closed.is_set() or time.monotonic() + state.upcoming_sleep >= deadline

        return tenacity.Retrying(
            retry=again,
            wait=wait,
            stop=stop,
            sleep=tenacity.sleep_using_event(self.closed),
            reraise=True,
        )

    def repeatable(self, name: str, method: Method) -> Message:
        """Make a call that does no harm when made twice; try again while `timeout` and the failures allow it.

        Raises the errors of `errors.MEANINGS`.
        """
        return self._call_until(self._repeating, name, method)

    def once(self, name: str, method: Method) -> Message:
        """Make a call that must not be made twice; try again only if the server certainly did not act on it.

        Raises the errors of `errors.MEANINGS`; after StoreUnavailableError it may have been made.
        """
        return self._call_until(self._resending, name, method)

    def _call_until(self, retrying: tenacity.Retrying, name: str, method: Method) -> Message:
        deadline = time.monotonic() + self.timeout
        try:
            return self._attempt(name, method, deadline)
        except CallFailedError as failure:
            first = [failure]

        def attempt(name: str, method: Method, deadline: float) -> Message:
            """Make the attempt above the first one: tenacity's 30 µs are a tenth of a small read's CPU time."""
            if first:
                raise first.pop()
            return self._attempt(name, method, deadline)

        try:
            return retrying(attempt, name, method, deadline)
        except CallFailedError as failure:
            raise failure.error from failure.__cause__

    def _attempt(self, name: str, method: Method, deadline: float) -> Message:
        """Make a call at the endpoint in use, and once more with a new token if the old one was refused.

        Raises CallFailedError, after which another endpoint is in use if that may help.
        """
        connection = self.connections.current()
        with connection:
            limit = min(deadline, time.monotonic() + self.attempt_timeout)
            try:
                metadata = self.login.metadata(connection, limit)
                try:
                    return self._call(name, method, connection, limit, metadata)
                except CallFailedError as failure:
                    if not (failure.meaning.login and self.login.needed):
                        raise
                self.login.forget(metadata)
                metadata = self.login.metadata(connection, limit)
                return self._call(name, method, connection, limit, metadata)
            except CallFailedError as failure:
                if failure.meaning.error is StoreUnavailableError:
                    self.connections.failed(connection)
                raise

    @property
    def attempt_timeout(self) -> float:
        """Seconds for one try, so that every endpoint is tried within `timeout`."""
        return self.timeout / len(self.connections)

    def _call(
        self, name: str, method: Method, connection: Connection, limit: float, metadata: Metadata
    ) -> Message:
        asked = boottime()
        try:
            answer = method(connection, max(0.001, limit - time.monotonic()), metadata)
        except grpc.RpcError as error:
            failure = call_failed(error, what=f"{name} at {connection.endpoint}")
            if name not in ANSWERED_BY_ONE_MEMBER:
                if failure.meaning.answered:
                    self.contact.answered()
                else:
                    self.contact.failed(str(connection.endpoint), failure.short, asked)
            raise failure from error
        except ValueError as error:
            if self.closed.is_set():  # grpc: "Cannot invoke RPC on closed channel!"
                raise StoreClosedError("the connection to the store was closed") from error
            raise
        if name not in ANSWERED_BY_ONE_MEMBER:
            self.contact.answered()
        return answer

    def close(self) -> None:
        """End the calls that wait, and close the channels."""
        self.closed.set()
        self.connections.close()
