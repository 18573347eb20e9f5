"""Hooks and checks: how commands are run, how processes are found, and what a failure does."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from configstore.model.seal import Policy
from sidecar.programs.check import Check
from sidecar.programs.hooks import OUTPUT, Hooks, run, send_signal
from tests.harness.waiting import wait_until
from tests.sidecar.planner.named import a_mapping


def runs(pid):
    """Tell whether a process is there, and not only waiting to be noticed as dead."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_command_gets_no_settings_of_ours_and_no_input(monkeypatch, tmp_path):
    monkeypatch.setenv("CONFIGSTORE_PASSWORD", "secret")
    outcome = run(["sh", "-c", "env; cat; pwd"], cwd=str(tmp_path), more={"CONFIGSTORE_PATH": "/certs"})
    assert outcome.failure is None
    assert "secret" not in outcome.output
    assert "CONFIGSTORE_PATH=/certs" in outcome.output
    assert str(tmp_path) in outcome.output


def test_programs_that_were_installed_with_the_sidecar_are_found_and_hide_no_others(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    for folder, says in ((tmp_path, "theirs"), (tmp_path / "bin", "ours")):
        for name in ("both",) if folder == tmp_path else ("both", "only-ours"):
            (folder / name).write_text(f"#!/bin/sh\necho {says}\n")
            (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python3"))
    assert run(["only-ours"], cwd="/", more={}).output == "ours"
    assert run(["both"], cwd="/", more={}).output == "theirs"


def test_of_much_output_the_end_is_kept_and_made_safe():
    outcome = run(["sh", "-c", r"head -c 1000000 /dev/zero | tr '\0' x; printf '\033[31m'"], cwd="/", more={})
    assert outcome.output.endswith("x\\x1b[31m")
    assert len(outcome.output) < OUTPUT + 10


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/no/such"], "/no/such: cannot be run: No such file or directory"),
        (["sh", "-c", "exit 3"], "sh: ended with exit code 3"),
        (["sh", "-c", "kill -KILL $$"], "sh: was ended by signal 9"),
        (["sh", "-c", "echo all is well; echo; echo '  line 7: \033[1mno such key'; echo; exit 1"],
         "sh: ended with exit code 1: line 7: \\x1b[1mno such key"),
        (["sh", "-c", "head -c 5000 /dev/zero | tr '\\0' x; echo the point; exit 1"],
         "sh: ended with exit code 1: " + "x" * 191 + "the point"),
    ],
    ids=["not there", "silent", "by a signal", "with words", "with a long line"],
)  # fmt: skip
def test_a_failure_is_told_with_the_last_line_that_was_said(command, words):
    assert run(command, cwd="/", more={}).reported(a_mapping()) == words


def test_what_a_command_said_is_not_told_where_files_are_sealed():
    """It may quote what it found in a file, and what is told of a failure lies in the store, in the report."""
    outcome = run(["sh", "-c", "echo unknown directive hunter2; exit 1"], cwd="/", more={})
    assert outcome.reported(a_mapping(seal=Policy.OFF)).endswith(": unknown directive hunter2")
    for policy in (Policy.REQUIRED, Policy.ACCEPT):
        told = outcome.reported(a_mapping(seal=policy))
        assert told == "sh: ended with exit code 1; the sidecar's log has its output"
    assert "hunter2" in outcome.output


def test_one_that_never_stops_talking_is_stopped_in_time():
    outcome = run(["yes", "and so on"], cwd="/", more={}, timeout=0.5)
    assert outcome.reported(a_mapping()) == "yes: took longer than 0.5 s: and so on"


def test_one_that_leaves_a_talker_behind_is_not_waited_for_long(tmp_path):
    script = f"yes & echo $! > {tmp_path}/pid"
    assert run(["sh", "-c", script], cwd="/", more={}, timeout=60).failure is None
    wait_until(lambda: not runs((tmp_path / "pid").read_text().strip()))  # its pipe is closed


def test_one_that_takes_too_long_is_stopped_with_all_that_it_started(tmp_path):
    script = f"trap '' TERM; sleep 600 & echo $! > {tmp_path}/pid; wait; wait"
    outcome = run(["sh", "-c", script], cwd="/", more={}, timeout=0.5)
    assert "took longer than 0.5 s" in outcome.failure
    pid = (tmp_path / "pid").read_text().strip()
    wait_until(lambda: not runs(pid))


def test_one_that_leaves_something_running_is_not_waited_for():
    assert run(["sh", "-c", "sleep 60 & exit 0"], cwd="/", more={}, timeout=30).failure is None


def test_a_signal_reaches_the_topmost_process_of_a_name(tmp_path):
    program = tmp_path / "a (strange) name"
    program.symlink_to(sys.executable)
    script = (
        "import os, signal, sys, time\n"
        "child = os.fork()\n"
        "role = 'parent' if child else 'child'\n"
        "signal.signal(signal.SIGHUP, lambda *_: (print(role, flush=True), os._exit(0)))\n"
        "role == 'parent' and print(child, flush=True)\n"
        "signal.pause()\n"
    )
    # the kernel takes the name from the file that is executed
    with subprocess.Popen([str(program), "-c", script], stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        name = Path(f"/proc/{process.pid}/comm").read_text().rstrip("\n")
        assert send_signal(signal.SIGHUP, name).failure is None
        assert process.stdout.readline() == "parent\n"
        os.kill(child, signal.SIGKILL)


def test_nobody_to_signal_is_no_failure():
    assert send_signal(signal.SIGHUP, "no-such-name-here").failure is None


@pytest.fixture
def hooks(tmp_path):
    """Return a function that makes hooks with a command; they end with the test."""
    made = []

    def make(script, told=lambda: None):
        made.append(Hooks(a_mapping(on_change=("sh", "-c", script)), told))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_changes_during_a_run_make_one_more_run(hooks, tmp_path):
    log, gate = tmp_path / "log", tmp_path / "gate"
    os.mkfifo(gate)
    each = hooks(f"echo run >> {log}; cat {gate}")
    each.changed()
    wait_until(log.exists)
    for _ in range(5):
        each.changed()
    gate.write_text("")
    wait_until(lambda: log.read_text().count("run") == 2)
    gate.write_text("")
    each.changed()
    wait_until(lambda: log.read_text().count("run") == 3)
    gate.write_text("")


def test_a_failed_hook_is_visible_and_tried_again(hooks, tmp_path):
    told = threading.Event()
    each = hooks(f"test -e {tmp_path}/works", told.set)
    each.changed()
    assert told.wait(10)
    assert each.failure == "sh: ended with exit code 1"
    told.clear()
    (tmp_path / "works").touch()
    assert told.wait(10)
    assert each.failure is None


def test_a_check_is_not_asked_the_same_again_for_a_while(tmp_path):
    moment = [0.0]
    script = 'echo x >> "$CONFIGSTORE_STAGED"/log; test -e "$1"/good'
    check = Check(a_mapping(check=("sh", "-c", script, "-", "{}")), clock=lambda: moment[0])
    assert "refused by the check" in check.ask("one", str(tmp_path))
    assert "exit code 1" in check.known("one")
    assert check.known("other") is None
    moment[0] = 61.0
    assert check.known("one") is None
    (tmp_path / "good").touch()
    assert check.ask("one", str(tmp_path)) is None
    assert (tmp_path / "log").read_text() == "x\nx\n"
