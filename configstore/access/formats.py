"""What the certificates below a directory are handed over as: files, secrets of Swarm, Secrets of Kubernetes.

Needs no library for certificates: they are there. What a member of etcd is started with is said for each of these.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from enum import StrEnum
from typing import NamedTuple

from configstore.access import places
from configstore.access.folder import CertificateFolder
from configstore.errors import RefusedError, UsageError
from configstore.model.path import printable

_MEMBER = (
    ("--cert-file", "server.pem"),
    ("--key-file", "server.key"),
    ("--trusted-ca-file", "ca.pem"),
    ("--peer-cert-file", "peer.pem"),
    ("--peer-key-file", "peer.key"),
    ("--peer-trusted-ca-file", "peer-ca.pem"),
)
_REQUIRED = ("--client-cert-auth", "--peer-client-cert-auth")

_KUBERNETES = {
    "server.pem": "tls.crt",
    "server.key": "tls.key",
    "ca.pem": "ca.crt",
    "peer.pem": "peer.crt",
    "peer.key": "peer.key",
    "peer-ca.pem": "peer-ca.crt",
}

_LONGEST_NAME = 64
"""Letters of a secret's name that Docker takes."""


class Format(StrEnum):
    """What a deployment takes."""

    FILES = "files"
    SWARM = "swarm"
    KUBERNETES = "kubernetes"


class _Member(NamedTuple):
    """A folder of those who get one, and what of it is handed over."""

    folder: str
    files: Mapping[str, bytes]


def etcd_flags(directory: str) -> list[str]:
    """Return the options by which a member of etcd uses the files of the folder `server`.

    As variables they are ETCD_CERT_FILE and so on. etcd reads certificates and keys again at each handshake, and
    the files of authorities at its start alone.
    """
    server = f"{directory.rstrip('/')}/{places.SERVER}"
    return [*(f"{flag}={server}/{file}" for flag, file in _MEMBER), *_REQUIRED]


def write(directory: str, services: Mapping[str, str], which: Format) -> list[str]:
    """Write what a format needs into a folder of its name, and return the paths; those of keys are 0600.

    Nothing for `files`. Raises RefusedError for a file that is not there.
    """
    if which is Format.FILES:
        return []
    places.check_services(services)
    with ExitStack() as stack:
        there = stack.enter_context(CertificateFolder(directory, dry_run=True))
        members = [_server(stack, there), *(_service(stack, there, *each) for each in services.items())]
        made = _swarm(members) if which is Format.SWARM else _kubernetes(members)
        target = stack.enter_context(stack.enter_context(CertificateFolder(directory)).below(which))
        for name, content in made.items():
            target.write(name, content.encode(), 0o600)
        return [target.place(name) for name in made]


def _server(stack: ExitStack, top: CertificateFolder) -> _Member:
    return _Member(places.SERVER, _read(stack, top, places.SERVER, [file for _, file in _MEMBER]))


def _service(stack: ExitStack, top: CertificateFolder, service: str, user: str) -> _Member:
    files = [f"{user}.pem", f"{user}.key", f"{places.CLIENTS}.pem"]
    return _Member(service, _read(stack, top, service, files, maybe=[places.KEYRING]))


def _read(
    stack: ExitStack, top: CertificateFolder, name: str, files: Sequence[str], maybe: Sequence[str] = ()
) -> dict[str, bytes]:
    """Return what files of a folder hold; those of `maybe` need not be there."""
    folder = stack.enter_context(top.below(name))
    found = {}
    for file in (*files, *maybe):
        content = folder.read(file)
        if content is not None:
            found[file] = content
        elif file in files:
            raise RefusedError(f"{folder.shown(file)}: is not there; make it by `configstore access apply`")
    return found


# -- Swarm --


def _swarm(members: Sequence[_Member]) -> dict[str, str]:
    """Return the script that makes the secrets, and what a stack knows them by.

    A secret of Swarm is never changed: its name has a version, made of what it holds, so that the same files make
    the same secrets, and a new certificate new ones. The stack names them by what the files are called.
    """
    secrets = dict(_secrets(members))
    for name, _ in secrets.values():
        if len(name) > _LONGEST_NAME:
            raise UsageError(
                f"secret {printable(name)}: longer than the {_LONGEST_NAME} letters that Docker takes"
            )
    script = [
        "#!/bin/sh",
        "# Makes the secrets of the swarm that are not there yet; for a manager. Then deploy with secrets.yml:",
        "#   docker stack deploy -c stack.yml -c DIR/swarm/secrets.yml STACK",
        "# The secrets before stay until no task uses them: `docker secret rm` removes them then.",
        "set -eu",
        'cd "$(dirname "$0")/.."',
        "there=$(docker secret ls --format '{{.Name}}')",
        "create() { # NAME; FILE",
        '  printf "%s\\n" "$there" | grep -qxF -e "$1" || docker secret create "$1" "$2"',
        "}",
        *(f"create {name} {path}" for name, path in secrets.values()),
    ]
    stack = [
        "# Which secrets of the swarm a stack uses; written by `configstore access apply --format swarm`.",
        'version: "3.8"',
        "secrets:",
        *(f"  {alias}: {{external: true, name: {name}}}" for alias, (name, _) in secrets.items()),
    ]
    sealed = [folder for folder, files in members if places.KEYRING in files]
    if sealed:
        stack.append("services:")
    for service in sealed:
        secret = f"{service}.{places.KEYRING}"
        stack += [
            f"  {service}-sidecar:",
            f"    environment: {{CONFIGSTORE_SEAL_KEYRING: /run/secrets/{secret}}}",
            f"    secrets: [{{source: {secret}, target: {secret}, mode: 0400}}]",
        ]
    return {"secrets.sh": _lines(script), "secrets.yml": _lines(stack)}


def _secrets(members: Sequence[_Member]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each secret's name in a stack, with its name in the swarm and the path of its file."""
    for folder, files in members:
        for file, content in files.items():
            # A key bears the version of its certificate, so that its own name tells nothing of it.
            shown = files.get(file.replace(".key", ".pem"), content)
            version = hashlib.sha256(b"secret of Swarm\0" + shown).hexdigest()[:10]
            if file == f"{places.CLIENTS}.pem" and folder != places.SERVER:
                continue  # the same for all
            alias = file
            if folder == places.SERVER:
                alias = f"etcd-{file}"
            elif file == places.KEYRING:
                alias = f"{folder}.{places.KEYRING}"
            yield alias, (f"{alias}-{version}", f"{folder}/{file}")


# -- Kubernetes --


def _kubernetes(members: Sequence[_Member]) -> dict[str, str]:
    """Return a Secret for etcd and one for each service, with the keys that the shipped manifests look for."""
    made = {}
    for folder, files in members:
        if folder == places.SERVER:
            name, keys = "etcd-server", {_KUBERNETES[file]: content for file, content in files.items()}
        else:
            name, keys = f"configstore-etcd-{folder}", {_key(file): content for file, content in files.items()}
        made[f"{name}.yaml"] = _lines(
            [
                "apiVersion: v1",
                "kind: Secret",
                "metadata:",
                f"  name: {name}",
                "type: Opaque",
                "data:",
                *(f"  {key}: {base64.b64encode(content).decode()}" for key, content in sorted(keys.items())),
            ]
        )
    return made


def _key(file: str) -> str:
    """Return what a service's file is called in its Secret: the same for all, as it is one folder in each pod."""
    if file == places.KEYRING:
        return file
    if file == f"{places.CLIENTS}.pem":
        return "ca.crt"
    return "tls.key" if file.endswith(".key") else "tls.crt"


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
