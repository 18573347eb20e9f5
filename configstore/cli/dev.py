"""`dev`: a real etcd on loopback, for trying configstore out."""

import argparse
import pathlib
import subprocess
import sys

from configstore.cli.arguments import Commands, add_command, option, port
from configstore.cli.render import write_json, write_text
from configstore.cli.session import say
from configstore.cli.stopping import Stopping
from configstore.errors import UnreachableError


def add(commands: Commands) -> None:
    """Add the parser."""
    text = "start an etcd on this host for trying configstore out, until stopped"
    parser = add_command(commands, "dev", _dev, text, connects=False)
    option(parser, "--data DIR", "keep data and log in this folder (default: nothing is kept)")
    option(parser, "--port N", "client port (default: a free one)", type=port(1))


def _dev(args: argparse.Namespace) -> int:
    from configstore.embedded import EmbeddedEtcd, free_ports  # noqa: PLC0415 - only this command needs it

    folder = pathlib.Path(args.data).absolute() if args.data else None
    ports = (args.port, *free_ports(2)) if args.port else None
    with Stopping() as stopping, EmbeddedEtcd(folder=folder, ports=ports) as etcd:
        names = ("CONFIGSTORE_ENDPOINTS", "ETCDCTL_ENDPOINTS")
        variables = (*(f"{name}={etcd.endpoint}" for name in names), "ETCDCTL_API=3")
        if args.json:
            write_json({"endpoint": etcd.endpoint, "variables": dict(each.split("=", 1) for each in variables)})
        else:
            write_text("\n".join(f"export {variable}" for variable in variables))
        sys.stdout.flush()
        say(f"etcd runs at {etcd.endpoint} until this command is stopped; for trying, never for production")
        process = etcd.process
        stopped = stopping.run(lambda: _wait(process), etcd.stop)
        if not stopped:
            raise UnreachableError(f"the embedded etcd ended by itself; its log: {etcd.log}")
    return 0


def _wait(process: subprocess.Popen[bytes]) -> None:
    process.wait()
