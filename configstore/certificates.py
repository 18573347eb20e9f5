"""Checks whether a mail server can use the certificates and keys of a folder.

Called by the command `check-certificates`, which the mappings of certificates run as their `check`: in a process
of its own, so that no sidecar has the library in its memory.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.+?-----END [^\n]+", re.DOTALL)
_KEY = re.compile(rb"-----BEGIN (?:\w+ )*PRIVATE KEY-----.+?-----END [^\n]+", re.DOTALL)
_PEM = b"-----BEGIN "

DEFAULT = ("cert.pem", "key.pem")
"""The names that Mailu's front reads unless TLS_CERT_FILENAME and TLS_KEYPAIR_FILENAME say otherwise."""


class _PemFile:
    """What one file holds."""

    def __init__(self, name: str, content: bytes) -> None:
        """Read a file; `broken` says what in it cannot be read, "" where all can."""
        self.name = name
        self.chain: list[x509.Certificate] = []
        self.key = self.of = b""  # the public keys of its private key and of its first certificate
        self.broken = "" if _PEM in content else "is not PEM"
        try:
            chain = [x509.load_pem_x509_certificate(block) for block in _CERTIFICATE.findall(content)]
            for each in chain:  # the library reads a name only when it is used, and may fail then
                _named(each)
            self.of = _spki(chain[0]) if chain else b""
            self.chain = chain
        except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
            self.broken = "holds a certificate that cannot be read"
        key = _KEY.search(content)
        if key:
            self._read_key(key[0])

    def _read_key(self, block: bytes) -> None:
        try:
            self.key = _spki(load_pem_private_key(block, None))
        except TypeError:
            self.broken = "holds a key that is encrypted; a server cannot ask for its passphrase"
        except (ValueError, UnsupportedAlgorithm):
            self.broken = "holds a key that cannot be read"

    def fits(self, certificate: "_PemFile") -> bool:
        """Tell whether this key is that of the first certificate of a file."""
        return bool(self.key) and certificate.of == self.key

    @property
    def is_leaf(self) -> bool:
        """Whether the file begins with a certificate that is not an authority's."""
        if not self.chain:
            return False
        try:
            return not self.chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
            return True  # a server may read the extension, or ignore it


def problems(
    files: Mapping[str, bytes], pair: tuple[str, str] | None, now: dt.datetime, *, expired: bool = False
) -> list[str]:
    """Return what is wrong with pairs of certificates and keys, each text with the file's name; [] for nothing.

    files: contents by path, of one folder and those below. pair: the paths of certificate and key where they are
    known; then no other file is checked. expired: whether an expired certificate is accepted.
    """
    found = {path: _PemFile(path, content) for path, content in files.items()}
    if pair:
        return _of_pair(found, *pair, now, expired=expired)
    reasons = [f"{name}: {found[name].broken}" for name in DEFAULT if name in found and found[name].broken]
    folders = {path.rpartition("/")[0] for path in found}
    for folder in sorted(folders):
        here = [each for path, each in sorted(found.items()) if path.rpartition("/")[0] == folder]
        reasons += _of_folder(here, now, expired=expired)
    return list(dict.fromkeys(reasons))


def _of_pair(
    found: Mapping[str, _PemFile], certificate: str, key: str, now: dt.datetime, *, expired: bool
) -> list[str]:
    missing = [f"{path}: is not there" for path in (certificate, key) if path not in found]
    if missing:
        return missing
    broken = [f"{path}: {found[path].broken}" for path in dict.fromkeys((certificate, key)) if found[path].broken]
    if broken:
        return broken
    if not found[certificate].chain:
        return [f"{certificate}: holds no certificate"]
    if not found[key].key:
        return [f"{key}: holds no private key"]
    if not found[key].fits(found[certificate]):
        return [f"{key}: is not the key of {certificate}"]
    return list(_of_chain(found[certificate], now, expired=expired))


def _of_folder(here: list[_PemFile], now: dt.datetime, *, expired: bool) -> Iterator[str]:
    """Yield what is wrong in one folder: a key without its certificate, a certificate in use that is not valid.

    A certificate without a key is an old one or an authority's, and is passed over; only in a folder without any
    key it is half of a pair.
    """
    keys = [each for each in here if each.key or "key" in each.broken]
    leaves = [each for each in here if each.is_leaf]
    for key in keys:
        if key.broken:
            yield f"{key.name}: {key.broken}"
            continue
        fitting = [each for each in here if key.fits(each)]
        if not fitting:
            beside = ", ".join(each.name for each in leaves) or "there is none"
            yield f"{key.name}: is not the key of any certificate beside it ({beside})"
        for each in fitting:
            yield from _of_chain(each, now, expired=expired)
    if leaves and not keys:
        yield f"{leaves[0].name}: its key is not there"


def _of_chain(found: _PemFile, now: dt.datetime, *, expired: bool) -> Iterator[str]:
    for one, above in zip(found.chain, found.chain[1:], strict=False):
        if not _signed(one, above):
            yield (
                f"{found.name}: {_named(above)} follows {_named(one)}, which it did not sign: the server's"
                " certificate comes first, then each time the one that signed the one before"
            )
    for one in found.chain:
        if one.not_valid_before_utc > now:
            yield f"{found.name}: {_named(one)} is not valid before {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        if one.not_valid_after_utc < now and not expired:
            yield f"{found.name}: {_named(one)} expired on {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"


def _signed(one: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _named(one: x509.Certificate) -> str:
    """Return a certificate's subject in words."""
    return one.subject.rfc4514_string() or f"number {one.serial_number:x}"


def _spki(of: object) -> bytes:
    """Return the public key of a certificate or of a private key, as DER."""
    public = of.public_key()  # type: ignore[attr-defined]  # all kinds of keys have it
    encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
