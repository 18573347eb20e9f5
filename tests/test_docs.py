"""What the documents name is there."""

import re
from pathlib import Path

import pytest

from tests.mutants import HERE, MUTANTS
from tests.simulation.test_mutants import MUTANTS as SIMULATED

PROMISES = (HERE / "docs/promises.md").read_text()
BAD_DAYS = (HERE / "docs/etcd-bad-days.md").read_text()
SERVICES = (HERE / "docs/services.md").read_text()
THREATS = (HERE / "docs/threat-model.md").read_text()
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def test_the_promises_name_every_break_that_is_made():
    breaks = " ".join(row.split("|")[4] for row in PROMISES.splitlines() if re.match(r"\| [0-9]+\. ", row))
    assert set(re.findall(r"\*(\w+)\*", breaks)) == SIMULATED.keys()
    assert not [name for name in MUTANTS if name not in breaks]


@pytest.mark.parametrize(
    "text",
    [PROMISES, BAD_DAYS, SERVICES, THREATS],
    ids=["promises", "etcd-bad-days", "services", "threat-model"],
)
def test_every_test_that_is_named_is_there(text):
    files = {path.name: path for path in (HERE / "tests").rglob("test_*.py")}
    everything = "\n".join(path.read_text() for path in files.values())
    named = set(re.findall(r"test_\w+(?:\.py)?", text))
    missing = [
        name for name in named if not (name in files if name.endswith(".py") else f"def {name}" in everything)
    ]
    assert not missing


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_takes_out_is_there_once(name):
    assert Path(HERE, MUTANTS[name].file).read_text().count(MUTANTS[name].before) == 1
    tests = [word for word in MUTANTS[name].tests.split() if word.startswith("tests/")]
    assert tests
    assert all(Path(HERE, each).exists() for each in tests)


@pytest.mark.parametrize("page", [HERE / "README.md", *(HERE / "docs").rglob("*.md")], ids=lambda page: page.stem)
def test_what_a_page_links_to_is_there(page):
    assert not [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
