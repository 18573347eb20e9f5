"""Fixtures for tests of the local side: mirrored directories of one's own, and what watches them."""

import pytest

from tests.sidecar.local.named import Mirrored, Woken


@pytest.fixture
def mirrored(tmp_path):
    """Return a function that makes a mirrored directory, with fields of its mapping."""
    made = []

    def make(path=None, **fields):
        made.append(Mirrored(path or tmp_path / "mirrored", **fields))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def here(mirrored):
    """Return a mirrored directory of the default policy."""
    return mirrored()


@pytest.fixture
def woken():
    """Return a running inotify watch."""
    gathered = Woken()
    yield gathered
    gathered.watch.close()
