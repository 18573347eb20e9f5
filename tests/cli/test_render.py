"""Tables and moments as they look on a terminal and in a pipe."""

import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from configstore.cli.render import Style, table_lines, when, write_line

NOW = datetime(2026, 11, 29, 2, 33, 12, tzinfo=UTC)
PATH = "certs/a-long-name-of-a-host.example.com/and-one-more-folder/certificate.pem"
HEADERS = ("KIND", "SIZE", "CHANGED", "PATH")
ROWS = [
    ("file", "1704", when("2026-11-29T02:30:12Z", NOW), PATH),
    ("dir", "-", when("2026-11-28T02:30:12Z", NOW), ("certs", Style.DIM)),
]


def drawn(rows=ROWS, width=None, styled=False):
    return list(table_lines(HEADERS, rows, width=width, styled=styled))


def test_a_line_has_its_control_characters_escaped_but_for_tabs(capsysbinary):
    write_line("a\tb\x1b[31m\u202e")
    assert capsysbinary.readouterr().out == b"a\tb\\x1b[31m\\u202e\n"


def test_a_pipe_gets_each_row_as_one_line_under_the_headers():
    lines = drawn()
    assert lines[0].split() == list(HEADERS)
    assert len(lines) == 3
    assert lines[1].endswith(PATH)
    assert lines[0].index("PATH") == lines[1].index(PATH) == lines[2].index("certs")


@pytest.mark.parametrize("width", [80, 60, 50])
def test_a_terminal_gets_no_line_wider_than_itself_and_every_word(width):
    lines = drawn(width=width)
    assert max(map(len, lines)) <= width
    last = "".join(line[lines[0].index("PATH") :] for line in lines[1:])
    assert PATH in last.replace("certs" + " " * 9, "")
    assert any("2026-11-29 02:30:12Z" in line for line in lines)
    assert any("(3 min ago)" in line for line in lines)


def test_a_name_that_does_not_fit_beside_the_rest_has_a_line_of_its_own_and_stays_whole():
    lines = list(table_lines(HEADERS, ROWS, width=80, styled=False, apart=True))
    assert [line.strip() for line in lines] == [
        "KIND  SIZE  CHANGED",
        "PATH",
        "file  1704  2026-11-29 02:30:12Z (3 min ago)",
        PATH,
        "dir      -  2026-11-28 02:30:12Z (1 d ago)",
        "certs",
    ]
    assert lines[3].startswith("    certs")
    assert (
        max(map(len, table_lines(HEADERS, ROWS, width=40, styled=True, apart=True)))
        <= 40 + len("\x1b[1m\x1b[0m") * 4
    )


def test_where_a_table_fits_nothing_is_folded():
    assert drawn(width=200) == drawn()


def test_a_strangers_words_are_escaped_in_every_cell():
    (line,) = table_lines((), [("\x1b[31mred\nline", ("\x07", Style.BAD))], width=None, styled=False)
    assert line == "\\x1b[31mred\\nline  \\x07"


def test_wide_characters_keep_the_columns_aligned():
    rows = [("漢字", "x"), ("abcd", "y")]
    assert list(table_lines(("NAME", "LAST"), rows, width=None, styled=False))[1:] == ["漢字  x", "abcd  y"]


def test_only_styles_are_marked_and_the_words_stay_the_same():
    marked = drawn(styled=True)
    assert "\x1b[2mcerts\x1b[0m" in marked[2]
    assert "\x1b[1mKIND\x1b[0m" in marked[0]
    assert "\x1b" not in "".join(drawn())


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("2026-11-29T02:33:12Z", "2026-11-29 02:33:12Z (now)"),
        ("2026-11-29T03:30:12+01:00", "2026-11-29 02:30:12Z (3 min ago)"),
        ("2026-11-29T02:33:02", "2026-11-29 02:33:02Z (10 s ago)"),
        ("2026-11-22T02:33:12.5Z", "2026-11-22 02:33:12Z (6 d ago)"),
        ("2026-11-29T04:33:12Z", "2026-11-29 04:33:12Z (in 2 h)"),
        ("yesterday\n", "yesterday\\n"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        ("", "-"),
        (NOW - timedelta(hours=5), "2026-11-28 21:33:12Z (5 h ago)"),
    ],
)
def test_a_moment_is_shown_in_utc_with_its_age(time, shown):
    assert when(time, NOW) == shown


def on_a_terminal(code, **environment):
    """Return what a program writes to a terminal of 80 columns."""
    master, slave = pty.openpty()
    names = ("PYTHONPATH", "PATH")
    env = {"TERM": "xterm"} | {name: os.environ[name] for name in names if name in os.environ} | environment
    subprocess.run([sys.executable, "-c", code], stdout=slave, env=env, check=True)
    os.close(slave)
    seen = b""
    try:
        while part := os.read(master, 65536):
            seen += part
    except OSError:  # how Linux ends a terminal
        pass
    os.close(master)
    return seen.decode().replace("\r\n", "\n")


DRAW = "from configstore.cli.render import Style, table; table(['STATE'], [[('fail', Style.BAD)]])"


def test_colours_are_for_terminals_that_show_them():
    assert "\x1b[1;31mfail\x1b[0m" in on_a_terminal(DRAW)
    assert "\x1b" not in on_a_terminal(DRAW, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(DRAW, TERM="dumb")
    piped = subprocess.run([sys.executable, "-c", DRAW], capture_output=True, text=True, check=True)
    assert piped.stdout == "STATE\nfail\n"


def test_a_commands_table_fits_a_terminal_of_80_columns():
    """A pty without a size has 80 columns, as most terminals begin with."""
    text = on_a_terminal("from configstore.cli import main; main(['presets'])", NO_COLOR="1")
    assert text.startswith("PRESET ")
    assert max(map(len, text.splitlines())) <= 80
    assert "overrides-roundcube" in text
    assert max(map(len, on_a_terminal("from configstore.cli import main; main(['presets'])", COLUMNS="40",
                                      NO_COLOR="1").splitlines())) <= 40  # fmt: skip
