"""`leases`, `run`, `wait` and `flush` without a sidecar: on etcd itself."""

import subprocess
import sys

import pytest

from configstore.model.keys import Keys
from configstore.model.lease import QueueEntry
from configstore.store.leases import Lease
from configstore.store.store import Store

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


def test_a_write_by_hand_goes_past_a_lease_unless_it_is_made_under_it(run, kv, kv_root, environment):
    put = [sys.executable, "-m", "configstore", "put", "certs/a"]
    taken = ["run", "--socket", "", "--lease", "job", "--no-wait", "--", *put]
    holder = Lease(Store(kv, Keys(kv_root)), "job", QueueEntry(replica="mail-1", host="h"), ttl=10)
    holder.acquire(0.0)
    try:
        assert run("put", "certs/a", stdin=b"past it").code == 0
        done = run(*taken)
        assert (done.code, "held by mail-1" in done.err) == (3, True)
    finally:
        holder.release()
    whole = [sys.executable, "-m", "configstore", *taken]
    assert subprocess.run(whole, env=environment, input=b"under it", check=False).returncode == 0
    assert run("get", "certs/a").out == b"under it"
