"""Makes and renews the certificates by which etcd, its clients and its members know each other.

Two authorities, so that what a client holds is of no worth where members talk to each other: etcd's peer port
takes any certificate of the authority that it is given. A certificate that is renewed keeps its key: then one
rename replaces it, and nobody ever reads a pair whose halves do not fit. An authority whose time is nearly over
gets a new certificate for its key as well, by which all it has signed stays good; `roll_over` is for another key.

Needs the library `cryptography`, an extra: imported by the command `access` when it is used, never by a sidecar.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import msgspec
from cryptography import x509

from configstore.access import authorities, issuing, places
from configstore.access.authorities import Authority, AuthorityState, Given
from configstore.access.folder import CertificateFolder
from configstore.errors import RefusedError
from configstore.model.path import printable

__all__ = ["AuthorityState", "Given", "Made", "ensure"]

_RENEWED = 1 / 3
"""The part of a life, at its end, in which it is renewed: some nine months; two calls a year are enough."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate after `ensure`: what was done, where it lies, when it ends.

    user: its common name, by which etcd knows it; for an authority, its title. why: why it was renewed, or what a
    person has to do, in words; "" when there is nothing to say.
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
    given: Given | None = None,
    now: dt.datetime,
    roll_over: bool = False,
    dry_run: bool = False,
) -> list[Made]:
    """Make what is missing below a directory, renew what nears its end, and say of each what was done.

    services: the user at etcd of each service, by the name of its folder. server_names: the names and addresses at
    which clients and members find etcd; none: those of the certificate that is there, else the default ones, and
    those of `reached_at`, where this machine finds it. given: sign
    clients and etcd's server by that authority, whose key is not copied; members have one of ours all the same.
    roll_over: take the next step to another key for each authority of ours (`authorities.roll_over`). dry_run: say
    it only.

    No key is ever replaced, nor a file that does not fit: raises UsageError for a bad name, RefusedError for a
    directory, a key or a pair that is not what it should be, before anything was written.
    """
    places.check_services(services)
    names = [issuing.general_name(name) for name in server_names]
    with ExitStack() as stack:
        top = stack.enter_context(CertificateFolder(directory, dry_run=dry_run))
        top.lock()
        folders = {
            name: stack.enter_context(top.below(name)) for name in (places.SERVER, places.OPERATOR, *services)
        }
        server, operator = folders[places.SERVER], folders[places.OPERATOR]
        clients = (
            authorities.given_authority(top, given, now)
            if given
            else authorities.read_or_make(top, places.CLIENTS, folders.values(), now)
        )
        peers = authorities.read_or_make(top, places.PEERS, [server], now)
        if roll_over:
            for each, name in ((clients, places.SERVER), (peers, places.PEER)):
                if each.ours and _has_signed(each, server, name):
                    authorities.roll_over(top, each, now)
        reached = [issuing.general_name(name) for name in reached_at]
        shown_names = names or _names_of(server, places.SERVER, reached)
        peer_names = names or _names_of(server, places.PEER, ())
        wanted = [
            _WantedCertificate(server, places.SERVER, clients, places.SERVER_USER, issuing.MEMBER, shown_names),
            _WantedCertificate(server, places.PEER, peers, places.PEER_USER, issuing.MEMBER, peer_names),
            _WantedCertificate(operator, places.OPERATOR, clients, places.OPERATOR_USER, issuing.CLIENT),
            *(
                _WantedCertificate(folders[name], user, clients, user, issuing.CLIENT)
                for name, user in services.items()
            ),
        ]
        judged = [(each, _judge(each, now)) for each in wanted]
        # From here on nothing is refused any more.
        return [*_write(top, clients, peers), *(_settle(each, found, now) for each, found in judged)]


def _has_signed(authority: Authority, server: CertificateFolder, name: str) -> bool:
    """Tell whether the key that signs has signed what a member shows; else a step was ended before that."""
    file = f"{name}.pem"
    pem = server.read(file)
    return pem is None or issuing.signed_by(
        issuing.read_certificates(pem, server.place(file))[0], authority.signing
    )


def _names_of(server: CertificateFolder, name: str, more: Sequence[x509.GeneralName]) -> list[x509.GeneralName]:
    """Return the names that a certificate of etcd has by now, else those that it has by default; and `more`."""
    file = f"{name}.pem"
    pem = server.read(file)
    found = issuing.names_in(issuing.read_certificates(pem, server.place(file))[0]) if pem else []
    found = found or [issuing.general_name(name) for name in places.DEFAULT_SERVER_NAMES]
    return [*found, *(name for name in dict.fromkeys(more) if name not in found)]


class _WantedCertificate(NamedTuple):
    """A certificate as it should be."""

    folder: CertificateFolder
    name: str
    authority: Authority
    user: str
    uses: Sequence[x509.ObjectIdentifier]
    names: Sequence[x509.GeneralName] = ()


class _Judged(NamedTuple):
    """What is there of it, None where there is nothing, and why the certificate does not do; "" when it does."""

    key: issuing.Key | None
    certificate: x509.Certificate | None
    why: str


def _judge(wanted: _WantedCertificate, now: dt.datetime) -> _Judged:
    """Tell what is there and whether it may stay. Raises RefusedError for what is not ours to replace."""
    folder, cert_file, key_file = wanted.folder, f"{wanted.name}.pem", f"{wanted.name}.key"
    pem, key_pem = folder.read(cert_file), folder.read(key_file)
    if key_pem is None:
        if pem is not None:
            raise RefusedError(
                f"{folder.shown(key_file)}: is not there, while its certificate is: put it back, or delete"
                f" {cert_file}, and both are made anew"
            )
        return _Judged(None, None, "")
    key = issuing.read_key(key_pem, folder.place(key_file))
    if pem is None:
        return _Judged(key, None, "")
    certificate = issuing.read_certificates(pem, folder.place(cert_file))[0]
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
    return _Judged(key, certificate, _why_anew(certificate, wanted, now))


def _why_anew(certificate: x509.Certificate, wanted: _WantedCertificate, now: dt.datetime) -> str:
    """Say why a certificate does not do any more; "" when it does."""
    if not issuing.signed_by(certificate, wanted.authority.signing):
        return "the one before was not of the authority that signs now"
    if set(issuing.names_in(certificate)) != set(wanted.names):
        return "the one before was for other names"
    if not set(wanted.uses) <= set(issuing.uses_in(certificate)):
        return "the one before lacked a use"
    if issuing.nears_end(certificate, _RENEWED, now):
        return f"the one before ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    return ""


def _write(top: CertificateFolder, *both: Authority) -> Iterator[Made]:
    for each in both:
        each.write(top)
        yield Made(
            name=each.name,
            path=top.place(f"{each.name}.pem"),
            user=issuing.common_name(each.signing),
            state=each.state,
            end=each.signing.not_valid_after_utc,
            why=each.why,
        )


def _settle(wanted: _WantedCertificate, found: _Judged, now: dt.datetime) -> Made:
    """Write what is missing: the authority, the key, and last the certificate that says that they are there."""
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
    return Made(
        name=wanted.name,
        path=folder.place(cert_file),
        user=wanted.user,
        state=state,
        end=certificate.not_valid_after_utc,
        why=why,
    )
