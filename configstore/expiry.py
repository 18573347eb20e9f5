"""When certificates end, read from PEM without a library for them: for the doctor and for a sidecar's figures."""

import datetime as dt
import re
import ssl
from collections.abc import Iterator

# X.509's Validity in DER: a sequence of two times (UTCTime or GeneralizedTime), of which the second is the end.
_TIME = rb"(?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)"
_VALIDITY = re.compile(rb"\x30." + _TIME + rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)", re.DOTALL)

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----")


def end_of(pem: bytes) -> float | None:
    """Return when the first certificate of a PEM file ends, in seconds since the epoch.

    None when there is none to be read.
    """
    return next(_ends(pem), None)


def first_end(pem: bytes) -> float | None:
    """Return the earliest end of all certificates of a PEM file; None for none, and when one cannot be read."""
    ends = list(_ends(pem))
    return None if None in ends else min((end for end in ends if end is not None), default=None)


def _ends(pem: bytes) -> Iterator[float | None]:
    """Yield the end of each certificate in turn."""
    for found in _CERTIFICATE.finditer(pem):
        try:
            yield _end(ssl.PEM_cert_to_DER_cert(found[0].decode()))
        except ValueError:
            yield None


def _end(der: bytes) -> float | None:
    """Return the end of one certificate. Raises ValueError."""
    found = _VALIDITY.search(der)
    if found is None:
        return None
    short, long = found.groups()
    # RFC 5280: UTCTime's years from 50 on are of the last century, as strptime has it from 69 on.
    text, form = (short, "%y%m%d%H%M%S") if short else (long, "%Y%m%d%H%M%S")
    return dt.datetime.strptime(text.decode(), form).replace(tzinfo=dt.UTC).timestamp()
