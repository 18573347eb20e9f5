"""Certificates and keys as values: reads, compares and signs them. Called by `authorities` and `certificates`."""

import datetime as dt
import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from configstore.errors import ConfigstoreError, RefusedError, UsageError
from configstore.model.path import printable

AUTHORITY_LIFE = dt.timedelta(days=3650)
LIFE = dt.timedelta(days=825)
_BACKDATED = dt.timedelta(hours=1)
"""Certificates are valid from this long before they are made, for hosts whose clocks are behind."""

CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
MEMBER = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""A member is a client as well: of the other members, and of itself for etcd's gateway and health check."""

_DNS_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")

Key = ec.EllipticCurvePrivateKey | RSAPrivateKey | Ed25519PrivateKey | Ed448PrivateKey


def new_key() -> Key:
    """Return a new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def self_signed(subject: x509.Name, key: Key, now: dt.datetime) -> x509.Certificate:
    """Return an authority's certificate; it may not sign other authorities (path length 0)."""
    builder = (
        _builder(subject, key, now, now + AUTHORITY_LIFE)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    return builder.sign(key, _hash(key))


def issue(
    user: str,
    key: Key,
    uses: Sequence[x509.ObjectIdentifier],
    names: Sequence[x509.GeneralName],
    *,
    signing: x509.Certificate,
    signing_key: Key,
    now: dt.datetime,
) -> x509.Certificate:
    """Return a certificate for a key; it ends with the authority's at the latest."""
    builder = (
        _builder(name(user), key, now, min(now + LIFE, signing.not_valid_after_utc))
        .issuer_name(signing.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(_issuer_identifier(signing), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signing_key, _hash(signing_key))


def _builder(subject: x509.Name, key: Key, now: dt.datetime, end: dt.datetime) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_identifier(signing: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return the identifier of the authority's key, not its serial number: that changes when it is renewed."""
    try:
        own = signing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = signing.public_key()  # is_authority was checked, so this kind of key can sign
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)  # type: ignore[arg-type]  # see the line above
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _hash(key: Key) -> hashes.SHA256 | None:
    return None if isinstance(key, Ed25519PrivateKey | Ed448PrivateKey) else hashes.SHA256()


def name(common_name: str) -> x509.Name:
    """Return a subject that has only a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def general_name(text: str) -> x509.GeneralName:
    """Return a server's name or address as a certificate holds it. Raises UsageError."""
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(text))
    last = text.rpartition(".")[2]
    if not _DNS_NAME.fullmatch(text) or ".." in text or last.isdecimal():
        raise UsageError(
            f"name {printable(text)!r}: expected a host's name or an address, such as etcd-1 or 192.0.2.11"
        )
    return x509.DNSName(text)


def read_certificates(
    pem: bytes, path: str, failure: type[ConfigstoreError] = RefusedError
) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, at least one."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        raise failure(f"{printable(path)}: holds no certificate that can be read") from None


def read_key(pem: bytes, path: str, failure: type[ConfigstoreError] = RefusedError) -> Key:
    """Return the private key of a PEM file."""
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise failure(f"{printable(path)}: is encrypted; give the key without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise failure(f"{printable(path)}: holds no private key that can be read") from None
    if not isinstance(key, Key):
        raise failure(f"{printable(path)}: is a key of a kind that signs no certificates")
    return key


def certificate_pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM, in their order."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def key_pem(key: Key) -> bytes:
    """Return a private key as PEM, without a passphrase, since services start unattended."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public(of: x509.Certificate | Key) -> bytes:
    """Return the public key as DER, for comparisons."""
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def is_authority(certificate: x509.Certificate) -> bool:
    """Return whether a certificate may sign others."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
    return constraints.ca and usage.key_cert_sign


def signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether an authority's key signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def common_name(certificate: x509.Certificate) -> str:
    """Return a certificate's common name; "" without one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def names_in(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """Return the server names and addresses in a certificate."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def uses_in(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    """Return the extended key usages of a certificate."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return []


def nears_end(certificate: x509.Certificate, part: float, now: dt.datetime) -> bool:
    """Return whether less than a part of the certificate's life is left."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - now < (end - begin) * part
