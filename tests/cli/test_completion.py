"""The completion scripts in the shells themselves; one that is missing fails (tests/get-services installs it)."""

import os
import pty
import select
import shutil
import subprocess
import sys

import pytest

from tests.harness.waiting import wait_until

COMMANDS = {"configstore": "configstore", "configstore-sidecar": "sidecar"}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """Return a function that gives the file with a command's script for a shell."""
    folder = tmp_path_factory.mktemp("completion")

    def script(command, shell):
        file = folder / (f"_{command}" if shell == "zsh" else f"{command}.{shell}")
        if not file.exists():
            words = [sys.executable, "-m", COMMANDS[command], "completion", shell]
            file.write_bytes(subprocess.run(words, capture_output=True, check=True).stdout)
        return file

    return script


def run(shell, *words):
    assert shutil.which(shell), f"{shell} is not installed: tests/get-services installs it"
    return subprocess.run([shell, *words], capture_output=True, text=True, check=True, timeout=60).stdout


def in_fish(script, line):
    found = run("fish", "--no-config", "-c", f"source {script}; complete -C '{line}'")
    return {row.split("\t")[0] for row in found.splitlines()}


def in_bash(script, line):
    function = "complete -p ${words[0]} | sed 's/.*-F \\([^ ]*\\).*/\\1/'"
    lines = (
        f"source {script}",
        f"IFS=' ' read -ra words <<< '{line}'",
        'COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1))',
        f"COMP_LINE='{line}' COMP_POINT={len(line)}",
        f'"$({function})"',
        "printf '%s\\n' \"${COMPREPLY[@]}\"",
    )
    return set(run("bash", "--norc", "-c", "\n".join(lines)).split())


def see_in_zsh(script, line, wanted):
    """Type a line and a tab in an interactive zsh, and wait until it shows what is wanted."""
    assert shutil.which("zsh"), "zsh is not installed: tests/get-services installs it"
    master, slave = pty.openpty()
    environment = {
        "TERM": "xterm",
        "HOME": "/nonexistent",
        "PATH": os.environ["PATH"],
        "PS1": "",
        "COLUMNS": "200",
    }
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    seen = bytearray()

    def shows(text):
        if select.select([master], [], [], 0)[0]:
            seen.extend(os.read(master, 65536))
        return text in seen

    try:
        os.write(
            master,
            f"fpath=({script.parent} $fpath); autoload -U compinit; compinit -u -D; echo re''ady\n".encode(),
        )
        wait_until(lambda: shows(b"ready\r\n"), 30)
        os.write(master, f"{line}\t".encode())
        wait_until(lambda: shows(wanted.encode()), 30, what=f"{wanted} to be completed")
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


@pytest.mark.parametrize("complete", [in_bash, in_fish], ids=["bash", "fish"])
def test_commands_and_options_are_completed(scripts, complete):
    shell = complete.__name__.removeprefix("in_")
    ours, sidecars = (scripts(command, shell) for command in COMMANDS)
    assert complete(ours, "configstore res") == {"restore", "resolve", "resume"}
    assert {"--create", "--mode", "--json", "--endpoints"} <= complete(ours, "configstore put --")
    assert complete(ours, "configstore --end") == {"--endpoints"}
    assert complete(sidecars, "configstore-sidecar pl") == {"plan"}
    assert {"--preset", "--timeout", "--cacert"} <= complete(sidecars, "configstore-sidecar init --")


def test_zsh_completes_commands(scripts):
    see_in_zsh(scripts("configstore", "zsh"), "configstore boots", "trap")
    see_in_zsh(scripts("configstore-sidecar", "zsh"), "configstore-sidecar heal", "th")


def test_files_are_completed_where_a_file_is_wanted(scripts, tmp_path):
    (tmp_path / "certificate.pem").touch()
    found = in_bash(scripts("configstore", "bash"), f"configstore ls --cacert {tmp_path}/cert")
    assert found == {f"{tmp_path}/certificate.pem"}
