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
from configstore.model.endpoint import DEFAULT_ENDPOINT
from configstore.model.path import printable, printable_json, shown
from configstore.process.secrecy import keep_memory_private
from configstore.settings import STORE_OPTIONS, as_option
from sidecar.config.settings import DEFAULT_LISTEN, INIT_TIMEOUT, Config, load_config
from sidecar.planner.plan import Plan

log = logging.getLogger(__name__)

_COMMANDS = {
    "run": "mirror until SIGTERM, then send what is not sent yet and exit",
    "init": "fill the directories once; exit code 0 only when every required mapping is complete",
    "plan": "print what a cycle would do now, without doing it",
    "health": "ask the sidecar that runs on this host whether it is ready (for HEALTHCHECK)",
}

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

_STORE = {as_option(key): words for key, words in STORE_OPTIONS.items() if key != "timeout"}
"""The metavar and the help of the options about etcd: every command takes them, the main help describes them."""

_OPTIONS = {
    "--preset": ("NAME[,NAME]", "built-in mappings, such as mailu/front"),
    "--seal-keyring": ("FILE", "keyring that seals and opens what is mirrored (`configstore seal keygen`)"),
    "--timeout": ("DURATION", f"how long init and plan wait for the store (default: {INIT_TIMEOUT:.0f}s)"),
    "--replica": ("ID", "this replica's id (default: host name and something random)"),
    "--health-listen": (
        "HOST:PORT",
        f"where /livez, /readyz and /metrics are (default: {DEFAULT_LISTEN}); or none",
    ),
    "--log-level": ("LEVEL", "debug, info (default), warning or error"),
    "--log-format": ("FORM", "text (default) or json"),
}


def parser() -> Parser:
    """Return the command line's parser."""
    store = "\n".join(f"  {f'{option} {metavar}':<26}{text}" for option, (metavar, text) in _STORE.items())
    top = Parser(
        prog="configstore-sidecar",
        description="Mirror subtrees of the store and local directories, both ways.",
        epilog="options of every command but completion; each is also a variable, such as CONFIGSTORE_ENDPOINTS:\n"
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
            epilog=f"{_in_use(name)}\n\nThe options about etcd (--endpoints, --cacert, …):"
            " `configstore-sidecar --help` lists them.",
        )
        command.add_argument("--config", metavar="FILE", help="settings file, TOML")
        for option, (metavar, text) in (_OPTIONS | _STORE).items():
            command.add_argument(option, metavar=metavar, help=argparse.SUPPRESS if option in _STORE else text)
        if name == "plan":
            command.add_argument("--json", action="store_true", help="print the plan as JSON")
        if name == "health":
            one = command.add_mutually_exclusive_group()
            one.add_argument("--service", metavar="NAME", help="ask about this service alone, such as front")
            one.add_argument(
                "--live", action="store_true", help="ask only whether the engines make progress (/livez)"
            )
    text = "print a completion script for a shell"
    completion = commands.add_parser(
        "completion", help=text, description=f"{text[:1].upper()}{text[1:]}.", epilog=_in_use("completion")
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
        from sidecar.reporting import logs  # noqa: PLC0415 - only an error needs it

        default = isinstance(error, UnreachableError) and config and config.store.endpoints == (DEFAULT_ENDPOINT,)
        hint = f"; {DEFAULT_ENDPOINT} is the default: set CONFIGSTORE_ENDPOINTS if etcd is elsewhere"
        logs.say(f"configstore-sidecar: {error}{hint if default else ''}")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _dispatch(command: str, config: Config, *, as_json: bool) -> int:
    # `health` and `completion` do without the store, and so without its client.
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
        print(printable_json(msgspec.json.encode({name: _fields(plan) for name, plan in plans.items()}).decode()))
    else:
        for line in _plan_lines(plans):
            print(printable(line))
    return 0


def _fields(plan: Plan) -> dict[str, object]:
    """Return a plan's fields, keyed as in JSON; those of its problems with what is false or empty, too."""
    problems = {path: msgspec.structs.asdict(problem) for path, problem in plan.problems.items()}
    return {**msgspec.structs.asdict(plan), "problems": problems}


def _plan_lines(plans: dict[str, Plan]) -> Iterator[str]:
    for name, plan in plans.items():
        if plan.waiting_for:
            yield f"{name}: none of this now: it waits: {plan.waiting_for}"
        if plan.halted:
            yield f"{name}: none of this: it would halt: {plan.halted}"
        if plan.empty and not plan.problems and not plan.waiting_for:
            yield f"{name}: nothing to do"
        for push in plan.push:
            yield f"{name}: push {push.entry.kind} {shown(push.path)}"
        for pull in plan.pull:
            kept = " (the local one is kept below conflicts/)" if pull.keep else ""
            yield f"{name}: pull {pull.remote.entry.kind} {shown(pull.path)}{kept}"
        for problem in plan.problems.values():
            yield f"{name}: problem {problem}"


def _readiness(service: str | None) -> str:
    """Return the path of the readiness endpoint, for one service if named. Raises UsageError."""
    if service is None:
        return "/readyz"
    from configstore.presets.services import checked_name  # noqa: PLC0415 - only --service needs it

    return f"/readyz?service={checked_name(service)}"


def _health(listen: str, what: str) -> int:
    """Return 0 when the answer is yes, 1 when it is no or there is none, 2 when no endpoint is set."""
    if not listen:
        print("configstore-sidecar: [health] listen is none, so there is no endpoint to ask", file=sys.stderr)
        return 2
    host, _, port = listen.rpartition(":")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104 - asked, not bound
    import http.client  # noqa: PLC0415 - only `health` needs it

    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", what)
        answer = connection.getresponse()
        for line in answer.read(_MAX_ANSWER).decode(errors="replace").splitlines():
            print(printable(line))
    except (OSError, http.client.HTTPException) as error:
        print(f"configstore-sidecar: no answer from {host}:{port}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
