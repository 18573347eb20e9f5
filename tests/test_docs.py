"""What the documents name is there."""

import re
from pathlib import Path

import pytest

from tests.mutants import HERE, MUTANTS
from tests.simulation.test_mutants import MUTANTS as SIMULATED

PROMISES = (HERE / "docs/promises.md").read_text()
BAD_DAYS = (HERE / "docs/etcd-bad-days.md").read_text()
SERVICES = (HERE / "docs/services.md").read_text()
RELEASES = (HERE / "docs/mailu-releases.md").read_text()
THREATS = (HERE / "docs/threat-model.md").read_text()
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def test_the_promises_name_every_break_that_is_made():
    breaks = " ".join(row.split("|")[4] for row in PROMISES.splitlines() if re.match(r"\| [0-9]+\. ", row))
    assert set(re.findall(r"\*(\w+)\*", breaks)) == SIMULATED.keys()
    assert not [name for name in MUTANTS if name not in breaks]


@pytest.mark.parametrize(
    "text",
    [PROMISES, BAD_DAYS, SERVICES, RELEASES, THREATS],
    ids=["promises", "etcd-bad-days", "services", "mailu-releases", "threat-model"],
)
def test_every_test_that_is_named_is_there(text):
    files = {path.name: path for path in (HERE / "tests").rglob("test_*.py")}
    everything = "\n".join(path.read_text() for path in files.values())
    named = set(re.findall(r"test_\w+(?:\.py)?", text))
    missing = [
        name for name in named if not (name in files if name.endswith(".py") else f"def {name}" in everything)
    ]
    assert not missing


def test_every_row_of_the_design_document_has_a_verdict_and_what_shows_it():
    rows = [
        row.strip("|").split("|")
        for row in SERVICES.partition("\n## ")[0].splitlines()
        if re.match(r"\| \w+[ ,]", row)
    ]
    rows = [[cell.strip() for cell in row] for row in rows if not row[0].startswith(" service,")]
    assert len(rows) > 24
    assert not [row for row in rows if row[2] not in {"done", "other", "not ours"} or not row[4]]


@pytest.mark.parametrize("name", MUTANTS)
def test_what_a_mutant_takes_out_is_there_once(name):
    assert Path(HERE, MUTANTS[name].file).read_text().count(MUTANTS[name].before) == 1
    tests = [word for word in MUTANTS[name].tests.split() if word.startswith("tests/")]
    assert tests
    assert all(Path(HERE, each).exists() for each in tests)


@pytest.mark.parametrize("page", [HERE / "README.md", *(HERE / "docs").rglob("*.md")], ids=lambda page: page.stem)
def test_what_a_page_links_to_is_there(page):
    assert not [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
