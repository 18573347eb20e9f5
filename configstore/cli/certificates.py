"""`check-certificates`: whether the certificates and keys of a folder fit; also the `check` of mappings."""

import argparse
import datetime as dt
import os
from collections.abc import Iterator

from configstore.cli.arguments import Commands, add_command, flag, option
from configstore.cli.render import write_json
from configstore.errors import NotThereError, RefusedError, UsageError
from configstore.model.path import PRIVATE_NAME, printable

_MAX_SIZE = 1 << 20
_VARIABLES = ("TLS_CERT_FILENAME", "TLS_KEYPAIR_FILENAME")


def add(commands: Commands) -> None:
    """Add the parser."""
    text = "check that a server can use the certificates and keys of a folder"
    parser = add_command(commands, "check-certificates", _run, text, connects=False)
    parser.add_argument("directory", metavar="DIR", help="folder with certificates and keys")
    option(parser, "--cert FILE", f"certificate, below DIR (default: {_VARIABLES[0]}, else every pair is checked)")
    option(parser, "--key FILE", f"its key, below DIR (default: {_VARIABLES[1]}, else every pair is checked)")
    flag(parser, "--expired", "accept certificates that have expired")


def _run(args: argparse.Namespace) -> int:
    try:
        from configstore import certificates  # noqa: PLC0415 - a library that only this command needs
    except ImportError:
        raise UsageError(
            "check-certificates: needs the library cryptography: pip install 'mailu-configstore[certificates]'"
        ) from None
    cert = args.cert or os.environ.get(_VARIABLES[0])
    key = args.key or os.environ.get(_VARIABLES[1])
    pair = (cert or certificates.DEFAULT[0], key or certificates.DEFAULT[1]) if cert or key else None
    files = dict(_files(args.directory))
    found = certificates.problems(files, pair, dt.datetime.now(dt.UTC), expired=args.expired)
    if args.json:
        write_json({"directory": args.directory, "problems": list(found)})
    if found:
        raise RefusedError("; ".join(found))
    return 0


def _files(directory: str) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a folder by their paths, but for certbot's own tree, which keeps old pairs, too."""
    if not os.path.isdir(directory):
        raise NotThereError(f"{printable(directory)}: is no directory")
    for where, folders, files in os.walk(directory):
        top = os.path.relpath(where, directory) == "."
        folders[:] = [
            name
            for name in folders
            if name != PRIVATE_NAME and not name.startswith("..") and not (top and name == "letsencrypt")
        ]
        for name in files:
            path = os.path.join(where, name)
            with open(path, "rb", opener=_open) as file:
                yield os.path.relpath(path, directory), file.read(_MAX_SIZE)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
