"""`watch` and `dev`: commands that run until stopped."""

import json
import signal
import subprocess

import pytest

from configstore.store.api import Delete, ModRevision
from tests.harness.servers import connect


@pytest.fixture
def watch(start):
    """Return a function that starts a watch and returns it when it sees every change from now on."""

    def watch(*words):
        process = start("watch", *words)
        assert process.stderr.readline().startswith(b"configstore: watching")
        return process

    return watch


def test_each_change_is_one_line_at_once(watch, run):
    process = watch()
    run("put", "a/b", "--mode", "0640", stdin=b"xyz")
    assert process.stdout.readline().split()[1:] == [b"file", b"0640", b"3", b"a/b"]
    run("mkdir", "d")
    assert process.stdout.readline().split()[1:] == [b"dir", b"0755", b"-", b"d"]
    run("rm", "a/b")
    assert process.stdout.readline().split()[1:] == [b"gone", b"-", b"-", b"a/b"]


def test_json_is_one_object_a_line(watch, run):
    process = watch("--json")
    run("put", "a", stdin=b"1")
    found = json.loads(process.stdout.readline())
    assert found == run("stat", "a", "--json").json()


def test_only_what_lies_below_the_path_is_shown(watch, run):
    process = watch("certs")
    for path in ("certs-old", "certs.pem", "cert", "certs/a"):
        run("put", path, stdin=b"x")
    assert process.stdout.readline().endswith(b" certs/a\n")


def test_a_raw_delete_shows_as_vanished(watch, run, tree):
    run("put", "a", stdin=b"1")
    process = watch()
    key = tree.keys.file("a")
    tree.kv.txn([ModRevision(key, tree.read("a").mod_revision)], [Delete(key)])
    assert process.stdout.readline().split()[1:] == [b"vanished", b"-", b"-", b"a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_0_and_no_words(watch, number):
    process = watch()
    process.send_signal(number)
    assert process.wait(90) == 0
    assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dev_runs_an_etcd_until_stopped(start, number, tmp_path):
    process = start("dev", "--data", str(tmp_path / "kept"))
    printed = b"".join(process.stdout.readline() for _ in range(3))
    shell = ["sh", "-c", f"{printed.decode()}\necho $CONFIGSTORE_ENDPOINTS $ETCDCTL_ENDPOINTS $ETCDCTL_API"]
    url, same, version = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.split()
    assert (same, version) == (url, "3")
    with connect(url) as kv:
        assert kv.status().revision == 1
    process.send_signal(number)
    assert process.wait(90) == 0
    assert (tmp_path / "kept" / "data").is_dir()


def test_dev_says_when_its_etcd_ended(start, tmp_path):
    process = start("dev", "--data", "/proc/nowhere")
    assert process.wait(90) in {1, 4, 5}
    assert b"Traceback" not in process.stderr.read()
