"""What the glossary names is there, and no two classes of the product share a name."""

import ast
import re
from collections import defaultdict
from importlib import import_module
from operator import attrgetter

from tests.mutants import HERE

ROW = re.compile(r"^\| \*\*.*", re.MULTILINE)
SAME_NAME: dict[str, str] = {}
"""Names that two classes may share, each with the reason."""


def named():
    """Return what the third column of the glossary's tables names: modules, and classes as `module:class`."""
    rows = [row.split(" | ") for row in ROW.findall((HERE / "docs/glossary.md").read_text())]
    return [row[2].strip("`") for row in rows]


def test_the_glossary_names_modules_and_classes_that_are_there():
    found = named()
    assert len(found) > 40
    for each in found:
        module, _, name = each.partition(":")
        there = import_module(module)
        if name:
            attrgetter(name)(there)


def test_no_two_classes_of_the_product_share_a_name():
    """A name says which class it is; a leading underscore makes no other name of it."""
    homes = defaultdict(list)
    for package in ("configstore", "sidecar"):
        for file in (HERE / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    homes[node.name.strip("_")].append(str(file.relative_to(HERE)))
    twice = {name: files for name, files in homes.items() if len(files) > 1}
    assert twice.keys() == SAME_NAME.keys(), twice
