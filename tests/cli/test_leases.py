"""`leases`, `run`, `wait` and `flush` without a sidecar: on etcd itself."""

import pytest

NOWHERE = ("--endpoints", "http://127.0.0.1:1", "--timeout", "300ms")


@pytest.mark.parametrize("name", ["", "a/b", "../x", "/job", "job/", "a\nb", "\x1b[2J", "job ", ".job", "x" * 64])
@pytest.mark.parametrize(
    "words",
    [
        lambda name: ("run", f"--lease={name}", "--", "true"),
        lambda name: ("leases", "break", name, "--yes"),
    ],
    ids=["run", "break"],
)
def test_a_name_that_no_mapping_could_give_a_lease_is_refused_before_anything_is_asked(offline, words, name):
    done = offline(*NOWHERE, *words(name))
    assert (done.code, done.out) == (2, b"")
    assert "expected a name" in done.err
