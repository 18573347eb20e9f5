"""The meaning of etcd's and gRPC's failures: one table, read from top to bottom; the first match counts.

The texts are those of etcd's api/v3rpc/rpctypes/error.go and of gRPC's core. Codes alone are not enough: etcd uses
RESOURCE_EXHAUSTED for three failures and INVALID_ARGUMENT for many.
"""

import re
from typing import Any, NamedTuple

import grpc

from configstore.errors import (
    AuthenticationError,
    CompactedError,
    ConfigstoreError,
    CorruptError,
    FutureRevisionError,
    LeaseGoneError,
    NoSpaceError,
    PermissionDeniedError,
    StoreError,
    StoreUnavailableError,
    TooLargeError,
)
from configstore.model.path import printable

Code = grpc.StatusCode

MAX_TEXT = 300
"""Characters of the server's own text in a message, at most."""


class Meaning(NamedTuple):
    """A row of the table.

    code: None for any. text: a pattern that is searched in the details.
    error: the class to raise. mend: what the operator can do.
    again: another try may succeed. elsewhere: a try at another endpoint may succeed. unsent: the server certainly
    did not act on the call. login: a new token may help, and the server certainly did not act on the call.
    """

    code: grpc.StatusCode | None
    text: str
    error: type[ConfigstoreError] | type[ValueError]
    mend: str = ""
    again: bool = False
    elsewhere: bool = False
    unsent: bool = False
    login: bool = False

    @property
    def answered(self) -> bool:
        """Whether a majority of etcd's members answered: the store works, but refused this request."""
        return self.code not in {None, Code.UNAVAILABLE} and self.error is not StoreUnavailableError


_TLS_MEND = "check cacert and the names in the server's certificate (or server_name)"
_CLIENT_CERTIFICATE_MEND = "the server refused the client certificate, or wants one: check cert and key"

MEANINGS = (
    Meaning(
        Code.INVALID_ARGUMENT, "request is too large", TooLargeError, "the value is over etcd's request limit"
    ),
    # gRPC's own text, about a message from the server; the next row is the server's text.
    Meaning(
        Code.RESOURCE_EXHAUSTED, "Received message larger than max", TooLargeError, "an answer over our limit"
    ),
    Meaning(Code.RESOURCE_EXHAUSTED, "larger than max", TooLargeError, "the value is over etcd's request limit"),
    Meaning(Code.INVALID_ARGUMENT, "too many operations", TooLargeError, "split the transaction"),
    Meaning(Code.INVALID_ARGUMENT, "duplicate key", ValueError),
    Meaning(Code.INVALID_ARGUMENT, "key not found", ValueError, "a lease can be changed only on an existing key"),
    Meaning(
        Code.RESOURCE_EXHAUSTED,
        "database space exceeded",
        NoSpaceError,
        "compact and defragment etcd, or raise its quota, then `etcdctl alarm disarm`",
    ),
    Meaning(Code.OUT_OF_RANGE, "has been compacted", CompactedError),
    Meaning(Code.OUT_OF_RANGE, "future revision", FutureRevisionError, "was etcd restored from a snapshot?"),
    Meaning(Code.NOT_FOUND, "lease not found", LeaseGoneError),
    Meaning(
        Code.INVALID_ARGUMENT,
        "authentication failed",
        AuthenticationError,
        "check the user and the password (or its file)",
    ),
    Meaning(
        Code.INVALID_ARGUMENT, "user name is empty", AuthenticationError, "set a user and a password", login=True
    ),
    Meaning(Code.INVALID_ARGUMENT, "auth store is old", StoreUnavailableError, again=True, login=True),
    Meaning(Code.UNAUTHENTICATED, "", AuthenticationError, "the token was not accepted", login=True),
    Meaning(
        Code.PERMISSION_DENIED, "", PermissionDeniedError, "`configstore access apply` gives a service its rights"
    ),
    # Before the row about certificates' names: gRPC's resolver says `hostname lookup error` as well.
    Meaning(
        Code.UNAVAILABLE, "DNS resolution failed|[Dd]omain name", StoreUnavailableError, again=True, unsent=True
    ),
    Meaning(
        Code.UNAVAILABLE,
        "CERTIFICATE_VERIFY_FAILED|[Hh]ostname",
        StoreUnavailableError,
        _TLS_MEND,
        elsewhere=True,
        unsent=True,
    ),
    Meaning(
        Code.UNAVAILABLE,
        "TSI_DATA_CORRUPTED|ALERT_[A-Z_]*(CERTIFICATE|UNKNOWN_CA)",
        AuthenticationError,
        _CLIENT_CERTIFICATE_MEND,
    ),
    Meaning(
        Code.UNAVAILABLE,
        "WRONG_VERSION_NUMBER",
        StoreUnavailableError,
        "does this endpoint speak TLS?",
        elsewhere=True,
        unsent=True,
    ),
    Meaning(
        Code.UNAVAILABLE,
        "failed to connect to all addresses.*(Socket closed|Handshake read failed|Connection reset)",
        StoreUnavailableError,
        "http or https: does the endpoint's URL say what the server speaks?",
        again=True,
        unsent=True,
    ),
    # gRPC's pick_first says so when a call had no connection on which it could be sent.
    Meaning(
        Code.UNAVAILABLE, "failed to connect to all addresses", StoreUnavailableError, again=True, unsent=True
    ),
    # The answer to `hasleader` in the metadata, which etcd gives before it reads the request.
    Meaning(Code.UNAVAILABLE, "etcdserver: no leader", StoreUnavailableError, again=True, unsent=True),
    Meaning(Code.RESOURCE_EXHAUSTED, "too many requests", StoreUnavailableError, again=True, unsent=True),
    Meaning(Code.UNAVAILABLE, "", StoreUnavailableError, again=True),
    # gRPC waits for a connection until the deadline, and then does not report why there was none.
    Meaning(
        Code.DEADLINE_EXCEEDED,
        "",
        StoreUnavailableError,
        "does the name resolve, does etcd run there, is the way to its port open?",
        again=True,
    ),
    Meaning(Code.CANCELLED, "", StoreUnavailableError, again=True),
    Meaning(Code.UNKNOWN, "", StoreUnavailableError, again=True),
    Meaning(Code.INTERNAL, "", StoreUnavailableError, again=True),
    Meaning(Code.ABORTED, "", StoreUnavailableError, again=True),
    Meaning(Code.DATA_LOSS, "", CorruptError, "check every member's disk and `etcdctl endpoint hashkv`"),
)

OTHER = Meaning(None, "", StoreError)


def meaning_of(code: grpc.StatusCode, details: str) -> Meaning:
    """Return the row for a failure; OTHER when there is none."""
    return next((row for row in MEANINGS if row.code is code and re.search(row.text, details)), OTHER)


def exception_for(meaning: Meaning, code: grpc.StatusCode, details: str, *, what: str) -> Exception:
    """Return the exception of a row.

    what: the call and the endpoint, such as `range at http://127.0.0.1:2379`. Neither a request's content nor its
    metadata is ever quoted, since they may hold passwords and tokens.
    """
    plain = next((text for known, said, text in _PLAIN if known is code and re.search(said, details)), None)
    text = plain or printable(" ".join(details.split())[:MAX_TEXT]) or "no reason given"
    message = f"{what}: {code.name} {text}"
    if meaning.mend:
        message = f"{message} ({meaning.mend})"
    return meaning.error(message)


_PLAIN = (
    (Code.DEADLINE_EXCEEDED, "", "does not answer"),
    (Code.UNAVAILABLE, "Connection refused", "connection refused"),
)
"""Plain texts for what gRPC says at length: code, pattern, text."""

_SHORT = (
    *_PLAIN,
    (None, "etcdserver: no leader", "no leader: it does not reach a majority of etcd's members"),
    (None, "etcdserver: request timed out", "request timed out: it does not reach a majority of etcd's members"),
)

SHORT_TEXT = 150
"""Characters of the server's own text in a short reason, at most."""


def short_reason(code: grpc.StatusCode, details: str) -> str:
    """Return why a member did not answer, as a short text that follows its URL."""
    for known, said, text in _SHORT:
        if known in {None, code} and re.search(said, details):
            return text
    text, mend = printable(" ".join(details.split())[:SHORT_TEXT]), meaning_of(code, details).mend
    return f"{text or code.name} ({mend})" if mend else text or code.name


def from_a_member(details: str) -> bool:
    """Return whether a failure's text is etcd's own: then the member is alive, whatever it cannot do."""
    return details.startswith("etcdserver: ")


class CallFailedError(Exception):
    """A failed call with its meaning, raised to where it is decided what to do; it never leaves the package."""

    def __init__(self, meaning: Meaning, error: Exception, short: str = "") -> None:
        super().__init__(str(error))
        self.meaning = meaning
        self.error = error
        self.short = short


def code_and_details(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Return the code and the details of a failed call: every RpcError that a call raises is the call itself."""
    call: Any = error
    return call.code() or Code.UNKNOWN, call.details() or ""


def call_failed(error: grpc.RpcError, *, what: str) -> CallFailedError:
    """Return the failure that an error of gRPC's means."""
    code, details = code_and_details(error)
    meaning = meaning_of(code, details)
    error_to_raise = exception_for(meaning, code, details, what=what)
    return CallFailedError(meaning, error_to_raise, short_reason(code, details))
