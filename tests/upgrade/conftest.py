"""Fixtures: version 0.1.0, what it left, replicas that change their version."""

import pytest

from tests.harness.replica import ENVIRONMENT
from tests.upgrade.kept import store_of_old
from tests.upgrade.versions import Command, Upgradable, unpacked


@pytest.fixture(scope="session")
def old_environment():
    """Return the environment in which 0.1.0 runs."""
    with unpacked() as environment:
        yield environment


@pytest.fixture(scope="module")
def old_store(tmp_path_factory):
    """Return an etcd with the store that 0.1.0 left, for tests that only read."""
    with store_of_old(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture
def own_old_store(tmp_path):
    """Return an etcd with the store that 0.1.0 left, for one test."""
    with store_of_old(tmp_path / "etcd") as server:
        yield server


@pytest.fixture
def make(tmp_path, old_environment, monkeypatch):
    """Return a function that makes a replica on an etcd; all end with the test."""
    monkeypatch.setattr(Upgradable, "old", old_environment)
    made = []

    def replica(name, server, root, version="", policy="", more=""):
        made.append(Upgradable(name, tmp_path, [server.endpoint], root, policy, more).run_by(version))
        return made[-1]

    yield replica
    for each in made:
        each.__exit__()


@pytest.fixture
def new(etcd, kv_root):
    """Return today's command, on a root of the test's own that has the subtree `data`."""
    command = Command(etcd.endpoint, kv_root, ENVIRONMENT)
    command("mkdir", "data")
    return command


@pytest.fixture
def old(etcd, kv_root, old_environment):
    """Return the command of 0.1.0 on the same root."""
    return Command(etcd.endpoint, kv_root, old_environment)
