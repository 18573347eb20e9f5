"""What is started by a fork is the process that an exec would have made."""

import json
import os
import signal

import pytest

from tests.harness import zygote
from tests.harness.replica import ENVIRONMENT
from tests.harness.waiting import wait_until


@pytest.fixture(autouse=True)
def may_fork(monkeypatch):
    monkeypatch.delenv("CONFIGSTORE_TEST_EXEC", raising=False)


@pytest.mark.parametrize("forks", [True, False])
def test_what_a_command_says_and_its_exit_code_are_those_of_an_exec(forks, monkeypatch):
    if not forks:
        monkeypatch.setenv("CONFIGSTORE_TEST_EXEC", "1")
    known = zygote.run_text("configstore", ["presets", "--json"], ENVIRONMENT)
    assert (known.returncode, known.stderr) == (0, "")
    assert "mailu/front" in known.stdout
    assert json.loads(known.stdout)
    wrong = zygote.run_text("sidecar", ["run", "--no-such"], ENVIRONMENT)
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr.startswith("usage: configstore-sidecar ")


def test_it_is_our_child_and_has_the_environment_that_it_was_given(tmp_path):
    environment = ENVIRONMENT | {"CONFIGSTORE_ENDPOINTS": "http://127.0.0.1:1", "CONFIGSTORE_ROOT": "x"}
    done = zygote.run_text("configstore", ["ls"], environment)
    assert done.returncode == 2
    assert "CONFIGSTORE_ROOT" in done.stderr
    settings = tmp_path / "settings.toml"
    (tmp_path / "data").mkdir()
    settings.write_text(
        f'[state]\ndirectory = "{tmp_path}/state"\n[control]\nsocket = "{tmp_path}/c"\n[health]\nlisten = "none"\n'
        f'[[mapping]]\nname = "data"\npath = "{tmp_path}/data"\n'
    )
    with (tmp_path / "log").open("wb") as log:
        words = ["run", "--endpoints", "http://127.0.0.1:1", "--config", str(settings)]
        process = zygote.start("sidecar", words, ENVIRONMENT, log)
    wait_until((tmp_path / "log").read_bytes)
    with open(f"/proc/{process.pid}/stat") as file:
        assert int(file.read().rpartition(")")[2].split()[1]) == os.getpid()
    assert process.poll() is None
    process.kill()
    assert process.wait(60) == -signal.SIGKILL


def test_other_variables_of_the_interpreter_need_an_exec():
    assert zygote.may_fork(ENVIRONMENT)
    assert not zygote.may_fork(ENVIRONMENT | {"PYTHONWARNINGS": "error"})
    assert not zygote.may_fork(ENVIRONMENT | {"TZ": "Asia/Tokyo"})
