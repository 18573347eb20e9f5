"""The command `configstore`: shows and changes the store by hand.

One short module a command group; each has `add(commands)`, which adds its parsers, and functions that take the
parsed arguments and return an exit code. A group is imported when one of its commands is typed. Nothing here
imports grpc: a command that connects does, through `session.open_tree`.
"""

import atexit
import contextlib
import gc
import logging
import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Never

import configstore.process.lean  # noqa: F401 - before all that loads less by it
from configstore import __version__
from configstore.cli.arguments import add_store_options
from configstore.cli.examples import SECTIONS
from configstore.commandline import Parser, occupy_standard_files
from configstore.errors import ConfigstoreError, RefusedError
from configstore.model.path import printable
from configstore.model.record import RecordError
from configstore.process.secrecy import keep_memory_private

INTERRUPTED = 130
BROKEN_PIPE = 141

_GARBAGE = 20_000
"""New objects after which Python collects garbage; imports make many times its default of 700."""

_UNSAID = logging.NullHandler()
"""Drops what the store logs for a daemon, such as a lost lease: a command prints one error line instead."""

GROUPS: dict[str, tuple[str, ...]] = {
    "content": ("put", "get"),
    "listing": ("ls", "stat"),
    "trees": ("import", "export"),
    "history": ("history", "diff", "restore"),
    "conflicts": ("conflicts", "resolve"),
    "remove": ("rm",),
    "roots": ("mkdir", "bootstrap"),
    "watch": ("watch",),
    "status": ("status",),
    "replicas": ("replicas", "resume"),
    "leases": ("leases",),
    "critical": ("run", "wait", "flush"),
    "seal": ("seal",),
    "doctor": ("doctor",),
    "ui": ("ui",),
    "presets": ("presets",),
    "access": ("access",),
    "certificates": ("check-certificates",),
    "dev": ("dev",),
    "completion": ("completion",),
}
"""The commands of each module, in the order of `configstore --help`."""


class _AllNeeded(Exception):  # noqa: N818 - nothing is wrong
    """The text to print needs the parsers of all commands."""


class _PartialParser(Parser):
    """A parser with some of the commands, for the usual case that one of them was typed correctly."""

    def format_help(self) -> str:
        """Raise _AllNeeded: the help lists all commands."""
        raise _AllNeeded

    def error(self, message: str) -> Never:  # noqa: ARG002 - the parser of all commands prints it
        """Raise _AllNeeded: another command may have been meant."""
        raise _AllNeeded


def build_parser(typed: Collection[str] | None = None) -> Parser:
    """Return the parser of the whole command line.

    typed: the words of a command line. Where there are commands among them, the parser has only these, and raises
    _AllNeeded for a text that needs all commands.
    """
    wanted = [group for group, names in GROUPS.items() if typed is not None and not set(names).isdisjoint(typed)]
    parser = (_PartialParser if wanted else Parser)(
        prog="configstore",
        usage="configstore [OPTIONS] COMMAND [ARGUMENTS]",
        description="Show and change the files that configstore keeps in etcd.",
        epilog="`configstore COMMAND --help` explains a command and shows examples.\n\n"
        "exit codes: 0 done; 1 not there, or it differs; 2 usage or settings; 3 conflict;\n"
        "4 store unreachable in time; 5 refused",
    )
    parser.add_argument("--version", action="version", version=f"configstore {__version__}")
    add_store_options(parser, listed=True)
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog="configstore", parser_class=Parser
    )
    for group in wanted or GROUPS:
        import_module(f"configstore.cli.{group}").add(commands)
    if not wanted:
        parser.list_commands(SECTIONS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; failures are one line on stderr, never a traceback."""
    occupy_standard_files()
    keep_memory_private()
    gc.set_threshold(_GARBAGE)
    atexit.register(gc.freeze)  # saves a last collection when the process ends
    logging.getLogger("configstore").addHandler(_UNSAID)
    try:
        words = sys.argv[1:] if argv is None else argv
        try:
            args = build_parser(words).parse_args(argv)
        except _AllNeeded:
            args = build_parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse: help, version, and errors
        code = stop.code if isinstance(stop.code, int) else 0
    except (ConfigstoreError, RecordError) as error:
        code = _say(str(error), _code(error))
    except BrokenPipeError:
        code = BROKEN_PIPE
        _drop_output()
    except OSError as error:
        shown = f"{printable(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        code = _say(f"{shown}{error.strerror or error}", 5 if isinstance(error, PermissionError) else 1)
    except KeyboardInterrupt:
        code = INTERRUPTED
    return code


def _code(error: ConfigstoreError | RecordError) -> int:
    if isinstance(error, ConfigstoreError):
        return error.exit_code
    from configstore.store.envelope import SealingError  # noqa: PLC0415 - loaded already where such an error was raised

    return RefusedError.exit_code if isinstance(error, SealingError) else 1


def _say(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"configstore: {printable(message)}", file=sys.stderr)
    return code


def _drop_output() -> None:
    """Send the interpreter's last flush to the null device: the pipe that stdout was is closed."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
