"""The certificates below a directory as a deployment takes them: files, Swarm secrets, Kubernetes Secrets.

Reads files only, so it needs no library for certificates. Called by `cli.access_apply`.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from enum import StrEnum
from typing import NamedTuple

from configstore.access import layout
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
"""Letters of a secret's name that Docker accepts."""


class Format(StrEnum):
    """The form in which a deployment takes certificates."""

    FILES = "files"
    SWARM = "swarm"
    KUBERNETES = "kubernetes"


class _Folder(NamedTuple):
    """The folder of one container, and those of its files that are handed over."""

    name: str
    files: Mapping[str, bytes]


def etcd_flags(directory: str) -> list[str]:
    """Return the options with which a member of etcd uses the files of the folder `server`.

    As variables they are ETCD_CERT_FILE and so on. etcd reads certificates and keys at each handshake, but the
    files of authorities only at its start.
    """
    server = f"{directory.rstrip('/')}/{layout.SERVER}"
    return [*(f"{flag}={server}/{file}" for flag, file in _MEMBER), *_REQUIRED]


def write(directory: str, services: Mapping[str, str], which: Format) -> list[str]:
    """Write the files of a format into a folder of its name (0600), and return their paths.

    `files` needs none. Raises RefusedError for a missing certificate or key.
    """
    if which is Format.FILES:
        return []
    layout.check_services(services)
    with ExitStack() as stack:
        there = stack.enter_context(CertificateFolder(directory, dry_run=True))
        folders = [_server(stack, there), *(_service(stack, there, *each) for each in services.items())]
        made = _swarm(folders) if which is Format.SWARM else _kubernetes(folders)
        target = stack.enter_context(stack.enter_context(CertificateFolder(directory)).below(which))
        for name, content in made.items():
            target.write(name, content.encode(), 0o600)
        return [target.path_of(name) for name in made]


def _server(stack: ExitStack, top: CertificateFolder) -> _Folder:
    return _Folder(layout.SERVER, _read(stack, top, layout.SERVER, [file for _, file in _MEMBER]))


def _service(stack: ExitStack, top: CertificateFolder, service: str, user: str) -> _Folder:
    files = [f"{user}.pem", f"{user}.key", f"{layout.CLIENTS}.pem"]
    return _Folder(service, _read(stack, top, service, files, maybe=[layout.KEYRING]))


def _read(
    stack: ExitStack, top: CertificateFolder, name: str, files: Sequence[str], maybe: Sequence[str] = ()
) -> dict[str, bytes]:
    """Return the content of a folder's files; those of `maybe` need not exist."""
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


def _swarm(folders: Sequence[_Folder]) -> dict[str, str]:
    """Return the script that makes the secrets, and the part of a stack that names them.

    Swarm cannot change a secret. So its name has a version made of its content: the same files make the same
    secrets, and a new certificate new ones. The stack names them by their files' names.
    """
    secrets = dict(_secrets(folders))
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
    sealed = [folder for folder, files in folders if layout.KEYRING in files]
    if sealed:
        stack.append("services:")
    for service in sealed:
        secret = f"{service}.{layout.KEYRING}"
        stack += [
            f"  {service}-sidecar:",
            f"    environment: {{CONFIGSTORE_SEAL_KEYRING: /run/secrets/{secret}}}",
            f"    secrets: [{{source: {secret}, target: {secret}, mode: 0400}}]",
        ]
    return {"secrets.sh": _lines(script), "secrets.yml": _lines(stack)}


def _secrets(folders: Sequence[_Folder]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each secret's name in a stack, with its name in the swarm and the path of its file."""
    for folder, files in folders:
        for file, content in files.items():
            # A key gets the version of its certificate: a hash of the key itself must not be published.
            shown = files.get(file.replace(".key", ".pem"), content)
            version = hashlib.sha256(b"secret of Swarm\0" + shown).hexdigest()[:10]
            if file == f"{layout.CLIENTS}.pem" and folder != layout.SERVER:
                continue  # the same for all services
            alias = file
            if folder == layout.SERVER:
                alias = f"etcd-{file}"
            elif file == layout.KEYRING:
                alias = f"{folder}.{layout.KEYRING}"
            yield alias, (f"{alias}-{version}", f"{folder}/{file}")


# -- Kubernetes --


def _kubernetes(folders: Sequence[_Folder]) -> dict[str, str]:
    """Return a Secret for etcd and one for each service, with the keys that the shipped manifests use."""
    made = {}
    for folder, files in folders:
        if folder == layout.SERVER:
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
    """Return the key of a service's file in its Secret: the same for all, since each pod mounts one folder."""
    if file == layout.KEYRING:
        return file
    if file == f"{layout.CLIENTS}.pem":
        return "ca.crt"
    return "tls.key" if file.endswith(".key") else "tls.crt"


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
