"""The command `configstore-sidecar`: run, init, plan, health."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence

import msgspec

from configstore import __version__
from configstore.commandline import SHELLS, Parser, completion_script, occupy_standard_files
from configstore.errors import ConfigstoreError, UnreachableError
from configstore.model.path import printable, printable_json, shown
from configstore.process.secrecy import keep_memory_private
from configstore.settings import DEFAULT_ENDPOINT
from sidecar.config.settings import Config, load_config
from sidecar.planner.plan import Plan

log = logging.getLogger(__name__)

_COMMANDS = {
    "run": "mirror until SIGTERM, then send what is under way and exit 0",
    "init": "fill the directories once; exit 0 only when every required mapping is complete",
    "plan": "print what a cycle would do now, and do nothing",
    "health": "ask the running sidecar on this host whether it is ready (for HEALTHCHECK)",
}

_STORE = ("endpoints", "root", "cacert", "cert", "key", "user", "password-file", "server-name")
"""Options that every command takes and that the main help tells, not each of theirs."""

_EXAMPLES = {
    "run": (
        "configstore-sidecar run --preset mailu/front",
        "configstore-sidecar run --config /etc/configstore.toml",
    ),
    "init": ("configstore-sidecar init --preset mailu/front --timeout 5m",),
    "plan": ("configstore-sidecar plan --preset mailu/front --json",),
    "health": ("configstore-sidecar health", "configstore-sidecar health --service front"),
    "completion": ("configstore-sidecar completion bash > /etc/bash_completion.d/configstore-sidecar",),
}

_MAX_ANSWER = 1 << 20

_OPTIONS = {
    "preset": ("NAME[,NAME]", "built-in mappings of a Mailu service, such as mailu/front"),
    "endpoints": ("URL[,URL]", "etcd's client addresses"),
    "root": ("KEY", "root key of the store"),
    "cacert": ("FILE", "certificates of the authority that signed etcd's"),
    "cert": ("FILE", "client certificate"),
    "key": ("FILE", "its private key"),
    "user": ("NAME", "etcd user"),
    "password-file": ("FILE", "file with its password"),
    "server-name": ("NAME", "name that etcd's certificate must carry"),
    "seal-keyring": ("FILE", "keyring that seals and opens what is mirrored (`configstore seal keygen`)"),
    "timeout": ("DURATION", "for how long init and plan wait for the store (default 60s)"),
    "replica": ("ID", "this replica's id (default: host name and something random)"),
    "health-listen": ("HOST:PORT", "where to serve /livez, /readyz and /metrics; none for nowhere"),
    "log-level": ("LEVEL", "debug, info, warning or error"),
    "log-format": ("FORM", "text or json"),
}


def parser() -> Parser:
    """Return the command line's parser."""
    store = "\n".join(f"  {f'--{option} {_OPTIONS[option][0]}':<26}{_OPTIONS[option][1]}" for option in _STORE)
    top = Parser(
        prog="configstore-sidecar",
        description="Mirrors subtrees of the store into local directories, both ways.",
        epilog="how etcd is reached, with every command but completion; each also as CONFIGSTORE_<NAME>:\n"
        f"{store}\n\n"
        "exit codes: 0 done; 1 incomplete, not ready, or something could not be sent; 2 usage or settings;\n"
        "4 store unreachable in time; 5 refused",
    )
    top.add_argument("--version", action="version", version=f"configstore-sidecar {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, words in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=words,
            description=f"{words[:1].upper()}{words[1:]}.",
            epilog=f"{_in_use(name)}\n\nHow etcd is reached (--endpoints, --cacert, …) may be said here, too:"
            " `configstore-sidecar --help`.",
        )
        command.add_argument("--config", metavar="FILE", help="settings in TOML")
        for option, (metavar, text) in _OPTIONS.items():
            told = argparse.SUPPRESS if option in _STORE else text
            command.add_argument(f"--{option}", metavar=metavar, help=told)
        if name == "plan":
            command.add_argument("--json", action="store_true", help="print the plan as JSON")
        if name == "health":
            one = command.add_mutually_exclusive_group()
            one.add_argument("--service", metavar="NAME", help="of one service alone, such as front")
            one.add_argument("--live", action="store_true", help="only whether it works at all (/livez)")
    words = "print a completion script for a shell"
    completion = commands.add_parser(
        "completion",
        help=words,
        description=f"{words[:1].upper()}{words[1:]}.",
        epilog=_in_use("completion"),
    )
    completion.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    return top


def _in_use(command: str) -> str:
    return "examples:\n" + "\n".join(f"  $ {line}" for line in _EXAMPLES[command])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    occupy_standard_files()
    keep_memory_private()
    options = vars(parser().parse_args(arguments))
    command = options.pop("command")
    if command == "completion":
        print(completion_script(parser(), options["shell"]))
        return 0
    file = options.pop("config")
    as_json = options.pop("json", False)
    service, live = options.pop("service", None), options.pop("live", False)
    config = None
    try:
        config = load_config(file=file, environ=os.environ, options=options)
        if command == "health":
            return _health(config.health_listen, "/livez" if live else _readiness(service))
        return _dispatch(command, config, as_json=as_json)
    except ConfigstoreError as error:
        from sidecar.reporting import logs  # noqa: PLC0415  # whoever succeeds does not pay for it

        default = isinstance(error, UnreachableError) and config and config.store.endpoints == (DEFAULT_ENDPOINT,)
        hint = f"; {DEFAULT_ENDPOINT} is the default: set CONFIGSTORE_ENDPOINTS where etcd is elsewhere"
        logs.say(f"configstore-sidecar: {error}{hint if default else ''}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _dispatch(command: str, config: Config, *, as_json: bool) -> int:
    # Only what works with the store pays for loading its client.
    from sidecar.daemon import commands  # noqa: PLC0415 - see above
    from sidecar.process import footprint  # noqa: PLC0415 - see above
    from sidecar.reporting import logs  # noqa: PLC0415 - see above

    footprint.economize()
    with logs.configured(config.log_level, config.log_format):
        for note in config.notes:
            log.warning(note)
        if command == "run":
            return commands.run(config)
        if command == "init":
            return commands.init(config)
        plans = commands.plan(config)
    if as_json:
        print(printable_json(msgspec.json.encode(plans).decode()))
    else:
        for line in _plan_lines(plans):
            print(printable(line))
    return 0


def _plan_lines(plans: dict[str, Plan]) -> Iterator[str]:
    for name, plan in plans.items():
        if plan.waiting_for:
            yield f"{name}: nothing of this now; it waits: {plan.waiting_for}"
        if plan.halted:
            yield f"{name}: nothing of this; it would halt: {plan.halted}"
        if plan.empty and not plan.problems and not plan.waiting_for:
            yield f"{name}: nothing to do"
        for push in plan.push:
            yield f"{name}: push {push.entry.kind} {shown(push.path)}"
        for pull in plan.pull:
            kept = " (the local one is kept under conflicts/)" if pull.keep else ""
            yield f"{name}: pull {pull.remote.entry.kind} {shown(pull.path)}{kept}"
        for problem in plan.problems.values():
            yield f"{name}: problem {problem}"


def _readiness(service: str | None) -> str:
    """Return what to ask for. Raises UsageError."""
    if service is None:
        return "/readyz"
    from configstore.presets.services import checked_name  # noqa: PLC0415  # nobody else pays for it

    return f"/readyz?service={checked_name(service)}"


def _health(listen: str, what: str) -> int:
    """Return 0 when the answer is yes, 1 when it is no or nobody answers."""
    if not listen:
        print("configstore-sidecar: [health] listen is off, so there is nobody to ask", file=sys.stderr)
        return 2
    host, _, port = listen.rpartition(":")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104  # not bound, asked
    import http.client  # noqa: PLC0415  # nobody else pays for it

    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", what)
        answer = connection.getresponse()
        for line in answer.read(_MAX_ANSWER).decode(errors="replace").splitlines():
            print(printable(line))
    except (OSError, http.client.HTTPException) as error:
        print(f"configstore-sidecar: nobody answers at {host}:{port}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
