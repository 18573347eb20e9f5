"""`seal`: keys, what is sealed with which, and sealing again with new ones. docs/sealing.md is the guide.

What the verbs need is imported when they run: most commands are not about sealing.
"""

import argparse

from configstore.cli.arguments import Commands, add_command
from configstore.errors import UsageError
from configstore.parsing import parse_name

RATE = 200
"""Records that `rotate` seals in a second at most, so that a running mail system does not feel it."""


def add(commands: Commands) -> None:
    """Add the parsers."""
    group = add_command(
        commands, "seal", _nothing, "keys that seal what is stored, and what is sealed with them", connects=False
    )
    verbs = group.add_subparsers(metavar="VERB", required=True, prog="configstore seal")
    keygen = add_command(
        verbs, "keygen", _run_keygen, "make a master, and the keyrings that follow from it",
        connects=False, listed=True, group="seal",
    )  # fmt: skip
    keygen.add_argument("--out", metavar="DIR", required=True, help="folder of the master and the keyrings")
    keygen.add_argument(
        "--subtree",
        metavar="S",
        action="append",
        default=[],
        help="a keyring that opens this subtree (repeatable)",
    )
    keygen.add_argument(
        "--preset", metavar="NAME", action="append", default=[],
        help="a keyring for each service of a preset, such as mailu or mailu/front (repeatable)",
    )  # fmt: skip
    keygen.add_argument(
        "--one", metavar="NAME", type=_name,
        help="one keyring of this name for all of these: for a sidecar that mirrors for a whole host",
    )  # fmt: skip
    add_command(verbs, "status", _run_status, "tell what is sealed with which key", listed=True, group="seal")
    rotate = add_command(
        verbs, "rotate", _run_rotate, "make a new key, and seal everything with it", listed=True, group="seal"
    )
    rotate.add_argument("--unseal", action="store_true", help="return to plain records; makes no key")
    rotate.add_argument(
        "--anyway", action="store_true", help="go on although live replicas do not have the new key yet"
    )
    rotate.add_argument(
        "--rate", metavar="N", type=_rate, default=RATE, help=f"records a second at most (default: {RATE})"
    )
    forget = add_command(
        verbs,
        "forget",
        _run_forget,
        "drop the old keys that nothing in the store needs",
        listed=True,
        group="seal",
    )
    forget.add_argument(
        "--anyway", action="store_true", help="go on although live replicas do not have the newest key yet"
    )


def _nothing(args: argparse.Namespace) -> int:
    raise UsageError(f"seal: expected a verb, not {args}")  # argparse asks for one


def _name(text: str) -> str:
    try:
        return parse_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _rate(text: str) -> int:
    number = text.removesuffix("/s")
    if not (number.isascii() and number.isdigit()) or not 0 < int(number) <= 1_000_000:
        raise argparse.ArgumentTypeError("expected how many a second, such as 200")
    return int(number)


def _run_keygen(args: argparse.Namespace) -> int:
    from configstore.cli.seal_keygen import run  # noqa: PLC0415 - see the top

    return run(args)


def _run_status(args: argparse.Namespace) -> int:
    from configstore.cli.seal_status import run  # noqa: PLC0415 - see the top

    return run(args)


def _run_rotate(args: argparse.Namespace) -> int:
    from configstore.cli.seal_rotate import run  # noqa: PLC0415 - see the top

    return run(args)


def _run_forget(args: argparse.Namespace) -> int:
    from configstore.cli.seal_forget import run  # noqa: PLC0415 - see the top

    return run(args)
