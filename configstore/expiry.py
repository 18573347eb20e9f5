"""When certificates end, read from PEM without a library for them. For the doctor, `status` and `/metrics`."""

import binascii
import datetime as dt
import re
from collections.abc import Iterator

import msgspec

SOON = 30 * 86400.0
"""Seconds before its end from which on a certificate ends soon."""

SOON_PART = 1 / 4
"""The last part of its validity, before which it does not end soon: short-lived ones are renewed late."""

# X.509's Validity in DER: a sequence of two times, each UTCTime or GeneralizedTime.
_TIME = rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"
_VALIDITY = re.compile(rb"\x30." + _TIME + _TIME, re.DOTALL)

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----")


class Validity(msgspec.Struct, frozen=True):
    """From when until when a certificate is valid, in seconds since the epoch."""

    begin: float
    end: float

    def ends_soon(self, now: float) -> bool:
        """Return whether the certificate ends soon, or has ended. now: in seconds since the epoch."""
        return self.end - now < min(SOON, (self.end - self.begin) * SOON_PART)


def validity_of(pem: bytes) -> Validity | None:
    """Return the validity of the first certificate of a PEM file; None when it has none that can be read."""
    return next(_validities(pem), None)


def validity_of_file(path: str | None) -> Validity | None:
    """Return the validity of the first certificate of a file; None without a path. Raises OSError."""
    if path is None:
        return None
    with open(path, "rb") as file:
        return validity_of(file.read())


def first_to_end(pem: bytes) -> Validity | None:
    """Return the validity that ends first in a PEM file; None without any, and when one of them is unreadable."""
    found = list(_validities(pem))
    return None if None in found else min(filter(None, found), key=lambda each: each.end, default=None)


def last_to_end(pem: bytes) -> Validity | None:
    """Return the validity that ends last in a PEM file; None without any that can be read."""
    return max(filter(None, _validities(pem)), key=lambda each: each.end, default=None)


def _validities(pem: bytes) -> Iterator[Validity | None]:
    for found in _CERTIFICATE.finditer(pem):
        try:
            yield _validity(binascii.a2b_base64(found[1]))
        except ValueError:
            yield None


def _validity(der: bytes) -> Validity | None:
    """Return the validity of one certificate. Raises ValueError."""
    found = _VALIDITY.search(der)
    if found is None:
        return None
    begin_short, begin_long, end_short, end_long = found.groups()
    return Validity(_seconds(begin_short, begin_long), _seconds(end_short, end_long))


def _seconds(short: bytes | None, long: bytes | None) -> float:
    # UTCTime: years from 50 on are 19xx (RFC 5280), for strptime those from 69 on. No certificate is between.
    text, form = (short, "%y%m%d%H%M%S") if short else (long or b"", "%Y%m%d%H%M%S")
    return dt.datetime.strptime(text.decode(), form).replace(tzinfo=dt.UTC).timestamp()
