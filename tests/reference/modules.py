"""The list of modules, by the first sentences of their docstrings."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.reference.markdown import MADE, plain, table

PAGE = """\
# Modules

What each module is, in its own first words. [How it is built](../architecture.md) says how they work together.

{packages}
"""
PACKAGES = ("configstore", "sidecar")


def page(project: Path) -> str:
    """Return the page of the modules below a folder."""
    sections = [text for package in PACKAGES for text in _package(project / package, package)]
    return f"{MADE}\n\n{PAGE.format(packages=(chr(10) * 2).join(sections))}"


def words(file: Path) -> str:
    """Return the first paragraph of a module's docstring, in one line; "" where there is none."""
    said = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(said.partition("\n\n")[0].split())


def _package(folder: Path, name: str) -> Iterator[str]:
    """Yield the sections of a package and of those below it."""
    files = sorted(file for file in folder.glob("*.py") if not file.stem.startswith("__"))
    yield f"## `{name}`\n\n{plain(words(folder / '__init__.py'))}"
    yield table(["module", "what it is"], [[f"`{file.stem}`", plain(words(file))] for file in files])
    for below in sorted(each.parent for each in folder.glob("*/__init__.py")):
        yield from _package(below, f"{name}.{below.name}")
