"""Fixtures for attacks: the command in this process, the command and replicas as processes."""

from tests.cli.conftest import environment, offline, run, tree
from tests.e2e.conftest import configstore, replica

__all__ = ["configstore", "environment", "offline", "replica", "run", "tree"]
