"""`presets`: lists and explains the built-in mappings."""

import argparse
import json

from configstore import presets
from configstore.cli.arguments import Commands, add_command
from configstore.cli.render import table, write_json, write_line, write_table
from configstore.mapping_settings import MAPPING_PARSERS

_EXPLAINED = MAPPING_PARSERS.keys() - {"name", "path"}


def add(commands: Commands) -> None:
    """Add the parser."""
    text = "list the presets with their mappings, or explain those of one"
    parser = add_command(commands, "presets", _presets, text, connects=False)
    parser.add_argument("name", metavar="NAME", nargs="?", help="preset to explain, such as mailu/front")


def _presets(args: argparse.Namespace) -> int:
    if args.name:
        found = presets.load(args.name)
        if args.json:
            write_json([mapping.written for mapping in found])
        else:
            _explain(found)
        return 0
    rows = {name: [mapping.name for mapping in presets.load(name)] for name in presets.names()}
    if args.json:
        write_json(rows)
    else:
        shown = [(name, ", ".join(mappings)) for name, mappings in rows.items() if "/" in name]
        table(("PRESET", "MAPPINGS"), shown)
    return 0


def _explain(found: tuple[presets.PresetMapping, ...]) -> None:
    for number, mapping in enumerate(found):
        if number:
            write_line("")
        write_line(f"{mapping.name}: {mapping.about}")
        if mapping.warning:
            write_line(f"  NOTE: {mapping.warning}")
        rows = [("in the container", mapping.path), ("on a single host", mapping.host or "nowhere")]
        rows += [(key, _shown(value)) for key, value in mapping.written.items() if key in _EXPLAINED]
        if mapping.advice:
            rows.append(("picks up a change", mapping.advice))
        write_table([(f"  {key}", value) for key, value in rows])


def _shown(value: object) -> str:
    """Return a value as it is written in a settings file, texts alone without quotes."""
    if isinstance(value, list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else str(value)
