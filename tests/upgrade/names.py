"""All that an operator may have written down: settings, variables, presets, commands. Run by either version."""

import argparse
import json
from collections.abc import Iterator

from configstore import client, presets
from configstore.cli import build_parser
from configstore.settings import STORE_PARSERS
from sidecar.__main__ import parser as sidecar_parser

try:
    from configstore.mapping_settings import MAPPING_PARSERS
    from sidecar.config.mappings import PRESET
    from sidecar.config.settings import FILE_KEYS, SETTING_VARIABLES

    SETTING_VARIABLES = {PRESET, *SETTING_VARIABLES}
except ImportError:  # 0.1.0
    from sidecar.fields import MAPPING_PARSERS

    from sidecar.config import _SETTINGS as FILE_KEYS
    from sidecar.config import SIDECAR_VARIABLES as SETTING_VARIABLES


def typed(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield each command below a parser, and each with each of its options."""
    yield parser.prog
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from typed(each)
        yield from (f"{parser.prog} {option}" for option in action.option_strings)


def names() -> set[str]:
    """Return every name of this version."""
    found = {f"variable {name}" for name in SETTING_VARIABLES}
    found |= {f"variable CONFIGSTORE_{key.upper()}" for key in STORE_PARSERS}
    found |= {f"setting [store] {key}" for key in STORE_PARSERS}
    found |= {f"setting [{section}] {key}" for section, key in FILE_KEYS}
    found |= {f"setting [[mapping]] {key}" for key in MAPPING_PARSERS}
    for preset in presets.names():
        found |= {f"preset {preset}: {mapping.name}, {mapping.store}" for mapping in presets.load(preset)}
    for parser in (build_parser(), sidecar_parser(), client.parser()):
        found |= set(typed(parser))
    return found


if __name__ == "__main__":
    print(json.dumps(sorted(names())))
