"""Fixtures for tests with real services: those of tests/e2e, and replicas by preset."""

import tempfile
from pathlib import Path

import pytest

from tests.e2e.conftest import configstore, replica
from tests.real.preset import PresetReplica
from tests.sidecar.local.conftest import woken

__all__ = ["configstore", "replica", "woken"]


@pytest.fixture
def service(etcd, kv_root, tmp_path, configstore):
    """Return a function that makes a replica of a preset whose roots are there; all end with the test."""
    made = []

    def make(name, preset, more=lambda _: {}):
        for each in preset.split(","):
            configstore("bootstrap", "--preset", each)
        made.append(PresetReplica(name, tmp_path, etcd.endpoint, kv_root, preset, more))
        return made[-1]

    yield make
    for each in made:
        each.__exit__()


@pytest.fixture
def roots():
    """Return a folder for containers of a shape, beside the test's own folder, which can be mounted in them."""
    with tempfile.TemporaryDirectory(prefix="cs-roots-", dir="/tmp") as folder:
        yield Path(folder)
