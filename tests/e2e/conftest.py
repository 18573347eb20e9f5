"""Fixtures for tests with real sidecars: two replicas of one subtree, and the command."""

import subprocess

import pytest

from tests.harness import zygote
from tests.harness.replica import ENVIRONMENT, Replica
from tests.harness.waiting import wait_until


@pytest.fixture
def configstore(etcd, kv_root):
    """Return a function that runs the command against the test's root and returns what it prints."""

    def run(*arguments, content=b"", code=None):
        words = ["--endpoints", etcd.endpoint, "--root", kv_root, *arguments]
        done = zygote.run("configstore", words, ENVIRONMENT, content)
        well = {0, 1} if arguments[:1] == ("status",) else {0}  # 1: something needs a look
        assert done.returncode in (well if code is None else {code}), done.stderr.decode()
        return done.stdout

    return run


@pytest.fixture
def replica(etcd, kv_root, tmp_path, configstore):
    """Return a function that makes a replica of the subtree `data`, which is there; all end with the test."""
    configstore("mkdir", "data")
    made = []

    def make(name, policy="", more="", endpoint=etcd.endpoint):
        made.append(Replica(name, tmp_path, [endpoint], kv_root, policy, more))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


@pytest.fixture
def pair(replica):
    """Return two running replicas, ready."""
    one, two = replica("one").start(), replica("two").start()
    return one.ready(), two.ready()


@pytest.fixture
def on_tmpfs():
    """Return a function that mounts a tmpfs at a directory; all are unmounted in the end."""
    mounted = []

    def mount(folder, *options):
        command = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            ",".join(["mode=0755", *options]),
            "configstore-test",
            str(folder),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert not done.returncode, f"needs the right to mount (root with CAP_SYS_ADMIN): {done.stderr}"
        mounted.append(folder)

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def equal(one, two, deadline=20.0):
    """Wait until two replicas hold the same, and return it."""
    wait_until(lambda: one.tree() == two.tree(), deadline, what="equal trees")
    return one.tree()
