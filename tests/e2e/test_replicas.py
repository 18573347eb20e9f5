"""`replicas`, `status`, `resume` and `resolve` against running sidecars."""

import json
import signal

import pytest

from configstore.model.keys import Keys
from configstore.store.api import Delete, Exists
from tests.e2e.conftest import equal
from tests.harness.servers import run_etcdctl
from tests.harness.waiting import freeze, wait_until


@pytest.fixture
def listed(pair, configstore):
    """Return a function that returns the replicas that are listed, by id, once both of the pair are."""

    def found():
        return {each["replica"]: each for each in json.loads(configstore("replicas", "--json"))}

    wait_until(lambda: found().keys() == {"one", "two"})  # a sidecar may be ready before its first report is there
    return found


def test_live_replicas_are_listed_with_what_they_applied(pair, configstore, listed, kv, kv_root):
    one, two = pair
    (one.folder / "a").write_bytes(b"x")
    wait_until((two.folder / "a").exists)
    at = kv.range(Keys(kv_root).file("data/a")).items[0].mod_revision
    wait_until(lambda: all(listed()[name]["revision"] >= at for name in ("one", "two")))
    found = listed()["two"]
    assert {"state": "ready", "paths": 1, "problem_count": 0, "answers": True}.items() <= found.items()
    wait_until(lambda: b"2 of 2" in configstore("status"))
    configstore("status", code=0)
    two.end(signal.SIGTERM)
    assert listed().keys() == {"one"}


def test_a_frozen_replica_is_shown_as_one_that_does_not_answer(pair, configstore, listed):
    freeze(pair[1].process)
    found = listed()
    assert (found["one"]["answers"], found["two"]["answers"]) == (True, False)
    assert b"two@" in configstore("status")
    assert b"no answer" in configstore("status", code=1)
    pair[1].process.send_signal(signal.SIGCONT)
    wait_until(lambda: listed()["two"]["answers"])


def test_a_replica_lives_on_when_its_session_was_ended_by_others(pair, etcd, listed, kv, kv_root):
    assert len(listed()) == 2
    key = Keys(kv_root).replica("data", "one")
    lease = kv.range(key).items[0].lease
    kv.lease_revoke(lease)
    assert not kv.range(key).items
    freeze(pair[0].process)
    pair[0].process.send_signal(signal.SIGCONT)
    (pair[0].folder / "out").symlink_to("/etc/passwd")  # a problem is news
    wait_until(lambda: listed().keys() == {"one", "two"}, 30)


def test_status_names_problems_and_a_halt_and_resume_ends_it(pair, configstore):
    one, two = pair
    for number in range(40):
        (one.folder / str(number)).write_bytes(b"x")
    wait_until(lambda: len(equal(one, two)) == 40)
    (one.folder / "out").symlink_to("/etc/passwd")
    for number in range(30):
        (one.folder / str(number)).unlink()
    wait_until(lambda: one.metric("halted") == 1)
    shown = wait_until(lambda: (text := configstore("status").decode()) and "refused" in text and text)
    assert "1 of 2" in shown
    assert "configstore resume data --take store" in shown
    configstore("resume", "data", "--take", "store")
    wait_until(lambda: len(one.tree()) == 41)
    assert len(two.tree()) == 40
    assert one.metric("halted") == 0
    assert "out: a symlink with an absolute target" in configstore("status", code=1).decode()
    for number in range(30):
        (one.folder / str(number)).unlink()
    wait_until(lambda: one.metric("halted") == 1)
    wait_until(lambda: b"refused" in configstore("status"))
    configstore("resume", "data", "--take", "local", "--replica", "one")
    wait_until(lambda: len(two.tree()) == 10)
    assert "halted" not in two.words(), "what a person confirmed once was asked again"
    configstore("resume", "data", "--take", "local", code=1)
    configstore("resume", "nothing", "--take", "local", code=1)


def test_a_flush_that_a_guard_refuses_says_so_as_a_refusal(pair, configstore):
    one, two = pair
    for number in range(40):
        (one.folder / str(number)).write_bytes(b"x")
    wait_until(lambda: len(equal(one, two)) == 40)
    for number in range(40):
        (one.folder / str(number)).unlink()
    wait_until(lambda: one.metric("halted") == 1)
    client = one.client("flush", "data", "--timeout", "1s")
    assert "configstore resume data" in client.communicate()[1]
    assert client.returncode == 5
    control = str(one.shared / "control.sock")
    configstore("flush", "data", "--socket", control, "--patience", "1s", code=5)
    configstore("flush", "data", "--socket", "", "--patience", "1s", code=5)
    configstore("resume", "data", "--take", "store")
    configstore("flush", "data", "--socket", "")


def test_a_vanished_record_is_written_again_or_deleted_by_choice(pair, configstore, kv, kv_root):
    one, two = pair
    for name in ("a", "b"):
        (one.folder / name).write_bytes(name.encode())
    wait_until(lambda: len(equal(one, two)) == 2)
    for name in ("a", "b"):
        key = Keys(kv_root).file(f"data/{name}")
        kv.txn((Exists(key),), (Delete(key),))
    wait_until(lambda: one.metric("problems") == two.metric("problems") == 2)
    wait_until(lambda: b"data/a, data/b: its record vanished" in configstore("status"))
    configstore("resolve", "data/a", "--take", "local")
    assert configstore("get", "data/a") == b"a"
    configstore("resolve", "data/b", "--take", "store")
    wait_until(lambda: one.tree().keys() == two.tree().keys() == {"a"})
    wait_until(lambda: one.metric("problems") == two.metric("problems") == 0)
    configstore("resolve", "data/never", "--take", "store", code=1)


def test_a_garbled_request_harms_nobody(pair, etcd, configstore, kv_root):
    run_etcdctl(etcd.endpoint, "put", f"{kv_root}/requests/x", '{"verb": ["resume"], "take": 7')
    run_etcdctl(etcd.endpoint, "put", f"{kv_root}/replicas/data/x", "no json")
    wait_until(lambda: all("unreadable request" in each.words() for each in pair))
    assert b"2 of 2" in configstore("status")


def test_without_a_sidecar_there_is_nothing_but_the_store(configstore):
    assert b"no live replica" in configstore("status")
    assert json.loads(configstore("replicas", "--json")) == []
    configstore("resume", "data", "--take", "store", code=1)
    configstore("resume", "data", code=2)
