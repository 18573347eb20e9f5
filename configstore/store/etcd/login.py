"""The token of a user with a password: fetched when it is first needed, and again when the server refuses it.

Every member accepts a token, so one serves all connections. The password file is read at every login, so that a
rotated password needs no restart. Called by `calls`, `watch` and `liveness`.
"""

import threading
import time

import grpc

from configstore.errors import AuthenticationError
from configstore.settings import StoreSettings
from configstore.store.etcd.connection import Connection, Metadata
from configstore.store.etcd.errors import call_failed, code_and_details
from configstore.store.etcd.stubs import rpc

HAS_LEADER: Metadata = (("hasleader", "true"),)
"""Metadata by which a member without a leader answers UNAVAILABLE instead of staying silent."""

MAX_TOKEN = 4096
"""Characters of a token, at most: it is in a header of each call."""


class Login:
    """The login of one user. Safe for use by several threads."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._token: str | None = None
        self._lock = threading.Lock()

    @property
    def needed(self) -> bool:
        """Whether a user is configured."""
        return self._settings.user is not None

    def metadata(self, connection: Connection, deadline: float) -> Metadata:
        """Return the metadata of a call, after a login if one is due.

        deadline: on the monotonic clock. Raises CallFailedError and AuthenticationError.
        """
        if not self.needed:
            return HAS_LEADER
        with self._lock:
            if self._token is None:
                self._token = self._authenticate(connection, deadline)
            return (*HAS_LEADER, ("token", self._token)) if self._token else HAS_LEADER

    def metadata_at_hand(self) -> Metadata:
        """Return the metadata of a call without a login: for a call whose refusal is an answer as well."""
        token = self._token  # without the lock, which a login holds for as long as a server is silent
        return (*HAS_LEADER, ("token", token)) if token else HAS_LEADER

    def forget(self, metadata: Metadata) -> None:
        """Drop the token in this metadata, unless it was replaced already."""
        token = dict(metadata).get("token", "")
        with self._lock:
            if self._token == token:
                self._token = None

    def _authenticate(self, connection: Connection, deadline: float) -> str:
        """Return a new token; empty if access control is switched off."""
        request = rpc.AuthenticateRequest(name=self._settings.user, password=self._password())
        try:
            answer = connection.auth.Authenticate(
                request, timeout=max(0.001, deadline - time.monotonic()), metadata=HAS_LEADER
            )
        except grpc.RpcError as error:
            if "authentication is not enabled" in code_and_details(error)[1]:
                return ""
            raise call_failed(error, what=f"login at {connection.endpoint}") from error
        token = str(answer.token)
        if len(token) > MAX_TOKEN or not (token.isascii() and token.isprintable()):
            raise AuthenticationError(f"login at {connection.endpoint}: the server's token makes no sense")
        return token

    def _password(self) -> str:
        path = self._settings.password_file
        if path is None:
            return self._settings.password or ""
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().rstrip("\r\n")
        except OSError as error:
            raise AuthenticationError(f"password_file {path}: {error.strerror}") from error
