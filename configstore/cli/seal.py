"""The parsers of `seal`: keys, what is sealed with which, and sealing again with new ones. See docs/sealing.md."""

import argparse
from functools import partial

from configstore.cli.arguments import Commands, add_command, flag, option, run_of, typed
from configstore.errors import UsageError
from configstore.parsing import parse_name

RATE = 200
"""The most records that `rotate` seals in a second, so that a running mail system is not slowed down."""


def add(commands: Commands) -> None:
    """Add the parsers."""
    text = "make and change the keys by which the store's records are encrypted"
    group = add_command(commands, "seal", _nothing, text, connects=False, as_json=False)
    verbs = group.add_subparsers(metavar="VERB", required=True, prog="configstore seal")
    verb = partial(add_command, verbs, group="seal")
    run = run_of("seal_keygen")
    keygen = verb("keygen", run, "make the master key, and keyrings for services", connects=False)
    option(keygen, "--out DIR", "folder of the master key and the keyrings", required=True)
    text = "make a keyring that opens this subtree; repeatable"
    option(keygen, "--subtree S", text, action="append", default=[])
    text = "make a keyring for each service of a preset, such as mailu or mailu/front; repeatable"
    option(keygen, "--preset NAME", text, action="append", default=[])
    text = "make one keyring of this name for all of these, for the sidecar of a whole host"
    option(keygen, "--one NAME", text, type=typed(parse_name))
    verb("status", run_of("seal_status"), "show what is sealed with which key")
    rotate = verb("rotate", run_of("seal_rotate"), "make a new key, and seal everything with it")
    flag(rotate, "--unseal", "write plain records again; makes no key")
    flag(rotate, "--anyway", "do not wait until all live replicas have the new key")
    option(rotate, "--rate N", f"records a second at most (default: {RATE})", type=_rate, default=RATE)
    forget = verb("forget", run_of("seal_forget"), "delete the old keys that nothing in the store needs")
    flag(forget, "--anyway", "delete them although live replicas do not have the newest key yet")


def _nothing(_: argparse.Namespace) -> int:
    raise UsageError("seal: type a verb; `configstore seal --help` lists them")


def _rate(text: str) -> int:
    number = text.removesuffix("/s")
    if not (number.isascii() and number.isdigit()) or not 0 < int(number) <= 1_000_000:
        raise argparse.ArgumentTypeError("expected how many a second, such as 200")
    return int(number)
