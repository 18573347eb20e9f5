"""What commands share about their arguments: the store's options, typed paths and modes."""

import argparse
import os
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from configstore.cli.examples import epilog
from configstore.commandline import Parser
from configstore.errors import NotThereError, RefusedError
from configstore.model.path import ROOT, PathError, StorePath, parse_path
from configstore.settings import SealSettings, StoreSettings, load_seal, load_store

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - the type has no public name


_STORE_OPTIONS = (
    ("endpoints", "URL[,URL…]", "etcd's client URLs, tried in turn"),
    ("root", "KEY", "the key below which everything lies (default: /configstore)"),
    ("cacert", "FILE", "CA certificates that sign the server's certificate, PEM"),
    ("cert", "FILE", "client certificate, PEM"),
    ("key", "FILE", "client key, PEM"),
    ("user", "NAME", "etcd user, without its password"),
    ("password_file", "FILE", "file with the user's password"),
    ("server_name", "NAME", "name expected in the server's certificate"),
    ("timeout", "DURATION", "time for one call, such as 10s"),
)

_SEAL_OPTIONS = (
    ("seal_keyring", "FILE", "keyring that seals and opens records, such as the master of `seal keygen`"),
    ("seal", "POLICY", "required (with a keyring), accept: read plain records, too, or off: write them plain"),
)


def add_store_options(parser: argparse.ArgumentParser, *, told: bool) -> None:
    """Add the options that say how to reach the store, without defaults; `told`: its help lists them."""
    group: argparse._ActionsContainer = parser
    if told:
        words = (
            "each also from CONFIGSTORE_<NAME>, such as CONFIGSTORE_ENDPOINTS; they may follow the command, too"
        )
        group = parser.add_argument_group("store", words)
    for name, metavar, text in (*_STORE_OPTIONS, *_SEAL_OPTIONS):
        option = f"--{name.replace('_', '-')}"
        group.add_argument(
            option, dest=name, metavar=metavar, help=text if told else argparse.SUPPRESS, default=argparse.SUPPRESS
        )


def store_settings(
    args: argparse.Namespace, table: Mapping[str, object] | None = None, source: str = ""
) -> StoreSettings:
    """Return the settings of environment and options, over the `[store]` table of a file. Raises UsageError."""
    options = {name: getattr(args, name, None) for name, _, _ in _STORE_OPTIONS}
    return load_store(environ=os.environ, table=table, source=source, options=options)


def seal_settings(args: argparse.Namespace) -> SealSettings:
    """Return the settings of environment and options about sealing. Raises UsageError."""
    return load_seal(environ=os.environ, options=vars(args))


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    *,
    connects: bool = True,
    listed: bool = False,
    group: str = "",
) -> Parser:
    """Add a command's parser; `connects` brings the store's options, `listed` brings `--json`.

    group: the command that it is a verb of.
    """
    parser: Parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[:1].upper()}{text[1:]}.",
        epilog=epilog(f"{group} {name}".strip(), connects=connects),
    )
    parser.set_defaults(run=run)
    if connects:
        add_store_options(parser, told=False)
    if listed:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def typed_path(text: str) -> StorePath:
    """Check the path of a file that a person typed, `./` before one like an option. Raises RefusedError."""
    try:
        return parse_path(text.removeprefix("./"))
    except PathError as error:
        raise RefusedError(f"unsafe path: {error}") from None


def typed_directory(text: str) -> StorePath:
    """As `typed_path`, for what may be a directory: `/` is the whole tree, one trailing slash is dropped."""
    return ROOT if text == "/" else typed_path(text.removesuffix("/"))


def typed_record(text: str) -> StorePath:
    """As `typed_directory`, for what has a record. Raises NotThereError for the whole tree, which has none."""
    path = typed_directory(text)
    if path == ROOT:
        raise NotThereError("/: is the whole tree, which has no record of its own; `configstore ls` shows it")
    return path


_MODE = re.compile(r"0?[0-7]{3}")


def mode(text: str) -> int:
    """Read an octal mode; an argparse type, its error exits with 2."""
    if not _MODE.fullmatch(text):
        raise argparse.ArgumentTypeError("expected an octal mode such as 0600, without setuid, setgid and sticky")
    return int(text, 8)


def revision(text: str) -> int:
    """Read a revision above 0; an argparse type."""
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError("expected a revision, a whole number above 0")
    return int(text)


def revision_or_zero(text: str) -> int:
    """Read a revision, or 0 for `never written`; an argparse type."""
    return 0 if text == "0" else revision(text)
