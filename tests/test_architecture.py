"""docs/architecture.md is true of the code: its picture has the threads that there are."""

import ast
import xml.etree.ElementTree as ET

import pytest

from tests.mutants import HERE
from tests.reference.modules import PACKAGES, words

PICTURE = HERE / "docs/pictures/threads.svg"
OF_A_SIDECAR = [HERE / "sidecar", HERE / "configstore/store"]
"""What runs in a sidecar; the command has threads of its own."""

FOLLOWERS = {"Follower", "ItemFollower"}


def drawn():
    """Return the names of the threads in the picture."""
    texts = [each for each in ET.parse(PICTURE).iter() if each.get("class") == "thread"]
    return [name for each in texts for name in each.text.split()]


def named(call):
    """Return how a call names the thread that it makes, what is only known at run time as …; None for no name."""
    name = next((each.value for each in call.keywords if each.arg == "name"), None)
    if name is None and ast.unparse(call.func) in FOLLOWERS:
        name = call.args[2]
    if isinstance(name, ast.Constant):
        return name.value
    if isinstance(name, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in name.values)
    return ast.unparse(name) if name else None


def written():
    """Return the names of the threads that the code makes, by the place of the call."""
    found = {}
    for file in sorted(file for folder in OF_A_SIDECAR for file in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"threading.Thread", "Server", *FOLLOWERS}:
                found[f"{file.relative_to(HERE)}:{node.lineno}"] = named(node)
    return found


def test_the_picture_has_the_threads_that_the_code_makes():
    """Whoever makes a server or a follower gives its threads their name."""
    names = written()
    assert not [place for place, name in names.items() if name is None], "each thread has a name"
    made = set(names.values()) - {"name", "self._name"}
    assert sorted(drawn()) == sorted(made | {"MainThread"})


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_in_one_sentence_what_it_is(package):
    """The list of modules is made from these."""
    files = sorted((HERE / package).rglob("*.py"))
    assert not [str(file.relative_to(HERE)) for file in files if not words(file).endswith((".", ":"))]


def test_the_page_names_every_package():
    page = (HERE / "docs/architecture.md").read_text()
    folders = [file.parent for name in PACKAGES for file in (HERE / name).glob("*/__init__.py")]
    assert len(folders) > 15
    assert not [str(folder) for folder in folders if f"`{folder.relative_to(HERE)}/`" not in page]
