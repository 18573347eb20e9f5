"""Asks an endpoint over HTTP, with the same TLS settings, for its certificate, clock and quota.

gRPC gives none of these: it hides the certificate, and etcd's answers carry no time. Called by `endpoints`.
"""

import email.utils
import http.client
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from configstore.doctor.facts import HttpAnswer, Refusal
from configstore.expiry import Validity
from configstore.model.endpoint import EndpointAddress, parse_endpoint
from configstore.settings import StoreSettings

_QUOTA = re.compile(rb"^etcd_server_quota_backend_bytes ([0-9.e+]+)$", re.MULTILINE)

# OpenSSL's X509_V_ERR_* (x509_vfy.h).
_VERIFICATION = {
    9: Refusal.NOT_YET,
    10: Refusal.EXPIRED,
    18: Refusal.AUTHORITY,
    19: Refusal.AUTHORITY,
    20: Refusal.AUTHORITY,
    21: Refusal.AUTHORITY,
    62: Refusal.NAME,
    64: Refusal.NAME,
}

_FAILURES = (OSError, http.client.HTTPException, ValueError, OverflowError)

_MAX_BODY = 8 << 20
"""Bytes of an answer that are read at most; etcd's /metrics has about 150 kB."""


def probe(url: str, settings: StoreSettings, patience: float) -> HttpAnswer:
    """Return what an endpoint answers; each step may take `patience` seconds. A failure is part of the answer."""
    where = parse_endpoint(url)
    try:
        context = context_of(settings) if where.secure else None
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        return HttpAnswer(refusal=Refusal.FILES, detail=_text(error), silent=Refusal.FILES)
    try:
        with _connection(where, context, settings, patience) as (connection, certificate):
            return _ask(connection, certificate, client=settings.cert is not None)
    except ssl.SSLError as error:
        refusal = refusal_of(error)
        if refusal is Refusal.OTHER and _speaks_plainly(where, patience):
            refusal = Refusal.PLAIN
        names = _names(where, settings, patience) if refusal is Refusal.NAME else ()
        return HttpAnswer(refusal=refusal, detail=_text(error), names=names, silent=refusal)
    except _FAILURES as error:
        # A server without TLS may answer a handshake with bad bytes, the end of the stream, or a reset.
        if context and _speaks_plainly(where, patience):
            return HttpAnswer(refusal=Refusal.PLAIN, detail=_text(error), silent=Refusal.PLAIN)
        return HttpAnswer(silent=_text(error))


Certificate = dict[str, Any]
"""A verified certificate as `ssl.SSLSocket.getpeercert` returns it; empty without TLS."""


def context_of(settings: StoreSettings) -> "ssl.SSLContext":
    """Return what a certificate is judged by, as gRPC judges it."""
    context = ssl.create_default_context(cafile=settings.cacert)
    # From Python 3.13 on the default is stricter than gRPC, with which all other calls reach etcd.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if settings.cert:
        context.load_cert_chain(settings.cert, settings.key, password="")  # never ask on the terminal
    return context


@contextmanager
def _connection(
    where: EndpointAddress, context: "ssl.SSLContext | None", settings: StoreSettings, patience: float
) -> Iterator[tuple[http.client.HTTPConnection, Certificate]]:
    """Connect, and yield the connection with the server's certificate. Raises OSError."""
    host, port = where.hostname, where.port
    connection = http.client.HTTPConnection(host, port)
    connection.auto_open = 0  # otherwise it would connect again, without TLS
    certificate: Certificate = {}
    channel = socket.create_connection((host, port), timeout=patience)
    try:
        if context:
            channel = secure = context.wrap_socket(channel, server_hostname=settings.server_name or host)
            certificate = secure.getpeercert() or {}
        connection.sock = channel
        yield connection, certificate
    finally:
        connection.close()
        channel.close()


def _ask(connection: http.client.HTTPConnection, certificate: Certificate, *, client: bool) -> HttpAnswer:
    """Ask for clock and quota. A server may refuse the handshake only when the first request arrives.

    client: whether a client certificate was offered.
    """
    validity = (
        Validity(*(ssl.cert_time_to_seconds(certificate[date]) for date in ("notBefore", "notAfter")))
        if certificate
        else None
    )
    ahead = quota = None
    try:
        begun = time.time()
        date, _ = _get(connection, "/version")
        middle = (begun + time.time()) / 2
        # The header counts whole seconds: half a second is the best guess at the fraction.
        ahead = email.utils.parsedate_to_datetime(date).timestamp() + 0.5 - middle
        _, metrics = _get(connection, "/metrics")
        found = _QUOTA.search(metrics)
        quota = int(float(found[1])) if found else None
        silent = "" if found else "/metrics does not say"
    except ssl.SSLEOFError as error:
        return ended(error, validity, client=client)
    except ssl.SSLError:
        raise
    except ConnectionError as error:
        return ended(error, validity, client=client)
    except _FAILURES as error:
        silent = _text(error)
    return HttpAnswer(certificate=validity, clock_ahead=ahead, quota=quota, silent=silent)


def ended(error: Exception, validity: Validity | None, *, client: bool) -> HttpAnswer:
    """Return what the end of a connection between the handshake and the first answer means.

    With TLS 1.3 a server checks the client's certificate after the handshake. Its alert is lost when this side
    sees the end of the connection first.
    """
    if validity is None or client:
        return HttpAnswer(certificate=validity, silent=_text(error))
    detail = f"no client certificate is set, and the server ends the connection: {_text(error)}"
    return HttpAnswer(refusal=Refusal.CLIENT, detail=detail, silent=Refusal.CLIENT)


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[str, bytes]:
    """Return the answer's date and its body. Raises _FAILURES."""
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read(_MAX_BODY)
    if answer.status != http.HTTPStatus.OK:
        raise ValueError(f"{path} answers {answer.status}")
    return answer.headers.get("Date", ""), body


def _speaks_plainly(where: EndpointAddress, patience: float) -> bool:
    """Return whether an etcd answers there without TLS. Sends no secret."""
    try:
        with _connection(where, None, StoreSettings(), patience) as (connection, _):
            return b"etcdserver" in _get(connection, "/version")[1]
    except _FAILURES:
        return False


def _names(where: EndpointAddress, settings: StoreSettings, patience: float) -> tuple[str, ...]:
    """Return the names in the server's certificate, if a trusted authority signed it."""
    context = context_of(settings)
    context.check_hostname = False
    try:
        with _connection(where, context, settings, patience) as (_, certificate):
            return tuple(name for _, name in certificate.get("subjectAltName", ()))
    except OSError:
        return ()


def refusal_of(error: "ssl.SSLError") -> Refusal:
    """Return why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFICATION.get(error.verify_code, Refusal.UNFIT)
    # Where Python's table is older than OpenSSL, the reason is only in the text, with spaces.
    reason = f"{error.reason or ''} {error}".upper().replace(" ", "_")
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return Refusal.CLIENT
    return Refusal.PLAIN if "WRONG_VERSION_NUMBER" in reason or "HTTP_REQUEST" in reason else Refusal.OTHER


def _text(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
