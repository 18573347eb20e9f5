"""What the documents name is there."""

import re
from pathlib import Path

import pytest

from configstore import __version__
from tests.e2e.faults import FAULTS
from tests.mutants import HERE, MUTANTS
from tests.simulation.test_mutants import MUTANTS as SIMULATED

PROMISES = (HERE / "docs/promises.md").read_text()
BAD_DAYS = (HERE / "docs/etcd-bad-days.md").read_text()
SERVICES = (HERE / "docs/services.md").read_text()
RELEASES = (HERE / "docs/mailu-releases.md").read_text()
THREATS = (HERE / "docs/threat-model.md").read_text()
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)")
PAGES = [*HERE.glob("*.md"), HERE / "tests/README.md", *(HERE / "docs").rglob("*.md")]


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
    paths = list((HERE / "tests").rglob("test_*.py"))
    files = {path.name for path in paths}
    everything = "\n".join(path.read_text() for path in paths)
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


def anchors(text):
    """Return what a forge calls the headings of a page: small letters, no signs, a second one numbered."""
    found = {}
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.*)", without_code, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found[f"{name}-{found[name]}" if name in found else name] = 1
    return found.keys()


def dead_links(page):
    """Return the links of a page that lead to no file, or to no heading of one."""
    dead = []
    for path, anchor in LINK.findall(page.read_text()):
        target = (page.parent / path) if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(f"{path}#{anchor}" if anchor else path)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HERE)))
def test_what_a_page_links_to_is_there(page):
    assert not dead_links(page)


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# Two words\n\n```sh\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# `a` & b, c\n[1](other.md) [2](other.md#two-words) [3](#a--b-c) [4](https://etcd.io/x#y)\n"
        "[5](gone.md) [6](other.md#no-heading) ![7](gone.svg) [8](#gone)\n"
    )
    assert dead_links(page) == ["gone.md", "other.md#no-heading", "gone.svg", "#gone"]


def test_every_fault_has_its_row_by_the_words_of_status_and_a_test_that_makes_it():
    rows = [line for line in (HERE / "docs/troubleshooting.md").read_text().splitlines() if line.startswith("| ")]
    symptoms = [line.replace("`", "") for line in rows]
    tests = "".join(file.read_text() for file in (HERE / "tests").rglob("test_*.py"))
    assert len(FAULTS) >= 40
    for name, fault in FAULTS.items():
        assert any(fault.cause in row for row in symptoms), f"{name}: no row names {fault.cause!r}"
        assert f'"{name}"' in tests, f"{name}: no test makes it"


@pytest.mark.parametrize(
    ("file", "pattern"),
    {
        "pyproject.toml": r'^version = "(.*)"',
        "Dockerfile": r"^ARG VERSION=(.*)",
        "CHANGELOG.md": r"^## ([0-9.]+)",
        "docs/deploy/swarm/README.md": r"CONFIGSTORE_IMAGE=\S+/configstore:(\S+)",
        "docs/deploy/kubernetes/README.md": r"/configstore:([0-9.]+) ",
        "docs/deploy/kubernetes/chart/Chart.yaml": r"(?i)^(?:app)?version: (.*)",
        "docs/deploy/kubernetes/chart/values.yaml": r"^    tag: ([0-9.]+)$",
        "docs/deploy/kubernetes/example/kustomization.yaml": r"configstore\n +newTag: (.*)",
        "docs/deploy/kubernetes/store/kustomization.yaml": r"configstore\n +newTag: (.*)",
        "docs/deploy/kubernetes/restore/member.yaml": r"/configstore:(.*)",
        "docs/deploy/kubernetes/post-renderer/plugin.yaml": r"^version: (.*)",
    }.items(),
)
def test_every_file_that_names_the_version_names_this_one(file, pattern):
    found = re.findall(pattern, (HERE / file).read_text(), re.MULTILINE)
    assert (found[:1] if file == "CHANGELOG.md" else list(dict.fromkeys(found))) == [__version__]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_file_that_a_guide_to_the_code_names_is_there(page):
    named = set(re.findall(r"`((?:configstore|sidecar|tests|docs)/[\w./-]*)", (HERE / page).read_text()))
    assert len(named) > 20
    assert not sorted(name for name in named if not (HERE / name).exists())


def test_every_target_that_a_page_names_is_one_of_the_makefile():
    targets = set(re.findall(r"^([a-z][\w-]*):", (HERE / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text() for page in PAGES if page.name != "CHANGELOG.md")
    assert not set(re.findall(r"(?:`|^    )make ([a-z][\w-]*)", text, re.MULTILINE)) - targets
