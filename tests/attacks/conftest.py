"""Fixtures for attacks: the command, replicas, and a root sidecar in whose directory another user is at work."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.attacks.application import UID, Attacked
from tests.cli.conftest import environment, offline, run, tree
from tests.e2e.conftest import configstore, replica

__all__ = ["configstore", "environment", "offline", "replica", "run", "tree"]


@pytest.fixture
def volume():
    """Return a directory on a tmpfs that another user may enter; its `mine` belongs to the application."""
    if os.geteuid() != 0:
        pytest.fail("attacks play two users, which needs root", pytrace=False)
    base = Path(tempfile.mkdtemp(prefix="configstore-attack-", dir="/dev/shm"))
    base.chmod(0o755)
    (base / "mine").mkdir()
    os.chown(base / "mine", UID, UID)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def attacked(etcd, kv_root, configstore, volume):
    """Return a function that makes a root sidecar of the subtree `data`; it ends with the test."""
    configstore("mkdir", "data")
    made = []

    def make(name="one", policy="", base=None):
        made.append(Attacked(name, base or volume, [etcd.endpoint], kv_root, policy))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()
