"""The command `configstore`: looks at the store and changes it by hand.

One short module a command group; each has `add(commands)`, which adds its parsers, and functions that take the
parsed arguments and return an exit code. Nothing here imports grpc: a command that connects does, through
`session.open_tree`.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence

from configstore import __version__
from configstore.cli import (
    access,
    certificates,
    completion,
    conflicts,
    content,
    dev,
    doctor,
    history,
    leases,
    listing,
    presets,
    remove,
    replicas,
    roots,
    seal,
    status,
    trees,
    ui,
    watch,
)
from configstore.cli.arguments import Commands, add_store_options
from configstore.cli.examples import SECTIONS
from configstore.commandline import Parser, occupy_standard_files
from configstore.errors import ConfigstoreError, RefusedError
from configstore.model.path import printable
from configstore.model.record import RecordError
from configstore.secrecy import keep_memory_private
from configstore.store.envelope import SealingError

INTERRUPTED = 130
BROKEN_PIPE = 141

_UNSAID = logging.NullHandler()
"""What the store logs for a daemon, such as a lease that is lost, a command says by its one line."""

_GROUPS: tuple[Callable[[Commands], None], ...] = (
    content.add,
    listing.add,
    trees.add,
    history.add,
    conflicts.add,
    remove.add,
    roots.add,
    watch.add,
    status.add,
    replicas.add,
    leases.add,
    seal.add,
    doctor.add,
    ui.add,
    presets.add,
    access.add,
    certificates.add,
    dev.add,
    completion.add,
)


def build_parser() -> Parser:
    """Return the parser of the whole command line."""
    parser = Parser(
        prog="configstore",
        usage="configstore [OPTIONS] COMMAND [ARGUMENTS]",
        description="Looks at and changes the files that configstore keeps in etcd.",
        epilog="`configstore COMMAND --help` shows a command in use.\n\n"
        "exit codes: 0 done; 1 not there, or it differs; 2 usage or settings; 3 conflict;\n"
        "4 store unreachable in time; 5 refused",
    )
    parser.add_argument("--version", action="version", version=f"configstore {__version__}")
    add_store_options(parser, told=True)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, prog="configstore")
    for add in _GROUPS:
        add(commands)
    parser.sections = SECTIONS
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; failures are one line on stderr, never a traceback."""
    occupy_standard_files()
    keep_memory_private()
    logging.getLogger("configstore").addHandler(_UNSAID)
    try:
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
    return RefusedError.exit_code if isinstance(error, SealingError) else 1


def _say(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"configstore: {printable(message)}", file=sys.stderr)
    return code


def _drop_output() -> None:
    """Let the interpreter's last flush of a closed pipe go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
