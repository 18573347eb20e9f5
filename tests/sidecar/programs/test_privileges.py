"""Commands have none of the sidecar's rights, and run as another user where one is set."""

import os
import subprocess
import threading

import pytest

from configstore.mapping_settings import OwnerOverride
from sidecar.programs.hooks import run
from tests.sidecar.local.named import NOBODY, as_nobody

NOBODYS = OwnerOverride(uid=NOBODY, gid=NOBODY)


SHOW = ["grep", "-E", "^(Uid|Gid|Groups|Cap|NoNew)", "/proc/self/status"]


def status(text):
    """Return the lines of /proc/PID/status by name; in a log they stand in one line."""
    lines = (line.partition(":") for line in text.split("\\n"))
    return {name: value.replace("\\t", " ").strip() for name, _, value in lines}


def own_rights():
    with open("/proc/thread-self/status", encoding="ascii") as file:
        return [line for line in file if line.startswith(("Cap", "NoNew"))]


def test_a_command_has_no_capabilities_and_gains_none():
    said = status(run(SHOW, cwd="/", more={}).output)
    assert [int(said[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [0, 0, 0, 0]
    assert said["NoNewPrivs"] == "1"
    assert said["Uid"].split() == [str(os.geteuid())] * 4


def test_the_threads_of_the_sidecar_keep_theirs():
    before = own_rights()
    threads = threading.active_count()
    run(["true"], cwd="/", more={})
    assert own_rights() == before
    assert threading.active_count() == threads


def test_root_without_rights_cannot_go_where_its_user_may_not(theirs):
    (theirs / "secret").write_text("another's")
    os.chown(theirs / "secret", NOBODY, NOBODY)
    (theirs / "secret").chmod(0o600)
    assert "ermission denied" in run(["cat", str(theirs / "secret")], cwd="/", more={}).output


def test_a_command_runs_as_the_user_that_is_set():
    said = status(run(SHOW, cwd="/", more={}, run_as=NOBODYS).output)
    assert said["Uid"].split() == [str(NOBODY)] * 4
    assert said["Gid"].split() == [str(NOBODY)] * 4
    assert said["Groups"] == ""
    assert [int(said[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [0, 0, 0, 0]


def test_who_may_not_become_that_user_says_what_it_takes():
    with as_nobody():
        outcome = run(["true"], cwd="/", more={}, run_as=OwnerOverride(uid=1, gid=1))
    assert outcome.failure == "true: cannot be run: run_as needs the capabilities SETUID and SETGID"


def test_what_another_user_may_not_run_is_told_as_that(tmp_path):
    command = tmp_path / "command"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o700)
    outcome = run([str(command)], cwd="/", more={}, run_as=NOBODYS)
    assert outcome.failure == f"{command}: cannot be run: Permission denied"


def test_a_command_that_is_not_there_is_named():
    assert run(["no-such-command"], cwd="/", more={}).failure == (
        "no-such-command: cannot be run: No such file or directory"
    )


@pytest.mark.parametrize("run_as", [OwnerOverride(), NOBODYS])
def test_a_child_that_ended_is_waited_for(run_as):
    run(["true"], cwd="/", more={}, run_as=run_as)
    left = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "stat="], capture_output=True, text=True, check=False
    )
    assert "Z" not in left.stdout
