"""Where the certificates of an installation lie below one directory, and what their files are called.

    DIR/ca.pem, ca.key             the authority for etcd's clients and for what etcd shows them
    DIR/peer-ca.pem, peer-ca.key   the authority for the members of etcd among themselves
    DIR/server/                    server.pem, server.key, ca.pem; peer.pem, peer.key, peer-ca.pem
    DIR/operator/                  operator.pem, operator.key, ca.pem
    DIR/SERVICE/                   USER.pem, USER.key, ca.pem; keyring, where one was put there

Each folder holds everything that one container needs, and is mounted into it. Called by `certificates`,
`authorities`, `formats` and `cli.access_whom`.
"""

import os
import re
from collections.abc import Mapping

import msgspec

from configstore.errors import UsageError
from configstore.model.path import printable
from configstore.presets.services import checked_name

CLIENTS, PEERS = "ca", "peer-ca"
SERVER, PEER, OPERATOR = "server", "peer", "operator"
OPERATOR_USER = "root"
SERVER_USER, PEER_USER = "etcd", "etcd-peer"
"""Common names without a user at etcd: a member's certificate gives a client no rights."""

DEFAULT_SERVER_NAMES = ("etcd", "localhost", "127.0.0.1", "::1")

KEYRING = "keyring"
"""A service's keyring for sealed values; where it lies beside the certificate, it is handed over with it."""

_TAKEN = frozenset({CLIENTS, PEERS, SERVER, PEER, OPERATOR})
_USER = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


class ClientFiles(msgspec.Struct, frozen=True):
    """The paths of a client's files, by the names of the settings."""

    cacert: str
    cert: str
    key: str


def client_files(directory: str, folder: str, user: str) -> ClientFiles:
    """Return the paths of a client's files, which need not exist."""
    here = os.path.join(directory, folder)
    name = OPERATOR if folder == OPERATOR else user
    return ClientFiles(
        os.path.join(here, f"{CLIENTS}.pem"),
        os.path.join(here, f"{name}.pem"),
        os.path.join(here, f"{name}.key"),
    )


def operator_files(directory: str) -> ClientFiles:
    """Return the paths of the operator's files; etcd knows the operator as root."""
    return client_files(directory, OPERATOR, OPERATOR_USER)


def check_services(services: Mapping[str, str]) -> None:
    """Check the names of services and users against what files, Secrets and etcd accept. Raises UsageError."""
    for service, user in services.items():
        checked_name(service)
        if service in _TAKEN:
            raise UsageError(f"service {service!r}: the certificates of etcd and of a person have that name")
        if not _USER.fullmatch(user):
            raise UsageError(
                f"user {printable(user)!r}: expected at most 64 letters, digits, '-', '_' and '.', as mailu-front"
            )
        if user in {OPERATOR_USER, SERVER_USER, PEER_USER}:
            raise UsageError(f"user {user!r} of service {service!r}: is not a service's")
    users = list(services.values())
    for user in users:
        if users.count(user) > 1:
            raise UsageError(f"user {user!r}: is that of two services; each has its own")
