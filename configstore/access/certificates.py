"""Makes and renews the certificates by which etcd, its clients and its members know each other.

1. There are two authorities, because etcd's peer port accepts any certificate of the authority it is given: a
   client's certificate must not work there.
2. A renewed certificate keeps its key. One rename replaces it, so nothing ever reads a certificate and a key that
   do not fit.
3. An authority near its end gets a new certificate for its key, so everything it signed stays valid. `roll_over`
   changes its key.

Needs the library `cryptography`, an extra: imported by the command `access` when it is used, never by a sidecar.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import msgspec
from cryptography import x509

from configstore.access import authorities, issuing, layout
from configstore.access.authorities import Authority, AuthorityFiles, AuthorityState
from configstore.access.folder import CertificateFolder
from configstore.errors import RefusedError
from configstore.model.path import printable

__all__ = ["AuthorityFiles", "AuthorityState", "EnsuredCertificate", "ensure"]

_RENEWED = 1 / 3
"""The last part of a certificate's life, in which it is renewed: about nine months, so two calls a year do."""


class EnsuredCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate after `ensure`: what was done, its path, when it ends.

    user: its common name, which is the user at etcd; for an authority, its title. why: why it was renewed, or what
    a person has to do; "" for nothing.
    """

    name: str
    path: str
    user: str
    state: AuthorityState
    end: dt.datetime
    why: str = ""


def ensure(
    directory: str,
    services: Mapping[str, str],
    *,
    server_names: Sequence[str] = (),
    reached_at: Sequence[str] = (),
    given: AuthorityFiles | None = None,
    now: dt.datetime,
    roll_over: bool = False,
    dry_run: bool = False,
) -> list[EnsuredCertificate]:
    """Make what is missing below a directory, renew what nears its end, and return what was done with each.

    services: the user at etcd of each service, by the name of its folder.
    server_names: the names and addresses at which clients and members find etcd. Without any: those of the present
    certificate, else the default ones; and those of `reached_at`, the endpoints that this machine uses.
    given: the operator's own authority, which signs clients and etcd's server; its key is not copied. Members
    still use a managed one.
    roll_over: take the next step to another key for each managed authority. dry_run: write nothing.

    No key is ever replaced, and no file that does not fit. Before anything is written, raises UsageError for a bad
    name, RefusedError for a directory, a key or a pair that is not as it should be.
    """
    layout.check_services(services)
    names = [issuing.general_name(name) for name in server_names]
    with ExitStack() as stack:
        top = stack.enter_context(CertificateFolder(directory, dry_run=dry_run))
        top.lock()
        folders = {
            name: stack.enter_context(top.below(name)) for name in (layout.SERVER, layout.OPERATOR, *services)
        }
        server, operator = folders[layout.SERVER], folders[layout.OPERATOR]
        clients = (
            authorities.read_given(top, given, now)
            if given
            else authorities.read_or_make(top, layout.CLIENTS, folders.values(), now)
        )
        peers = authorities.read_or_make(top, layout.PEERS, [server], now)
        if roll_over:
            for each, name in ((clients, layout.SERVER), (peers, layout.PEER)):
                if each.managed and _has_signed(each, server, name):
                    authorities.roll_over(top, each, now)
        reached = [issuing.general_name(name) for name in reached_at]
        shown_names = names or _names_of(server, layout.SERVER, reached)
        peer_names = names or _names_of(server, layout.PEER, ())
        wanted = [
            _WantedCertificate(server, layout.SERVER, clients, layout.SERVER_USER, issuing.MEMBER, shown_names),
            _WantedCertificate(server, layout.PEER, peers, layout.PEER_USER, issuing.MEMBER, peer_names),
            _WantedCertificate(operator, layout.OPERATOR, clients, layout.OPERATOR_USER, issuing.CLIENT),
            *(
                _WantedCertificate(folders[name], user, clients, user, issuing.CLIENT)
                for name, user in services.items()
            ),
        ]
        judged = [(each, _inspect(each, now)) for each in wanted]
        # Everything was checked: nothing below refuses, so a refused call has written nothing.
        return [*_write(top, clients, peers), *(_ensure_one(each, found, now) for each, found in judged)]


def _has_signed(authority: Authority, server: CertificateFolder, name: str) -> bool:
    """Return whether the signing key has signed the member's certificate; else an earlier step was interrupted."""
    present = _present(server, name)
    return present is None or issuing.signed_by(present, authority.signing)


def _names_of(server: CertificateFolder, name: str, more: Sequence[x509.GeneralName]) -> list[x509.GeneralName]:
    """Return the names of etcd's present certificate, else the default ones; and `more`."""
    present = _present(server, name)
    found = issuing.names_in(present) if present else []
    found = found or [issuing.general_name(name) for name in layout.DEFAULT_SERVER_NAMES]
    return [*found, *(name for name in dict.fromkeys(more) if name not in found)]


def _present(folder: CertificateFolder, name: str) -> x509.Certificate | None:
    """Return the certificate that a folder has under a name; None without one."""
    file = f"{name}.pem"
    pem = folder.read(file)
    return None if pem is None else issuing.read_certificates(pem, folder.path_of(file))[0]


class _WantedCertificate(NamedTuple):
    """A certificate as it should be."""

    folder: CertificateFolder
    name: str
    authority: Authority
    user: str
    uses: Sequence[x509.ObjectIdentifier]
    names: Sequence[x509.GeneralName] = ()


class _Existing(NamedTuple):
    """The present key and certificate (None: missing), and why a new one is needed; "" when it is not."""

    key: issuing.Key | None
    certificate: x509.Certificate | None
    why: str


def _inspect(wanted: _WantedCertificate, now: dt.datetime) -> _Existing:
    """Return what exists and whether it may stay. Raises RefusedError for what must not be replaced."""
    folder, cert_file, key_file = wanted.folder, f"{wanted.name}.pem", f"{wanted.name}.key"
    pem, key_pem = folder.read(cert_file), folder.read(key_file)
    if key_pem is None:
        if pem is not None:
            raise RefusedError(
                f"{folder.shown(key_file)}: is not there, while its certificate is: put it back, or delete"
                f" {cert_file}, and both are made anew"
            )
        return _Existing(None, None, "")
    key = issuing.read_key(key_pem, folder.path_of(key_file))
    if pem is None:
        return _Existing(key, None, "")
    certificate = issuing.read_certificates(pem, folder.path_of(cert_file))[0]
    if issuing.public(certificate) != issuing.public(key):
        raise RefusedError(
            f"{folder.shown(key_file)}: is not the key of {cert_file} beside it: put the right one back, or delete"
            " both, and they are made anew"
        )
    user = issuing.common_name(certificate)
    if user != wanted.user:
        raise RefusedError(
            f"{folder.shown(cert_file)}: is of {printable(user)!r}, not of {wanted.user!r}: take another"
            " directory, or delete it and its key"
        )
    return _Existing(key, certificate, _why_anew(certificate, wanted, now))


def _why_anew(certificate: x509.Certificate, wanted: _WantedCertificate, now: dt.datetime) -> str:
    """Return why a certificate must be made anew; "" when it may stay."""
    if not issuing.signed_by(certificate, wanted.authority.signing):
        return "the one before was not of the authority that signs now"
    if set(issuing.names_in(certificate)) != set(wanted.names):
        return "the one before was for other names"
    if not set(wanted.uses) <= set(issuing.uses_in(certificate)):
        return "the one before lacked a use"
    if issuing.nears_end(certificate, _RENEWED, now):
        return f"the one before ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return ""


def _write(top: CertificateFolder, *both: Authority) -> Iterator[EnsuredCertificate]:
    for each in both:
        each.write(top)
        yield EnsuredCertificate(
            name=each.name,
            path=top.path_of(f"{each.name}.pem"),
            user=issuing.common_name(each.signing),
            state=each.state,
            end=each.signing.not_valid_after_utc,
            why=each.why,
        )


def _ensure_one(wanted: _WantedCertificate, found: _Existing, now: dt.datetime) -> EnsuredCertificate:
    """Write what is missing: the authority, the key, and the certificate last, since it stands for all three."""
    folder, authority = wanted.folder, wanted.authority
    cert_file, key_file, authority_file = f"{wanted.name}.pem", f"{wanted.name}.key", f"{authority.name}.pem"
    if folder.read(authority_file) != authority.pem:
        folder.write(authority_file, authority.pem)
    certificate, state, why = found.certificate, AuthorityState.KEPT, found.why
    if certificate is None or found.why:
        state = AuthorityState.RENEWED if certificate else AuthorityState.MADE
        key = found.key or issuing.new_key()
        if found.key is None:
            folder.write_key(key_file, issuing.key_pem(key))
        certificate = issuing.issue(
            wanted.user,
            key,
            wanted.uses,
            wanted.names,
            signing=authority.signing,
            signing_key=authority.key,
            now=now,
        )
        folder.write(cert_file, issuing.certificate_pem(certificate))
    elif folder.readable_by_others(key_file):
        why = f"its key can be read by others: chmod 600 {folder.shown(key_file)}"
    return EnsuredCertificate(
        name=wanted.name,
        path=folder.path_of(cert_file),
        user=wanted.user,
        state=state,
        end=certificate.not_valid_after_utc,
        why=why,
    )
