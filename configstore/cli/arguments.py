"""What the commands share about their arguments: the store's options, typed paths and modes."""

import argparse
import os
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeAlias, TypeVar

from configstore.cli.examples import epilog
from configstore.commandline import Parser
from configstore.errors import NotThereError, RefusedError
from configstore.model.path import ROOT, PathError, StorePath, parse_path
from configstore.settings import STORE_OPTIONS, SealSettings, StoreSettings, as_option, load_seal, load_store

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - the type has no public name

Run: TypeAlias = Callable[[argparse.Namespace], int]
"""What carries out a command: takes its arguments, returns its exit code."""

Value = TypeVar("Value")

_SEAL_OPTIONS = {
    "seal_keyring": ("FILE", "keyring that seals and opens records, such as the master of `seal keygen`"),
    "seal": (
        "POLICY",
        "required (default with a keyring), accept (reads plain records, too) or off (writes plain ones)",
    ),
}


def add_store_options(parser: argparse.ArgumentParser, *, listed: bool) -> None:
    """Add the options that say how to reach the store, without defaults. listed: the help lists them."""
    group: argparse._ActionsContainer = parser
    if listed:
        text = "each is also a variable, such as CONFIGSTORE_ENDPOINTS, and may follow the command, too"
        group = parser.add_argument_group("store", text)
    for name, (metavar, text) in (STORE_OPTIONS | _SEAL_OPTIONS).items():
        shown = text if listed else argparse.SUPPRESS
        group.add_argument(as_option(name), dest=name, metavar=metavar, help=shown, default=argparse.SUPPRESS)


def store_settings(
    args: argparse.Namespace, table: Mapping[str, object] | None = None, source: str = ""
) -> StoreSettings:
    """Return the settings of environment and options, over the `[store]` table of a file. Raises UsageError."""
    options = {name: getattr(args, name, None) for name in STORE_OPTIONS}
    return load_store(environ=os.environ, table=table, source=source, options=options)


def seal_settings(args: argparse.Namespace) -> SealSettings:
    """Return the settings of environment and options about sealing. Raises UsageError."""
    return load_seal(environ=os.environ, options=vars(args))


def add_command(
    commands: Commands,
    name: str,
    run: Run,
    text: str,
    *,
    connects: bool = True,
    as_json: bool = True,
    group: str = "",
) -> Parser:
    """Add and return the parser of a command.

    connects: the command takes the store's options. as_json: it takes `--json`. group: the command that it is a
    verb of, "" for none.
    """
    parser: Parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[:1].upper()}{text[1:]}.",
        epilog=epilog(f"{group} {name}".strip(), connects=connects),
    )
    parser.set_defaults(run=run)
    if connects:
        add_store_options(parser, listed=False)
    if as_json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run_of(module: str) -> Run:
    """Return the function `run` of a module of this package, which is imported when the command runs.

    Most commands need neither that module nor the libraries that it imports.
    """

    def run(args: argparse.Namespace) -> int:
        code: int = import_module(f"configstore.cli.{module}").run(args)
        return code

    return run


def flag(parser: argparse._ActionsContainer, names: str, text: str) -> None:
    """Add an option without a value, such as `-r, --recursive`."""
    parser.add_argument(*names.split(", "), action="store_true", help=text)


def option(
    parser: argparse._ActionsContainer,
    names: str,
    text: str,
    **more: Any,  # noqa: ANN401 - as argparse takes them
) -> None:
    """Add an option with a value, such as `-o, --output FILE`; `more` is argparse's: a type, a default."""
    written, metavar = names.rsplit(" ", 1)
    parser.add_argument(*written.split(", "), metavar=metavar, help=text, **more)


def add_path(parser: Parser, text: str = "path in the store, such as certs/cert.pem") -> None:
    """Add the argument PATH."""
    parser.add_argument("path", metavar="PATH", help=text)


def add_optional_path(parser: Parser) -> None:
    """Add the argument PATH, which is the whole store where it is left out."""
    parser.add_argument(
        "path", metavar="PATH", nargs="?", default="/", help="path in the store (default: all of it)"
    )


def typed_path(text: str) -> StorePath:
    """Return the path of a file as a person typed it, perhaps with `./` before it. Raises RefusedError."""
    try:
        return parse_path(text.removeprefix("./"))
    except PathError as error:
        raise RefusedError(f"unsafe path: {error}") from None


def typed_directory(text: str) -> StorePath:
    """Return the path of a file or directory as a person typed it. Raises RefusedError.

    `/` is the whole tree; one slash at the end is dropped.
    """
    return ROOT if text == "/" else typed_path(text.removesuffix("/"))


def typed_record(text: str) -> StorePath:
    """Return a typed path that has a record. Raises NotThereError for the whole tree, RefusedError."""
    path = typed_directory(text)
    if path == ROOT:
        raise NotThereError("/: is the whole tree, which has no record of its own; `configstore ls` shows it")
    return path


def typed(parse: Callable[[object], Value]) -> Callable[[str], Value]:
    """Return the argparse type of a setting's parser: what it refuses exits with 2."""

    def read(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def port(least: int) -> Callable[[str], int]:
    """Return the argparse type of a port from `least` on."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text[:6]) < 65536:
            raise argparse.ArgumentTypeError(f"expected a port between {least} and 65535")
        return int(text)

    return read


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
    """Read a revision, or 0 for a path that was never written; an argparse type."""
    return 0 if text == "0" else revision(text)
