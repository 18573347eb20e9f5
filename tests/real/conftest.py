"""Fixtures for tests with real services: those of tests/e2e, with a lease's mapping."""

from tests.e2e.conftest import configstore, replica

__all__ = ["configstore", "replica"]
