"""The sidecar's command line."""

import pytest

from sidecar.__main__ import main

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
