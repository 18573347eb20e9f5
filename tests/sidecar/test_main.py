"""The sidecar's command line."""

import json

import pytest

from configstore.model.path import StorePath
from configstore.model.problem import Problem
from sidecar.__main__ import main
from sidecar.daemon import commands
from sidecar.planner.plan import Plan

SECRET = "hunter2-very-secret"


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--password", SECRET),
        ("run", f"--password={SECRET}"),
        ("run", "--preset", "mailu/front", "--password", SECRET),
        ("--password", SECRET, "run"),
        ("plan", f"--json={SECRET}"),
    ],
)
def test_a_secret_in_the_arguments_is_refused_and_not_repeated(capsys, words):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert SECRET not in capsys.readouterr().err


def test_a_plan_as_json_has_every_key_of_its_problems(capsys, monkeypatch):
    problem = Problem(path="data", reason="is a device")
    plan = Plan(problems={StorePath("data"): problem})
    monkeypatch.setattr(commands, "plan", lambda _: {"m": plan})
    monkeypatch.delenv("CONFIGSTORE_TEST_ETCD", raising=False)  # a variable of the tests, which no setting is
    assert main(["plan", "--preset", "mailu/front", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["m"]
    assert found["problems"] == {
        "data": {"path": "data", "reason": "is a device", "unsure": False, "word": "", "sealing": False}
    }
    assert list(found) == list(Plan.__struct_fields__)
