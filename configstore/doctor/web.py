"""What an endpoint shows over HTTP, by the same TLS settings: certificate, clock, quota.

gRPC tells none of these: it hides the certificate, and etcd's answers carry no time. Called by `gather`.
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

from configstore.doctor.facts import Refusal, Web
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
"""Bytes of an answer that are read; etcd's /metrics has some 150 kB."""


def visit(url: str, settings: StoreSettings, patience: float) -> Web:
    """Look at an endpoint; each step may take `patience` seconds. What fails is a part of the answer."""
    where = parse_endpoint(url)
    try:
        context = context_of(settings) if where.secure else None
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        return Web(refusal=Refusal.FILES, detail=_words(error), silent=Refusal.FILES)
    try:
        with _connection(where, context, settings, patience) as (connection, certificate):
            return _ask(connection, certificate, client=settings.cert is not None)
    except ssl.SSLError as error:
        refusal = refusal_of(error)
        if refusal is Refusal.OTHER and _speaks_plainly(where, patience):
            refusal = Refusal.PLAIN
        names = _names(where, settings, patience) if refusal is Refusal.NAME else ()
        return Web(refusal=refusal, detail=_words(error), names=names, silent=refusal)
    except _FAILURES as error:
        # What a plain server makes of a handshake is not settled: bad bytes, the end of the stream, or a reset.
        if context and _speaks_plainly(where, patience):
            return Web(refusal=Refusal.PLAIN, detail=_words(error), silent=Refusal.PLAIN)
        return Web(silent=_words(error))


Certificate = dict[str, Any]
"""As Python's ssl module shows one that was verified; empty without TLS."""


def context_of(settings: StoreSettings) -> "ssl.SSLContext":
    """Return what a certificate is judged by, as gRPC judges it."""
    context = ssl.create_default_context(cafile=settings.cacert)
    # From Python 3.13 on the default asks more of a certificate than gRPC does, which is what talks with etcd.
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
    connection.auto_open = 0  # else it would connect again, without TLS
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


def _ask(connection: http.client.HTTPConnection, certificate: Certificate, *, client: bool) -> Web:
    """Ask for clock and quota, as far as they can be had; a refused handshake may show only here.

    client: whether a certificate of ours was offered.
    """
    validity = Validity(*map(ssl.cert_time_to_seconds, _dates(certificate))) if certificate else None
    ahead = quota = None
    try:
        begun = time.time()
        date, _ = _get(connection, "/version")
        middle = (begun + time.time()) / 2
        # The header counts whole seconds: half a second is the best guess at the rest.
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
        silent = _words(error)
    return Web(certificate=validity, clock_ahead=ahead, quota=quota, silent=silent)


def ended(error: Exception, validity: Validity | None, *, client: bool) -> Web:
    """Return what it means that a connection ended between the handshake and the first answer.

    With TLS 1.3 a server judges the client's certificate after the handshake. Its alert is lost where the end of
    the connection, which follows, is seen first.
    """
    if validity is None or client:
        return Web(certificate=validity, silent=_words(error))
    detail = f"no client certificate is set, and the server ends the connection: {_words(error)}"
    return Web(refusal=Refusal.CLIENT, detail=detail, silent=Refusal.CLIENT)


def _dates(certificate: Certificate) -> tuple[str, str]:
    return certificate["notBefore"], certificate["notAfter"]


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[str, bytes]:
    """Return the answer's date and its body. Raises _FAILURES."""
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read(_MAX_BODY)
    if answer.status != http.HTTPStatus.OK:
        raise ValueError(f"{path} answers {answer.status}")
    return answer.headers.get("Date", ""), body


def _speaks_plainly(where: EndpointAddress, patience: float) -> bool:
    """Return whether the endpoint answers HTTP without TLS as etcd does. Sends nothing secret."""
    try:
        with _connection(where, None, StoreSettings(), patience) as (connection, _):
            return b"etcdserver" in _get(connection, "/version")[1]
    except _FAILURES:
        return False


def _names(where: EndpointAddress, settings: StoreSettings, patience: float) -> tuple[str, ...]:
    """Return the names for which a server's certificate, signed by a trusted authority, is."""
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
    # Where Python's table is older than OpenSSL's, the reason is only among the words, with blanks.
    reason = f"{error.reason or ''} {error}".upper().replace(" ", "_")
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return Refusal.CLIENT
    return Refusal.PLAIN if "WRONG_VERSION_NUMBER" in reason or "HTTP_REQUEST" in reason else Refusal.OTHER


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
