"""The two authorities of an installation: reads, makes and renews them, and rolls them over to another key.

Called by `certificates`.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec
from cryptography import x509

from configstore.access import issuing, layout
from configstore.access.folder import CertificateFolder
from configstore.errors import RefusedError, UsageError
from configstore.model.path import printable

_RENEWED = 1 / 5
"""The last part of an authority's life, in which it is renewed: about two years."""

_TITLES = {
    layout.CLIENTS: "configstore etcd authority",
    layout.PEERS: "configstore etcd authority for its members",
}


class AuthorityState(StrEnum):
    """What was done with one certificate."""

    MADE = "made"
    KEPT = "kept"
    RENEWED = "renewed"


class AuthorityFiles(NamedTuple):
    """The files of an operator's own authority for clients: its certificate (others may follow) and its key."""

    cert: str
    key: str


class Authority(msgspec.Struct):
    """An authority: its certificates, the signing one first, and the changes that were decided.

    managed: the command keeps its key. why: what a person should know or do, "" for nothing. pending: the changes
    of its key files, which come before its certificates are written: a certificate never lacks its key.
    """

    name: str
    bundle: list[x509.Certificate]
    key: issuing.Key
    managed: bool = True
    state: AuthorityState = AuthorityState.KEPT
    why: str = ""
    pending: list[Callable[[], None]] = []

    @property
    def signing(self) -> x509.Certificate:
        """The certificate of the key that signs."""
        return self.bundle[0]

    @property
    def pem(self) -> bytes:
        """The certificates to trust, as PEM."""
        return issuing.certificate_pem(*self.bundle)

    def write(self, top: CertificateFolder) -> None:
        """Carry out the pending changes, and write the certificates."""
        for step in self.pending:
            step()
        if top.read(f"{self.name}.pem") != self.pem:
            top.write(f"{self.name}.pem", self.pem)


def read_or_make(
    top: CertificateFolder, name: str, folders: Iterable[CertificateFolder], now: dt.datetime
) -> Authority:
    """Return a managed authority, made if it is missing, renewed (same key) if it nears its end.

    folders: those with copies of its certificates. Raises RefusedError when a copy exists and the key is lost: a
    new key would not be trusted where the copies are.
    """
    cert_file, key_file = f"{name}.pem", f"{name}.key"
    pem, key_pem = top.read(cert_file), top.read(key_file)
    if key_pem is None:
        left = [each.shown(cert_file) for each in (top, *folders) if each.read(cert_file) is not None]
        if left:
            raise RefusedError(
                f"{left[0]}: the key of that authority, {top.shown(key_file)}, is not there: put it back, or take"
                " another directory"
            )
        key = issuing.new_key()
        made = issuing.self_signed(issuing.name(_TITLES[name]), key, now)
        authority = Authority(name, [made], key, state=AuthorityState.MADE)
        authority.pending.append(lambda: top.write_key(key_file, issuing.key_pem(key)))
        return authority
    key = issuing.read_key(key_pem, top.path_of(key_file))
    if pem is None:  # an earlier run was killed between key and certificate
        made = issuing.self_signed(issuing.name(_TITLES[name]), key, now)
        return Authority(name, [made], key, state=AuthorityState.MADE)
    bundle = _signing_first(issuing.read_certificates(pem, top.path_of(cert_file)), key)
    if bundle is None:
        raise RefusedError(
            f"{top.shown(key_file)}: is not the key of {cert_file} beside it; put the right one back"
        )
    if not issuing.is_authority(bundle[0]):
        raise RefusedError(
            f"{top.shown(cert_file)}: is not the certificate of an authority; take another directory"
        )
    authority = Authority(name, bundle, key)
    if issuing.nears_end(bundle[0], _RENEWED, now):
        _renew(authority, now)
    elif top.readable_by_others(key_file):
        authority.why = f"its key can be read by others: chmod 600 {top.shown(key_file)}"
    return authority


def _renew(authority: Authority, now: dt.datetime) -> None:
    old = authority.signing
    authority.bundle = [issuing.self_signed(old.subject, authority.key, now), *authority.bundle[1:]]
    authority.state = AuthorityState.RENEWED
    authority.why = (
        f"the one before ends on {old.not_valid_after_utc:%Y-%m-%d}; its key stays, so all that it signed is good:"
        f" before that day bring the new {authority.name}.pem of every folder to its place, and restart the"
        " members of etcd, which read it at their start"
    )


def read_given(top: CertificateFolder, given: AuthorityFiles, now: dt.datetime) -> Authority:
    """Return the operator's own authority for clients; its key is not copied. Raises UsageError, RefusedError."""
    cert_file, key_file = f"{layout.CLIENTS}.pem", f"{layout.CLIENTS}.key"
    if top.read(key_file) is not None:
        raise RefusedError(
            f"{top.shown(key_file)}: an authority of its own is there; leave --ca-cert and --ca-key away, or take"
            " another directory"
        )
    cert_shown, key_shown = printable(given.cert), printable(given.key)
    key = issuing.read_key(_read(given.key), given.key, UsageError)
    bundle = _signing_first(issuing.read_certificates(_read(given.cert), given.cert, UsageError), key)
    if bundle is None:
        raise UsageError(f"--ca-key {key_shown}: is not the key of --ca-cert {cert_shown}")
    signing = bundle[0]
    if not issuing.is_authority(signing):
        raise UsageError(f"--ca-cert {cert_shown}: is not the certificate of an authority (CA:TRUE, keyCertSign)")
    end = signing.not_valid_after_utc
    if end <= now:
        raise UsageError(f"--ca-cert {cert_shown}: expired on {end:%Y-%m-%d %H:%M} UTC")
    authority = Authority(layout.CLIENTS, bundle, key, managed=False, state=AuthorityState.MADE)
    if issuing.nears_end(signing, _RENEWED, now):
        authority.why = f"ends on {end:%Y-%m-%d}, and with it all that it signs; it is yours to renew"
    before = top.read(cert_file)
    if before is None and not authority.why:
        authority.why = (
            "it must sign nothing else: whoever gets the name root from it, or a service's, is that to etcd"
        )
    if before is not None:
        old = issuing.read_certificates(before, top.path_of(cert_file))
        if issuing.public(old[0]) not in {issuing.public(each) for each in bundle}:
            raise RefusedError(
                f"{top.shown(cert_file)}: is of another authority, by which clients and etcd know each other:"
                f" add it to {cert_shown}, below the new one, until all have both"
            )
        authority.state = AuthorityState.KEPT if old == bundle else AuthorityState.RENEWED
    return authority


def roll_over(top: CertificateFolder, authority: Authority, now: dt.datetime) -> None:
    """Take the next of three steps to another key. Each step must have reached all hosts before the next one.

    1. A second authority is trusted beside the first, and signs nothing yet. 2. The second one signs; both are
    trusted. 3. Only the second one is trusted. The files in the directory show which step is next.
    """
    if authority.state is AuthorityState.MADE:
        return
    name = authority.name
    key_file, next_file, old_file = f"{name}.key", f"{name}.next.key", f"{name}.old.key"
    everywhere = "bring the folders to their places and restart the members of etcd, one after another"
    authority.state = AuthorityState.RENEWED
    waiting = top.read(next_file)
    if waiting is not None:
        key = issuing.read_key(waiting, top.path_of(next_file))
        bundle = _signing_first(authority.bundle, key)
        if bundle is None:
            raise RefusedError(
                f"{top.shown(next_file)}: is not the key of any in {name}.pem; put the right one back"
            )
        authority.key, authority.bundle = key, bundle
        authority.pending += [
            lambda: top.keep_as(key_file, old_file),
            lambda: top.rename_over(next_file, key_file),
        ]
        authority.why = f"step 2 of 3, the new one signs: {everywhere}; then roll over again, to trust it alone"
    elif len(authority.bundle) > 1:
        authority.bundle = authority.bundle[:1]
        authority.pending.append(lambda: top.remove(old_file))
        authority.why = f"step 3 of 3, the new one is trusted alone: {everywhere}"
    else:
        key = issuing.new_key()
        authority.bundle.append(issuing.self_signed(issuing.name(_TITLES[name]), key, now))
        authority.pending.append(lambda: top.write_key(next_file, issuing.key_pem(key)))
        authority.why = (
            f"step 1 of 3, a new one is trusted beside it: {everywhere}; then roll over again, so that it signs"
        )


def _signing_first(bundle: Sequence[x509.Certificate], key: issuing.Key) -> list[x509.Certificate] | None:
    """Return the certificates with the key's own one first; None when the key has none."""
    own = [each for each in bundle if issuing.public(each) == issuing.public(key)]
    return [own[0], *(each for each in bundle if each not in own)] if own else None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise UsageError(f"{printable(path)}: {error.strerror}") from error
