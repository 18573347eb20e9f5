"""The embedded etcd: found, started, restarted, and never left behind."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from configstore import embedded
from configstore.embedded import LOOPBACK, EmbeddedEtcd, binary_version, find_etcd, free_ports
from configstore.errors import StoreUnavailableError, UsageError
from configstore.store.api import Put
from tests.harness.servers import connect
from tests.harness.waiting import freeze, wait_until


def fake_etcd(folder, version):
    """Write an `etcd` that only tells its version."""
    folder.mkdir()
    binary = folder / "etcd"
    binary.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
    binary.chmod(0o755)
    return binary


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_newer_etcd_on_path_is_preferred_to_the_wheel(tmp_path, monkeypatch):
    binary = fake_etcd(tmp_path / "new", "3.99.0")
    monkeypatch.setenv("PATH", str(binary.parent))
    assert find_etcd() == binary


def test_an_older_etcd_on_path_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(fake_etcd(tmp_path / "old", "3.4.23").parent))
    assert find_etcd() == embedded.wheel_binary()


def test_without_any_etcd_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "wheel_binary", lambda: None)
    with pytest.raises(UsageError, match="embedded"):
        find_etcd()


def test_without_the_wheel_any_etcd_on_path_will_do(tmp_path, monkeypatch):
    binary = fake_etcd(tmp_path / "old", "3.4.23")
    monkeypatch.setenv("PATH", str(binary.parent))
    monkeypatch.setattr(embedded, "wheel_binary", lambda: None)
    assert find_etcd() == binary


def test_a_program_that_is_no_etcd_has_no_version(tmp_path):
    assert binary_version(fake_etcd(tmp_path / "odd", "unknown")) == ()
    assert binary_version(tmp_path / "absent") == ()


def test_data_and_endpoint_outlive_stop_and_kill(tmp_path):
    with EmbeddedEtcd(folder=tmp_path) as server:
        endpoint = server.endpoint
        with connect(endpoint) as kv:
            kv.txn([], [Put(b"a", b"kept")])
        for end in (server.stop, server.kill):
            end()
            server.start()
            assert server.endpoint == endpoint
            with connect(endpoint) as kv:
                assert kv.range(b"a").items[0].value == b"kept"


def test_a_stopped_process_can_be_stopped_for_good(tmp_path):
    with EmbeddedEtcd(folder=tmp_path) as server:
        pid = server.process.pid
        freeze(server.process)
        server.stop()
        assert not alive(pid)


def test_a_temporary_folder_is_removed_in_the_end():
    with EmbeddedEtcd() as server:
        folder = server.folder
        assert server.data_dir.is_dir()
    assert not folder.exists()


def test_a_port_that_another_took_first_is_given_up(tmp_path, monkeypatch):
    with socket.create_server((LOOPBACK, 0)) as taken:
        offers = [[taken.getsockname()[1], *free_ports(2)], free_ports(3)]
        monkeypatch.setattr(embedded, "free_ports", lambda count: offers.pop(0))
        with EmbeddedEtcd(folder=tmp_path) as server:
            assert offers == []
            assert not server.endpoint.endswith(f":{taken.getsockname()[1]}")


def test_a_server_that_does_not_start_is_reported_with_its_last_words(tmp_path):
    with (
        pytest.raises(StoreUnavailableError, match="no-such-option"),
        EmbeddedEtcd(folder=tmp_path, arguments=["--no-such-option"]),
    ):
        pass


def test_the_child_dies_with_its_parent(tmp_path):
    program = (
        "from pathlib import Path\n"
        "from configstore.embedded import EmbeddedEtcd\n"
        f"server = EmbeddedEtcd(folder=Path({str(tmp_path)!r}))\n"
        "server.start()\n"
        "print(server.process.pid, flush=True)\n"
        "import signal; signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        wait_until(lambda: not alive(pid))


def test_no_port_is_given_to_two_who_do_not_listen_yet(monkeypatch):
    first = embedded.free_ports(2)
    monkeypatch.setattr(embedded, "PORTS", [*first, *embedded.free_ports(1)])
    monkeypatch.setattr(embedded, "_given", set(first))
    assert not set(embedded.free_ports(1)) & set(first)
    with pytest.raises(OSError, match="no free port"):
        embedded.free_ports(1)
