"""The site over docs/ is whole: every page is in it, every link leads somewhere, and it needs no other host."""

import importlib.util
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("site")  # which one worker builds, once

HERE = Path(__file__).parents[1]
FLAGS = re.search(r"-m sphinx (.*) -d build/doctrees docs build/docs", (HERE / "Makefile").read_text())
FOREIGN = re.compile(r"(?:https?:)?//[\w.-]+", re.ASCII)
LOADED = {"src", "srcset", "poster", "data", "action", "background"}
"""Attributes of which a browser fetches the value, whatever element has them; of a link see `Loads`."""

NAMESPACES = ("http://www.w3.org/",)
"""What looks like an address and is a name."""


class Loads(HTMLParser):
    """Collects what a browser fetches of other hosts to show a page, which what a reader may click on is not."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self._code = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._code = tag if tag in {"script", "style"} else ""
        for name, value in attrs:
            fetched = name in LOADED or (name == "href" and tag in {"link", "use", "image", "base"})
            if fetched and FOREIGN.match((value or "").strip()):
                self.found.append(value)
            elif name == "style":
                self.found += foreign_in_css(value or "")

    def handle_data(self, data):
        if self._code == "style":
            self.found += foreign_in_css(data)
        elif self._code == "script":
            self.found += foreign_in_script(data)


def foreign_in_css(text):
    """Return addresses of other hosts that a style sheet loads."""
    return re.findall(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""", text)


def foreign_in_script(text):
    """Return addresses of other hosts in a script, its comments left out."""
    code = re.sub(r"/\*.*?\*/|(?m:^\s*//.*$)", "", text, flags=re.DOTALL)
    return [url for url in re.findall(r"""https?://[^\s"'`<>)]+""", code) if not url.startswith(NAMESPACES)]


def loads(folder):
    """Return what is fetched of other hosts by the pages in a folder, as `file: address`."""
    readers = {".html": lambda text: Loads(text).found, ".css": foreign_in_css, ".js": foreign_in_script,
               ".svg": lambda text: Loads(text).found}  # fmt: skip
    return [
        f"{path.relative_to(folder)}: {address}"
        for path in sorted(folder.rglob("*"))
        if path.suffix in readers
        for address in readers[path.suffix](path.read_text())
    ]


def build(pages, folder):
    """Build a site as `make docs` does; return its exit code and what it said."""
    assert importlib.util.find_spec("sphinx"), "no Sphinx: `make docs` and `make test` install it"
    assert FLAGS, "Makefile: no call of sphinx that is known here"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *FLAGS[1].split(), "-d", folder / "doctrees", pages, folder / "html"],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=HERE,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Return the folder of the site, built anew."""
    folder = tmp_path_factory.mktemp("site")
    code, said = build(HERE / "docs", folder)
    assert code == 0, said
    return folder / "html"


def test_every_page_is_in_the_site_and_in_its_navigation(site):
    pages = [path.relative_to(HERE / "docs").with_suffix(".html") for path in (HERE / "docs").rglob("*.md")]
    assert not [str(page) for page in pages if not (site / page).exists()]
    front = (site / "index.html").read_text()
    assert not [str(page) for page in pages if f'href="{page}"' not in front and page.name != "index.html"]


def test_nothing_is_asked_of_another_host(site):
    assert not loads(site)


def test_the_site_can_be_searched(site):
    index = (site / "searchindex.js").read_text()
    assert "max_delet" in index
    assert "troubleshooting" in index


def test_every_picture_is_shown(site):
    shown = {path.name for path in (site / "_images").iterdir()}
    assert {path.name for path in (HERE / "docs/pictures").iterdir()} <= shown


def test_what_leads_nowhere_ends_the_build(tmp_path):
    """One page for each fault, and each fault named."""
    faults = {
        "page": "[x](gone.md)",
        "anchor": "[x](index.md#gone)",
        "own-anchor": "[x](#gone)",
        "picture": "![x](gone.svg)",
        "file": "[x](gone.yml)",
        "heading": "### too deep at once",
    }
    pages = tmp_path / "docs"
    pages.mkdir()
    shutil.copy(HERE / "docs/conf.py", pages)
    (pages / "index.md").write_text("# Front\n")
    for name, text in faults.items():
        (pages / f"{name}.md").write_text(f"# {name}\n\n{text}\n")
    code, said = build(pages, tmp_path)
    assert code != 0
    assert {name for name in faults if f"{name}.md:" in said} == faults.keys(), said


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>'),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/css">'),
        ("a.html", '<p><img src="http://example.org/x.png"></p>'),
        ("a.html", "<style>@import 'https://fonts.example/css';</style>"),
        ("a.html", '<p style="background: url(https://example.org/x.png)"></p>'),
        ("a.html", '<script>fetch("https://example.org/count")</script>'),
        ("a.css", "@font-face { src: url(https://fonts.example/x.woff2) }"),
        ("a.js", 'import("https://cdn.example/x.js")'),
        ("a.svg", '<svg><image href="https://example.org/x.png"/></svg>'),
    ],
)
def test_what_is_fetched_of_another_host_is_found(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert len(loads(tmp_path)) == 1


def test_what_a_reader_may_click_on_is_fetched_of_nobody(tmp_path):
    (tmp_path / "a.html").write_text('<a href="https://etcd.io">etcd</a> <code>https://etcd:2379</code>')
    assert not loads(tmp_path)
