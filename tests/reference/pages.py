"""Every page that is made from the code, by its path in the project."""

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from configstore import __version__, cli, client
from configstore.overview.json_output import Overview
from configstore.settings import DEFAULT_SOCKET
from sidecar import __main__ as sidecar
from tests.reference import decisions, exit_codes, metrics, modules, settings
from tests.reference.commandline import Program, read
from tests.reference.man import man_page
from tests.reference.markdown import program_page

HERE = Path(__file__).parents[2]
SETTINGS = "docs/settings.md"
PROGRAMS = {
    "configstore": "look at and change the files that configstore keeps in etcd",
    "configstore-sidecar": "mirror files between local directories and etcd",
    "configstore-client": "hold a lease, or wait for changes, through the sidecar beside",
}
"""What each is, for the list that `apropos` shows."""

BEFORE = {
    "configstore": "Every command with its arguments. What they do in more words, and when to use which: "
    "[the command](../cli.md). The options of every command are variables, too, such as `CONFIGSTORE_ENDPOINTS`: "
    "[settings](../settings.md).",
    "configstore-sidecar": "The daemon. What each command promises: "
    "[the command](../cli.md#the-command-configstore-sidecar). All that is no option is a "
    "[setting](../settings.md).",
    "configstore-client": "One file for Python 3.8 and newer that a sidecar puts beside its control socket, for "
    "the application's container: [leases](../leases.md).",
}
SEE = (*PROGRAMS, "etcdctl")


def made() -> dict[str, str]:
    """Return what each page shall be."""
    return {
        **command_pages(),
        "docs/reference/metrics.md": metrics.page(),
        "docs/reference/exit-codes.md": exit_codes.page(),
        "docs/reference/modules.md": modules.page(HERE),
        "docs/reference/status.schema.json": _schema(),
        "docs/decisions/README.md": decisions.page(HERE / "docs/decisions"),
        SETTINGS: settings.page((HERE / SETTINGS).read_text()),
    }


def _schema() -> str:
    """Return what `configstore status --json` prints, as a JSON Schema (draft 2020-12)."""
    schema = _in_order(msgspec.json.schema(Overview))
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def _in_order(schema: Any) -> Any:
    """Return a schema in one form: what it is made by keeps neither an order nor the indent of a docstring."""
    if isinstance(schema, list):
        return [_in_order(each) for each in schema]
    if isinstance(schema, str):
        return inspect.cleandoc(schema)
    if not isinstance(schema, dict):
        return schema
    inside = {name: _in_order(each) for name, each in schema.items()}
    if "anyOf" in inside:
        inside["anyOf"] = sorted(inside["anyOf"], key=msgspec.json.encode)
    if "$defs" in inside:  # in the order in which they were met
        inside["$defs"] = dict(sorted(inside["$defs"].items()))
    return inside


def command_pages() -> dict[str, str]:
    """Return the pages of the programs, and their man pages."""
    found = {}
    codes = [(code, words[0]) for code, words in exit_codes.codes().items()]
    for name, program in programs():
        found[f"docs/reference/{name}.md"] = program_page(program, before=BEFORE[name])
        see = ", ".join(f"{other}(1)" for other in SEE if other != name)
        found[f"docs/man/{name}.1"] = man_page(
            program, version=__version__, about=PROGRAMS[name], exit_codes=codes, see=see
        )
    return found


def programs() -> Iterator[tuple[str, Program]]:
    """Yield the programs, the client with the default socket that it has in a container."""
    with mock.patch.dict(os.environ, {"CONFIGSTORE_CONTROL_SOCKET": DEFAULT_SOCKET}):
        beside = client.parser()
    for parser in (cli.build_parser(), sidecar.parser(), beside):
        yield parser.prog, read(parser)
