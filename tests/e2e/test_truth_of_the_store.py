"""What is said of a store that was wiped, by those who still hold its files; and how old an edit is that waits."""

import contextlib
import shutil
import time

import pytest

from tests.e2e.faults import says
from tests.harness import zygote
from tests.harness.replica import ENVIRONMENT, Replica
from tests.harness.waiting import wait_until

SOON = 40.0
"""Four times the 10 s of the contract."""


def make_subtree(etcd):
    """Make the subtree `data`."""
    zygote.run("configstore", ["--endpoints", etcd.endpoint, "mkdir", "data"], ENVIRONMENT).check_returncode()


@pytest.fixture
def wiped(own_etcd, tmp_path):
    """Return two replicas that hold what their etcd does not any more, one without files, and the command."""

    def run(*words):
        done = zygote.run("configstore", ["--endpoints", own_etcd.endpoint, *words], ENVIRONMENT)
        assert done.returncode in ({0, 1} if words == ("status",) else {0}), done.stderr.decode()
        return done.stdout.decode()

    with contextlib.ExitStack() as stack:
        one, two, fresh = (
            stack.enter_context(Replica(name, tmp_path, [own_etcd.endpoint], "/configstore"))
            for name in ("one", "two", "fresh")
        )
        run("mkdir", "data")
        one.start().ready()
        for name in "abc":
            (one.folder / name).write_text(name)
        two.start().ready()
        wait_until(lambda: one.metric("paths") == two.metric("paths") == 3, SOON)
        own_etcd.stop()
        shutil.rmtree(own_etcd.data_dir)
        own_etcd.start()
        yield one, two, fresh, run


def test_after_a_wiped_store_it_is_said_who_still_holds_its_files_and_what_brings_them_back(wiped):
    one, two, fresh, run = wiped
    fresh.start()
    wait_until(lambda: "fresh@" in run("status"), SOON)

    def told():
        text = run("status")
        return text if text.count("still holds 3 files") == 2 else None

    text = wait_until(told, SOON, what=run("status"))
    assert says("a wiped etcd", text)
    for name in ("one", "two"):
        assert f"`configstore resume data --replica {name} --take local`" in text
    (line,) = [line for line in text.splitlines() if "fresh@" in line]
    assert "holds no files of what the store has lost; leave it" in line
    assert "one (3 files), two (3 files)" in line
    assert not any(word in text for word in ("mkdir", "bootstrap", "has its content win"))
    run("resume", "data", "--replica", "one", "--take", "local")
    wait_until(lambda: fresh.tree().keys() == set("abc"), SOON)
    run("resume", "data", "--take", "store")
    wait_until(lambda: "3 of 3" in run("status"), SOON)
    assert one.tree() == two.tree() == fresh.tree()


def test_after_a_wiped_store_a_new_root_publishes_nothing_empty_unsaid(wiped):
    one, two, fresh, run = wiped
    run("mkdir", "data")
    fresh.start().ready()
    text = wait_until(lambda: (text := run("status")).count("still holds 3 files") == 2 and text, SOON)
    assert "1 of 3" in text
    assert one.tree().keys() == two.tree().keys() == set("abc")


def test_a_wiped_store_with_none_but_fresh_replicas(wiped):
    one, two, fresh, run = wiped
    one.end()
    two.end()
    fresh.start()
    text = wait_until(lambda: "fresh@" in (text := run("status")) and "subtree data" in text and text, SOON)
    assert "restore its backup" in text
    assert "made anew, it is mirrored empty" in text


def test_the_age_of_an_edit_counts_from_the_edit_while_etcd_is_away(own_etcd, tmp_path):
    with Replica("one", tmp_path, [own_etcd.endpoint], "/configstore") as one:
        zygote.run(
            "configstore", ["--endpoints", own_etcd.endpoint, "mkdir", "data"], ENVIRONMENT
        ).check_returncode()
        one.start().ready()
        own_etcd.kill()
        edited = time.monotonic()
        (one.folder / "a").write_text("x")
        wait_until(lambda: one.metric("pending") == 1, SOON)
        wait_until(lambda: one.metric("pending_seconds") > 8, SOON)
        before = time.monotonic() - edited
        assert before - 1 < one.metric("pending_seconds") < time.monotonic() - edited + 0.1
        own_etcd.start()
        wait_until(lambda: one.metric("pending") == one.metric("pending_seconds") == 0, SOON)


def test_the_age_of_an_edit_outlives_a_restart_of_etcd(own_etcd, tmp_path):
    with Replica("one", tmp_path, [own_etcd.endpoint], "/configstore", 'lease = "job"') as one:
        zygote.run(
            "configstore", ["--endpoints", own_etcd.endpoint, "mkdir", "data"], ENVIRONMENT
        ).check_returncode()
        one.start().ready()
        edited = time.monotonic()
        (one.folder / "a").write_text("x")  # it waits for the lease
        wait_until(lambda: one.metric("pending") == 1, SOON)
        own_etcd.kill()
        wait_until(lambda: "configstore_connected 0" in one.ask("/metrics")[1], SOON)
        own_etcd.start()
        wait_until(lambda: "configstore_connected 1" in one.ask("/metrics")[1], SOON)
        assert one.metric("pending_seconds") > time.monotonic() - edited - 1
