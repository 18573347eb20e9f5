"""Tests are found where their module's name leads, and use public names."""

import ast
import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parents[2]
ROW = re.compile(r"^\| `((?:configstore|sidecar)[\w/]*)` \| ((?:`\w+` ?)+) \| (.*) \|$", re.MULTILINE)
ROWS = ROW.findall((HERE / "tests/README.md").read_text())

INSIDE = {
    "attacks/test_compromised_service.py": "speaks to etcd over the service's own channel, beside its client",
    "cli/test_import_export.py": "a mode is refused that no file system here refuses to root",
    "monitoring/test_rules.py": "argparse tells its commands no other way",
    "reference/commandline.py": "argparse tells its arguments no other way",
    "sidecar/local/test_scan.py": "something happens between two looks of one scan",
    "sidecar/local/test_sets_on_disk.py": "the thread that reads events gets no turn any more",
    "sidecar/local/test_watch.py": "no event is read for a while; watchdog's snapshots",
    "sidecar/presence/test_presence.py": "that nobody was woken",
    "sidecar/remote/test_lineage.py": "a mapping gets a lease in the middle",
    "sidecar/remote/test_watch.py": "a feed has begun to follow",
    "sidecar/reporting/test_gauges.py": "that nobody was woken; and one mapping is refused",
    "simulation/test_mutants.py": "takes out what is inside",
    "store/etcd/test_client.py": "a channel is closed under a watch",
    "store/etcd/test_contact.py": "for how long a watch would pause",
    "store/etcd/test_shared.py": "that a queue is full",
    "upgrade/names.py": "argparse tells its arguments no other way",
}
"""Files that look inside of what they test, and why."""


def module_home(module):
    """Return where a module's tests are looked for first."""
    package, *folders = module.relative_to(HERE).parent.parts
    name = f"test_{module.stem.strip('_')}.py"
    return HERE.joinpath("tests", *(["sidecar"] if package == "sidecar" else []), *folders, name)


def test_each_module_has_tests_of_its_name_or_a_row_that_says_where_they_are():
    modules = [each for package in ("configstore", "sidecar") for each in (HERE / package).rglob("*.py")]
    homeless = {
        f"{each.relative_to(HERE).parent}/{each.stem}"
        for each in modules
        if each.stem != "__init__" and not module_home(each).exists()
    }
    listed = Counter(f"{folder}/{name}" for folder, names, _ in ROWS for name in re.findall(r"`(\w+)`", names))
    assert not homeless - listed.keys(), "name them in the table of tests/README.md, or give them a file"
    assert not listed.keys() - homeless, "they have a file of their own, or are not there any more"
    assert set(listed.values()) == {1}
    named = [name for _, _, names in ROWS for name in re.findall(r"`([^`]+)`", names)]
    assert not [name for name in named if not (HERE / "tests" / name).exists()]


def looks_inside(file):
    """Tell whether a file uses an attribute that begins with an underscore, and so belongs to its class alone."""
    used = [each for each in ast.walk(ast.parse(file.read_text())) if isinstance(each, ast.Attribute)]
    private = [each for each in used if re.match("_[a-z]", each.attr)]
    return any(ast.unparse(each.value) not in {"self", "cls", "os", "super()"} for each in private)


def test_tests_use_public_names_or_say_why_not():
    files = (HERE / "tests").rglob("*.py")
    assert {str(each.relative_to(HERE / "tests")) for each in files if looks_inside(each)} == INSIDE.keys()
