"""Fixtures for tests of reading files: real tmpfs mounts, another user's directory."""

from tests.sidecar.conftest import theirs, tmpfs

__all__ = ["theirs", "tmpfs"]
