"""The reference pages and man pages are what the code says, and the generator reads a command line as it is."""

import argparse
import difflib
import itertools
import re
import shutil
import subprocess
import tomllib

import pytest

from tests.reference import pages, settings
from tests.reference.commandline import Command, read
from tests.reference.man import man_page
from tests.reference.markdown import program_page, usage

MAN_PAGES = sorted((pages.HERE / "docs/man").glob("*.1"))
SETTINGS = (pages.HERE / pages.SETTINGS).read_text()


def mandoc(*arguments, page):
    """Run mandoc over a page; without it nobody can tell whether a page can be read."""
    assert shutil.which("mandoc"), "no mandoc: tests/get-tools installs it (Debian: apt-get install mandoc)"
    return subprocess.run(
        ["mandoc", *arguments], input=page, capture_output=True, text=True, timeout=60, check=False
    )


def complaints(page):
    """Return what is wrong with a man page. It has no date, so that it changes with the code alone."""
    return [
        line for line in mandoc("-Tlint", "-Wwarning", page=page).stdout.splitlines() if "missing date" not in line
    ]


def example():
    """Return a parser with what a command line may have."""
    top = argparse.ArgumentParser(prog="tool", description="does things")
    top.add_argument("--store", metavar="URL", help="where")
    commands = top.add_subparsers(metavar="COMMAND")
    put = commands.add_parser(
        "put", help="write", description="write a file", epilog="so:\n  tool put a\n\nas all"
    )
    put.add_argument("--store", metavar="URL", help="where")
    put.add_argument("path", metavar="PATH")
    put.add_argument("file", metavar="FILE", nargs="?", help="- is stdin; default: %(default)s", default="-")
    one = put.add_mutually_exclusive_group()
    one.add_argument("-c", "--create", action="store_true", help="only a new one")
    one.add_argument("--if", type=int, metavar="N", help="100 %% sure | not")
    put.add_argument("--secret", help=argparse.SUPPRESS)
    run = commands.add_parser("run", help="run", epilog="as all")
    run.add_argument("--how", choices=["fast", "slow"], required=True)
    run.add_argument("command", metavar="-- COMMAND", nargs=argparse.REMAINDER)
    deeper = commands.add_parser("seal", help="keys", epilog="as all").add_subparsers(metavar="VERB")
    deeper.add_parser("rotate", help="a new key")
    commands.add_parser("hidden")
    return top


def test_what_is_committed_is_what_the_code_says():
    for path, text in pages.made().items():
        there = (pages.HERE / path).read_text()
        differs = "\n".join(itertools.islice(difflib.unified_diff(there.splitlines(), text.splitlines()), 40))
        assert not differs, f"{path}: `make reference` writes it anew\n{differs}"


def test_there_is_no_page_of_a_program_that_is_gone():
    there = {f"docs/man/{path.name}" for path in MAN_PAGES}
    there |= {f"docs/reference/{path.name}" for path in (pages.HERE / "docs/reference").iterdir()}
    assert there == {page for page in pages.made() if page.startswith(("docs/man/", "docs/reference/"))}


def test_every_setting_has_a_meaning():
    assert not settings.undescribed(SETTINGS), "write it into the last cell of the row in docs/settings.md"


def test_a_setting_that_the_page_lacks_gets_a_row_and_wants_a_meaning():
    without = re.sub(r"^\| `rescan` .*\n", "", SETTINGS, flags=re.MULTILINE)
    assert without != SETTINGS
    made = settings.page(without)
    assert settings.undescribed(made) == ["`rescan`"]
    assert re.search(r"^\| `rescan` \| duration \| `\w+` \| \|$", made, re.MULTILINE)


def test_a_setting_that_is_gone_loses_its_row():
    added = SETTINGS.replace("| `rescan`", "| `of_old` | duration | `1s` | what was |\n| `rescan`")
    assert added != SETTINGS
    assert settings.page(added) == settings.page(SETTINGS)


def test_a_default_that_changed_is_told_and_a_persons_words_stay():
    said = SETTINGS.replace("| the record's |", "| the record's own |", 1)
    changed = re.sub(r"^(\| `settle` \|.*?\|) `\w+` \|", r"\1 `90s` |", said, flags=re.MULTILINE)
    assert len({SETTINGS, said, changed}) == 3
    assert settings.page(changed) == settings.page(said)
    assert "| the record's own |" in settings.page(said)


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(ValueError, match="no table between"):
        settings.page(SETTINGS.replace("<!-- until here -->", ""))


def test_every_command_is_described_on_the_page_of_the_command():
    page = (pages.HERE / "docs/cli.md").read_text()
    missing = [
        command.name
        for _, program in pages.programs()
        for command in program.commands
        if not program.top.name.endswith("-client")
        and not re.search(rf"`{re.escape(command.name.split(' ', 1)[1])}[ `]", page)
    ]
    assert not missing


def test_a_command_line_is_read_as_it_is_typed():
    program = read(example())
    put, run, seal, rotate = program.commands
    assert [put.name, run.name, seal.name, rotate.name] == [
        "tool put",
        "tool run",
        "tool seal",
        "tool seal rotate",
    ]
    assert put.usage == ("[--create | --if N]", "PATH", "[FILE]")
    assert run.usage == ("--how {fast,slow}", "-- COMMAND …")
    assert seal.usage == ("VERB …",)
    assert [argument.written for argument in program.common] == ["--store URL"]
    assert {argument.written: argument.words for argument in put.arguments} == {
        "PATH": "",
        "[FILE]": "- is stdin; default: -",
        "-c, --create": "only a new one",
        "--if N": "100 % sure | not",
    }
    assert put.words == "write a file"


def test_a_page_shows_what_markdown_would_take_for_its_own():
    page = program_page(read(example()), before="Words.")
    assert r"| `--if N` | 100 % sure \| not |" in page
    assert "```text\nso:\n  tool put a\n```" in page
    assert page.count("As all.") == 1
    assert "secret" not in page


def test_a_long_usage_line_is_broken_between_its_arguments():
    command = Command(name="tool", usage=("[--one ONE]", "[--two TWO]", "PATH"), words="", arguments=(), notes=())
    assert usage(command, width=20) == "tool [--one ONE]\n    [--two TWO] PATH"


def test_a_man_page_shows_what_roff_would_take_for_its_own():
    parser = argparse.ArgumentParser(prog="tool", description=".SH is no heading here, nor is 'it' or \\fB")
    parser.add_subparsers().add_parser("one", help="x", description="x", epilog=".first\n'second\n  x")
    text = man_page(read(parser), version="1", about="a — b", exit_codes=[(0, "Done.")], see="man(1)")
    assert not complaints(text)
    shown = re.sub(r".\x08", "", mandoc("-Tutf8", page=text).stdout)
    for words in (".SH is no heading here, nor is 'it' or \\fB.", ".first\n", "'second\n", "tool - a — b"):
        assert words in shown


@pytest.mark.parametrize("page", MAN_PAGES, ids=lambda page: page.name)
def test_man_shows_a_page(page):
    text = page.read_text()
    assert not complaints(text)
    shown = re.sub(r".\x08", "", mandoc("-Tutf8", page=text).stdout)
    assert re.search(r"^NAME\n +configstore", shown, re.MULTILINE)
    assert re.search(r"^EXIT STATUS\n +0 +Done", shown, re.MULTILINE)


def test_what_is_no_roff_is_complained_of():
    assert complaints(".TH X 1 2026-01-01\n.SH NAME\nx \\- y\n.XX\n")


def test_the_wheel_has_every_man_page():
    declared = tomllib.loads((pages.HERE / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    assert sorted(pages.HERE.glob(declared["share/man/man1"][0])) == MAN_PAGES
    assert MAN_PAGES
