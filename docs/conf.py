"""How Sphinx makes a site of these pages: `make docs`.

The pages are plain Markdown, and stay readable where they lie. What only the site needs is said here
(decisions/0021-docs-site.md).
"""

from pathlib import Path

from sphinx.application import Sphinx

from configstore import __version__

HERE = Path(__file__).parent

NAVIGATION = {
    "Start here": [
        "tutorial",
        "deploy/compose/README",
        "deploy/swarm/README",
        "deploy/kubernetes/README",
        "deploy/host/README",
        "deploy/image",
        "moving-in",
    ],
    "Operate": [
        "services",
        "certificates",
        "letsencrypt",
        "fetchmail",
        "leases",
        "sealing",
        "ui",
        "mailu-releases",
        "rights",
        "monitoring/README",
        "backup",
        "upgrading",
        "sizing",
        "scale",
    ],
    "Trouble": ["troubleshooting", "limits", "etcd-bad-days"],
    "Look up": ["cli", "settings", "reference/configstore", "reference/configstore-sidecar", "reference/*"],
    "How it works": [
        "semantics",
        "lifecycle",
        "architecture",
        "glossary",
        "store-layout",
        "peers",
        "threat-model",
        "promises",
        "decisions/README",
    ],
    "More": ["*", "*/*"],
}
"""Headings and their pages, in order; the last one has whatever page is named nowhere else."""

BELOW = {"decisions/README": ["decisions/[0-9]*"]}
"""Pages that stand below another one."""

project = "configstore"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["deploy/kubernetes/chart", "man"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "configstore"
html_static_path = ["site"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"source_edit_link": "", "footer_icons": []}


def setup(app: Sphinx) -> None:
    """Add the navigation to the pages that have it: a forge would show it as code."""
    app.connect("source-read", _add_navigation)


def _add_navigation(_app: Sphinx, page: str, source: list[str]) -> None:
    if page in BELOW:
        source[0] += _contents("", _pages(BELOW[page]))
    if page == "index":
        named = {"index"} | {each for patterns in BELOW.values() for each in _pages(patterns)}
        for title, patterns in NAVIGATION.items():
            listed = [each for each in _pages(patterns) if each not in named]
            named.update(listed)
            source[0] += _contents(title, listed)


def _pages(patterns: list[str]) -> list[str]:
    """Return the pages of patterns, each once, in order."""
    found = [path for pattern in patterns for path in sorted(HERE.glob(f"{pattern}.md"))]
    return list(dict.fromkeys(path.relative_to(HERE).with_suffix("").as_posix() for path in found))


def _contents(title: str, pages: list[str]) -> str:
    caption = f":caption: {title}\n" if title else ""
    lines = "\n".join(f"/{page}" for page in pages)
    return f"\n\n```{{toctree}}\n{caption}:hidden:\n:titlesonly:\n\n{lines}\n```" if pages else ""
