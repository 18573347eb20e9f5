"""Fixtures for tests of the daemon: another user's directory, and real tmpfs mounts."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.sidecar.local.named import NOBODY, modes_below, mount_tmpfs, unmount


@pytest.fixture
def theirs():
    """Return a directory that belongs to a user without root's rights, wherever pytest's own ones lie."""
    path = Path(tempfile.mkdtemp(prefix="configstore-test-"))
    path.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    yield path
    path.chmod(0o700)
    modes_below(path)
    shutil.rmtree(path)


@pytest.fixture
def tmpfs(tmp_path):
    """Return a function that mounts a tmpfs below the test's own directory, or over a given one."""
    mounted = []

    def mount(path=None, size="1m"):
        path = path or tmp_path / "tmpfs"
        path.mkdir(exist_ok=True)
        refused = mount_tmpfs(path, size)
        if refused:
            pytest.fail(f"this test mounts a tmpfs, which needs root with CAP_SYS_ADMIN: {refused}", pytrace=False)
        mounted.append(path)
        return path

    yield mount
    for path in reversed(mounted):
        if os.path.ismount(path):
            unmount(path, "--lazy")
