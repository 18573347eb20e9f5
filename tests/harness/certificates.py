"""Certificates for tests, made on the spot."""

import datetime as dt
import ipaddress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from configstore.access.certificates import ensure
from configstore.embedded import LOOPBACK

SERVICES = {
    name: f"mailu-{name}"
    for name in ("front", "admin", "imap", "smtp", "antispam", "fetchmail", "webmail", "certs-source")
}
"""All that the guides for deployments give a certificate of its own, with the users that these name."""


def deployed(folder: Path, *names: str) -> Path:
    """Make what `configstore access apply` makes where etcd has these names; return the folder."""
    ensure(str(folder), SERVICES, server_names=names, now=dt.datetime.now(dt.UTC))
    return folder


class Pem(NamedTuple):
    """A certificate and its key, as files."""

    cert: Path
    key: Path


def pair(name: str) -> tuple[str, str]:
    """Return a certificate and its key that nobody has seen yet, as PEM."""
    with TemporaryDirectory() as folder:
        pem = Authority(Path(folder)).issue(name)
        return pem.cert.read_text(), pem.key.read_text()


class Authority:
    """A certificate authority that writes what it issues into a folder."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(self._subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.cacert = folder / "ca.pem"
        self.cacert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject, public_key, days=1, age=0):
        now = dt.datetime.now(dt.UTC)
        begin = now - dt.timedelta(hours=1, days=age) + min(dt.timedelta(days=days), dt.timedelta())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(now + dt.timedelta(days=days))
        )

    def issue(
        self,
        name: str,
        *,
        addresses: tuple[str, ...] = (LOOPBACK,),
        hosts: tuple[str, ...] = (),
        days: float = 1,
        age: float = 0,
    ) -> Pem:
        """Write a certificate with CN `name` for servers and clients alike, which ends in some days.

        With `days` below 0 it has expired. age: days for which it has been valid by now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        names += [x509.DNSName(host) for host in hosts]
        certificate = (
            self._builder(subject, key.public_key(), days, age)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        encoding = serialization.Encoding.PEM
        pem = Pem(self.folder / f"{name}.pem", self.folder / f"{name}-key.pem")
        pem.cert.write_bytes(certificate.public_bytes(encoding))
        pem.key.write_bytes(
            key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return pem
