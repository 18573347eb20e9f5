"""Whatever names a path has, what is printed of it can be pasted into a shell."""

import subprocess
import sys

import pytest

from configstore.store.conflicts import losers
from tests.harness.named import a_file, a_write

NAMES = (
    "a b",
    "it's",
    'say "no"',
    "$(reboot)",
    "-rf",
    "--",
    "~",
    "*",
    "ä ö",
    "a\u202eb",
    "back\\slash",
    "#1",
    "!!",
)


@pytest.fixture
def bash(environment):
    """Return a function that runs a line in bash, where `configstore` is the command; returns what it prints."""

    def run(line):
        script = f'configstore() {{ "{sys.executable}" -m configstore "$@"; }}; {line}'
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, env=environment, timeout=60, check=False
        )
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout.decode()

    return run


@pytest.fixture
def names(tree):
    """Write a file of each name, at the top and in a directory, and return the names."""
    writes = [
        a_write(path, text)
        for path, text in ((where + name, name.encode()) for where in ("", "d/") for name in NAMES)
    ]
    assert tree.commit(writes, retention=60).complete
    return set(NAMES)


def test_what_ls_prints_is_a_path_to_get_in_a_shell(names, bash):
    words = [line for line in bash("configstore ls").splitlines() if line != "d/"]
    assert {bash(f"configstore get {word}") for word in words} == names
    words = bash("configstore ls d").splitlines()
    assert bash("; ".join(f"configstore get d/{word}; echo" for word in words)).split("\n")[:-1] == sorted(names)


def test_what_stat_and_history_say_of_a_path_is_understood_by_rm(names, bash, run):
    words = [line for line in bash("configstore ls").splitlines() if line != "d/"]
    bash("; ".join(f"configstore rm {word}" for word in words))
    assert run("ls").out == b"d/\n"
    for word in words[:2]:
        assert word in bash(f"configstore history {word}; configstore stat {word} || true")


def test_what_conflicts_prints_is_understood_by_resolve(tree, bash):
    for name in NAMES[:6]:
        tree.keep_conflict(name, a_file(b"lost"), b"lost", retention=60)
    header, *lines = bash("configstore conflicts").splitlines()
    words = [line[header.index("PATH") :] for line in lines]
    bash("; ".join(f"configstore resolve {word} --take store" for word in words))
    assert losers(tree, "") == []
