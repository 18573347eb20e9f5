"""fetchmail's id file by its preset: what travels, and what a real fetchmail's rename and unlink mean."""

import pytest

from tests.harness.waiting import wait_until
from tests.real.mail import Mailboxes, Sink, fetchmail


@pytest.fixture
def pair(service):
    """Return two replicas of fetchmail's service."""
    made = [service(name, "mailu/fetchmail").start() for name in ("one", "two")]
    return [each.ready() for each in made]


def hold(replica, *command):
    """Run a command under the lease and return its exit code."""
    process = replica.client("hold", "fetchmail", "--ttl", "10", "--wait", "60s", "--", *command)
    process.communicate(timeout=120)
    return process.returncode


def poll(replica, folder, mailboxes, sink):
    """Make one poll under the lease and return fetchmail's exit code."""
    return hold(
        replica, *fetchmail(folder / f"home-{replica.name}", replica.at("/data/fetchids"), mailboxes, sink)
    )


def test_the_ids_of_one_poll_are_there_for_the_next_replica(pair, tmp_path):
    one, two = pair
    with Mailboxes() as mailboxes, Sink() as sink:
        mailboxes.deliver("user", 3)
        assert poll(one, tmp_path, mailboxes, sink) == 0
        mailboxes.deliver("user", 2)
        assert poll(two, tmp_path, mailboxes, sink) == 0
        assert (len(sink.received), sink.duplicates()) == (5, 0)
    assert two.at("/data/fetchids").stat().st_mode & 0o777 == 0o600


def test_the_file_that_is_being_written_stays_and_the_one_of_old_travels(pair, configstore):
    one, two = pair
    script = f"echo half > {one.at('/data/fetchids_')} && echo 1 > {one.at('/data/.idfile')}"
    assert hold(one, "sh", "-c", script) == 0
    wait_until(two.at("/data/.idfile").exists)
    assert configstore("ls", "fetchmail") == b".idfile\n"


def test_no_ids_left_is_a_delete_like_any_other(pair, configstore):
    one, two = pair
    ids = one.at("/data/fetchids")
    assert hold(one, "sh", "-c", f"echo 1 > {ids}") == 0
    wait_until(two.at("/data/fetchids").exists)
    assert hold(one, "rm", str(ids)) == 0
    wait_until(lambda: not two.at("/data/fetchids").exists())
    assert configstore("ls", "fetchmail") == b""
