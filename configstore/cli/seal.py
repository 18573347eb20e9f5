"""The parsers of `seal`: keys, what is sealed with which, and sealing again with new ones. See docs/sealing.md."""

import argparse

from configstore.cli.arguments import Commands, add_command, run_of, typed
from configstore.errors import UsageError
from configstore.parsing import parse_name

RATE = 200
"""The most records that `rotate` seals in a second, so that a running mail system is not slowed down."""


def add(commands: Commands) -> None:
    """Add the parsers."""
    group = add_command(
        commands,
        "seal",
        _nothing,
        "make and change the keys by which the store's records are encrypted",
        connects=False,
    )
    verbs = group.add_subparsers(metavar="VERB", required=True, prog="configstore seal")
    keygen = add_command(
        verbs, "keygen", run_of("seal_keygen"), "make the master key, and keyrings for services",
        connects=False, listed=True, group="seal",
    )  # fmt: skip
    keygen.add_argument("--out", metavar="DIR", required=True, help="folder of the master key and the keyrings")
    keygen.add_argument(
        "--subtree",
        metavar="S",
        action="append",
        default=[],
        help="make a keyring that opens this subtree; repeatable",
    )
    keygen.add_argument(
        "--preset", metavar="NAME", action="append", default=[],
        help="make a keyring for each service of a preset, such as mailu or mailu/front; repeatable",
    )  # fmt: skip
    keygen.add_argument(
        "--one", metavar="NAME", type=typed(parse_name),
        help="make one keyring of this name for all of these, for the sidecar of a whole host",
    )  # fmt: skip
    add_command(
        verbs, "status", run_of("seal_status"), "show what is sealed with which key", listed=True, group="seal"
    )
    rotate = add_command(
        verbs,
        "rotate",
        run_of("seal_rotate"),
        "make a new key, and seal everything with it",
        listed=True,
        group="seal",
    )
    rotate.add_argument("--unseal", action="store_true", help="write plain records again; makes no key")
    rotate.add_argument(
        "--anyway", action="store_true", help="do not wait until all live replicas have the new key"
    )
    rotate.add_argument(
        "--rate", metavar="N", type=_rate, default=RATE, help=f"records a second at most (default: {RATE})"
    )
    forget = add_command(
        verbs,
        "forget",
        run_of("seal_forget"),
        "delete the old keys that nothing in the store needs",
        listed=True,
        group="seal",
    )
    forget.add_argument(
        "--anyway", action="store_true", help="delete them although live replicas do not have the newest key yet"
    )


def _nothing(_: argparse.Namespace) -> int:
    raise UsageError("seal: type a verb; `configstore seal --help` lists them")


def _rate(text: str) -> int:
    number = text.removesuffix("/s")
    if not (number.isascii() and number.isdigit()) or not 0 < int(number) <= 1_000_000:
        raise argparse.ArgumentTypeError("expected how many a second, such as 200")
    return int(number)
