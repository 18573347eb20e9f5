"""Two replicas of a fetchmail service: every message arrives, and only a poll that was killed is repeated."""

import contextlib
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.replica import ENVIRONMENT
from tests.real.mail import Mailboxes, Sink, fetchmail
from tests.servers import Proxy
from tests.waiting import wait_until

POLICY = 'include = ["fetchids"]\nlease = "fetchmail"\nsettle = "20ms"\nfile_mode = "0600"'
MESSAGES = 300
WRAPPER = str(Path(__file__).parents[2] / "docs/fetchmail/fetchmail")
TTL = "5"
FETCHED, NOTHING_NEW = 0, 1


@pytest.fixture
def mailboxes():
    with Mailboxes() as found:
        found.deliver("user", MESSAGES)
        yield found


@pytest.fixture
def sink():
    with Sink() as found:
        yield found


@pytest.fixture
def poll(mailboxes, sink, tmp_path):
    """Return a function that starts one poll of a replica under the lease."""

    def start(replica):
        command = fetchmail(tmp_path / f"home-{replica.name}", replica.folder / "fetchids", mailboxes, sink)
        return replica.client("hold", "fetchmail", "--ttl", TTL, "--wait", "60s", "--", *command)

    return start


@pytest.fixture
def pair(replica):
    """Return two running replicas of fetchmail's mapping."""
    one, two = replica("one", POLICY).start(), replica("two", POLICY).start()
    return one.ready(), two.ready()


def ended(process):
    """Return a poll's exit code."""
    complaints = process.communicate(timeout=120)[1]
    return process.returncode, complaints


def lose(replica):
    """Kill a replica's sidecar and lose its tmpfs, as when its container is made anew."""
    replica.end(signal.SIGKILL)
    shutil.rmtree(replica.folder)
    replica.folder.mkdir()


def test_replicas_take_turns_and_killed_ones_repeat_nothing_between_polls(pair, poll, mailboxes, sink):
    one, two = pair
    assert ended(poll(one))[0] == FETCHED
    assert ended(poll(two))[0] == NOTHING_NEW
    for turn in range(6):
        mailboxes.deliver("user", 20)
        here, there = (one, two) if turn % 2 else (two, one)
        both = [poll(here), poll(there)]  # at once: the lease has them queue
        assert sorted(ended(each)[0] for each in both) == [FETCHED, NOTHING_NEW]
        lose(there)
        there.start()  # with an empty tmpfs, and not waited for
    assert len(sink.received) == MESSAGES + 120
    assert sink.duplicates() == 0


def test_the_wrapper_polls_under_the_lease(pair, mailboxes, sink, tmp_path):
    one, two = pair

    def poll(replica):
        command = fetchmail(tmp_path / f"home-{replica.name}", replica.folder / "fetchids", mailboxes, sink)
        wrapped = [WRAPPER if word == "fetchmail" else word for word in command]
        here = {
            "CONFIGSTORE_CLIENT": str(replica.shared / "configstore-client"),
            "CONFIGSTORE_FETCHMAIL": shutil.which("fetchmail"),
        }
        return subprocess.run(
            wrapped, env=ENVIRONMENT | here, capture_output=True, timeout=120, check=False
        ).returncode

    assert (poll(one), poll(two)) == (FETCHED, NOTHING_NEW)
    assert (len(sink.received), sink.duplicates()) == (MESSAGES, 0)


def paused_in_the_middle(one, poll, sink):
    """Return a poll of one that hangs at its fiftieth message."""
    sink.pause_after = 50
    hanging = poll(one)
    assert sink.paused.wait(30)
    return hanging


def everything_arrived(two, poll, sink, repeated):
    """Let the other replica poll, and see that nothing is missing, and what came twice."""
    sink.pause_after = None
    sink.go_on.set()
    assert ended(poll(two))[0] == FETCHED
    assert ended(poll(two))[0] == NOTHING_NEW
    assert len(sink.received) == MESSAGES
    assert sink.duplicates() <= repeated


def test_a_client_killed_in_the_middle_of_a_poll_repeats_that_poll_at_most(pair, poll, sink):
    one, two = pair
    hanging = paused_in_the_middle(one, poll, sink)
    hanging.kill()
    hanging.communicate()
    lose(one)
    everything_arrived(two, poll, sink, repeated=50)


def test_a_frozen_sidecar_in_the_middle_of_a_poll_stops_it_before_another_begins(pair, poll, sink):
    one, two = pair
    hanging = paused_in_the_middle(one, poll, sink)
    one.process.send_signal(signal.SIGSTOP)
    code, complaints = ended(hanging)
    assert code == 3
    assert "was stopped" in complaints
    everything_arrived(two, poll, sink, repeated=50)
    one.process.send_signal(signal.SIGCONT)
    assert ended(poll(one))[0] == NOTHING_NEW  # its stale idea of things went nowhere
    assert sink.duplicates() <= 50


def test_a_replica_cut_off_from_etcd_in_the_middle_of_a_poll_stops_it(replica, etcd, poll, sink):
    with contextlib.closing(Proxy(int(etcd.endpoint.rpartition(":")[2]))) as proxy:
        one, two = replica("one", POLICY, endpoint=proxy.endpoint), replica("two", POLICY).start().ready()
        one.start().ready()
        hanging = paused_in_the_middle(one, poll, sink)
        proxy.freeze()
        code, complaints = ended(hanging)
        assert code == 3
        assert "was stopped" in complaints
        everything_arrived(two, poll, sink, repeated=50)
        proxy.heal()
        wait_until(lambda: ended(poll(one))[0] == NOTHING_NEW, 60)
    assert sink.duplicates() <= 50


def test_without_configstore_every_message_comes_twice(mailboxes, sink, tmp_path):
    """The harm: two replicas, each with its own id file."""
    for name in ("one", "two"):
        command = fetchmail(tmp_path / name, tmp_path / name / "fetchids", mailboxes, sink)
        assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == FETCHED
    assert sink.duplicates() == MESSAGES
