"""0.1.0 and today's version at work on one store: sidecars, commands, leases, the drop-in client."""

import json
import signal
import subprocess
import sys
from functools import partial

import pytest

from configstore.model.keys import Keys
from configstore.store.api import Delete, Exists
from configstore.store.replicas import everyone
from configstore.store.store import Store
from tests.harness.waiting import wait_until
from tests.upgrade.kept import LARGE, LARGER
from tests.upgrade.versions import QUICK


@pytest.fixture
def both(etcd, kv_root, new, make):
    """Return a replica of 0.1.0 and one of today, ready."""
    replicas = make("one", etcd, kv_root, "0.1.0", QUICK).start(), make("two", etcd, kv_root, "", QUICK).start()
    return tuple(each.ready() for each in replicas)


def equal(one, two, what):
    """Wait until both hold the same, without a conflict, and `what` is so."""
    wait_until(lambda: what() and one.tree() == two.tree(), what=lambda: f"{one.tree()} is {two.tree()}")


def work(folder, said):
    """Do of everything that an application does, in two steps; yields what is to be so everywhere after each."""
    (folder / "d").mkdir()
    (folder / "d" / "edited").write_bytes(b"1")
    (folder / "d" / "deleted").write_bytes(said)
    (folder / "d" / "moved").write_bytes(said + b" moves")
    (folder / "large").write_bytes(LARGE)
    (folder / "link").symlink_to("d/edited")
    yield (
        lambda other: (other / "link").is_symlink() and (other / "large").exists() and (other / "d/moved").exists()
    )
    (folder / "d" / "edited").write_bytes(said)
    (folder / "d" / "edited").chmod(0o640)
    (folder / "d" / "deleted").unlink()
    (folder / "d" / "moved").rename(folder / "moved")
    (folder / "large").write_bytes(LARGER)
    (folder / "link").unlink()
    yield lambda other: (other / "moved").exists() and not (other / "link").is_symlink()
    (folder / "d" / "edited").unlink()
    (folder / "d").rmdir()
    yield lambda other: not (other / "d").exists()


def test_what_one_version_changes_the_other_has(both, new):
    for here, there in (both, reversed(both)):
        folder = here.folder / f"of {here.name}"
        folder.mkdir()
        for done in work(folder, here.name.encode()):
            equal(here, there, partial(done, there.folder / folder.name))
        assert {path.name for path in (there.folder / folder.name).iterdir()} == {"large", "moved"}
        assert (there.folder / folder.name / "moved").read_bytes() == f"{here.name} moves".encode()
        assert (there.folder / folder.name / "large").read_bytes() == LARGER
    assert new("conflicts") == b""


def test_a_conflict_between_versions_keeps_the_losing_side(both, new):
    one, two = both
    for frozen, other in ((one, two), (two, one)):
        name = frozen.name
        (other.folder / name).write_bytes(b"before")
        equal(one, two, (two.folder / name).exists)
        frozen.process.send_signal(signal.SIGSTOP)
        (other.folder / name).write_bytes(b"wins")
        wait_until(lambda name=name: new("get", f"data/{name}") == b"wins", what="the winner")
        (frozen.folder / name).write_bytes(b"loses")
        frozen.process.send_signal(signal.SIGCONT)
        equal(one, two, lambda frozen=frozen, name=name: (frozen.folder / name).read_bytes() == b"wins")
    assert [each["path"] for each in json.loads(new("conflicts", "--json"))] == ["data/one", "data/two"]


def test_a_tombstone_of_today_may_expire_beside_a_replica_of_0_1_0(both, kv, kv_root):
    one, two = both
    (one.folder / "a").write_bytes(b"a")
    equal(one, two, (two.folder / "a").exists)
    (two.folder / "a").unlink()
    equal(one, two, lambda: not (one.folder / "a").exists())
    key = Keys(kv_root).file("data/a")
    assert kv.range(key).items[0].lease, "it has an end"
    kv.txn((Exists(key),), (Delete(key),))  # as its etcd lease does after 30 days
    (two.folder / "b").write_bytes(b"b")
    equal(one, two, (one.folder / "b").exists)
    assert [each.ask("/readyz") for each in both] == [(200, "data: ok: ready\n")] * 2
    (one.folder / "a").write_bytes(b"a again")
    equal(one, two, (two.folder / "a").exists)


def test_each_version_is_seen_by_the_other(both, new, old, kv, kv_root):
    key = Keys(kv_root).replica("data", "one")
    wait_until(
        lambda: everyone(Store(kv, Keys(kv_root))).live[key][0].ready, what="its report, which it makes unasked"
    )
    shown = new("status", code=1).decode()
    assert "data: one@" in shown
    assert "no answer; it was ready" in shown
    assert "replace its image to finish the upgrade" in shown
    assert "two@" not in shown
    assert "2 live and ready" in new("doctor", code=None).decode()
    figures = [
        {line.split("{")[0].split()[0] for line in each.ask("/metrics")[1].splitlines() if line[:1] != "#"}
        for each in both
    ]
    assert figures[0]
    assert figures[0] <= figures[1], "every figure of 0.1.0 is there today"
    shown = old("status").decode()
    assert "two@" in shown
    assert "does not answer; it was ready" in shown
    assert "one@" not in shown


def test_holders_of_both_versions_exclude_each_other(etcd, kv_root, new, make, tmp_path):
    lease = 'lease = "certbot"'
    one = make("one", etcd, kv_root, "0.1.0", lease).start()
    two = make("two", etcd, kv_root, "", lease).start()
    for holder, waiter in ((one.ready(), two.ready()), (two, one)):
        go = tmp_path / f"{holder.name} may go on"
        script = (
            f'echo held; while [ ! -e "{go}" ]; do sleep 0.05; done; echo {holder.name} > {holder.folder}/file'
        )
        with holder.client("hold", "certbot", "--", "sh", "-c", script) as first:
            assert first.stdout.readline() == "held\n"
            script = f"cat {waiter.folder}/file; echo {waiter.name} >> {waiter.folder}/file"
            with waiter.client("hold", "certbot", "--", "sh", "-c", script) as second:
                assert f"waiting for {holder.name} on" in second.stderr.readline()
                go.touch()
                assert first.wait(60) == 0
                assert (second.communicate(timeout=60)[0], second.returncode) == (f"{holder.name}\n", 0)
        assert new("get", "data/file").decode().split() == [holder.name, waiter.name]


def test_the_drop_in_client_of_0_1_0_works_with_todays_sidecar(
    etcd, kv_root, new, make, tmp_path, old_environment
):
    two = make("two", etcd, kv_root, "", 'lease = "certbot"').start().ready()
    program = [sys.executable, f"{old_environment['PYTHONPATH']}/configstore/client.py"]
    program += ["--socket", f"{two.shared}/control.sock"]
    seen = tmp_path / "seen"
    command = [
        *program,
        "on-change",
        "data",
        "--",
        "sh",
        "-c",
        f"cat {two.folder}/file > {seen}.new; mv {seen}.new {seen}",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as following:
        for verb in ("status",), ("flush", "data"), ("wait", "data"):
            assert subprocess.run([*program, *verb], capture_output=True, check=False).returncode == 0, verb
        script = f"echo held > {two.folder}/file"
        assert subprocess.run([*program, "hold", "certbot", "--", "sh", "-c", script], check=False).returncode == 0
        assert new("get", "data/file") == b"held\n"
        assert (
            subprocess.run([*program, "hold", "certbot", "--", "sh", "-c", "exit 7"], check=False).returncode == 7
        )
        two.end()
        two.start().ready()
        new("put", "data/file", content=b"after an upgrade")
        wait_until(lambda: seen.exists() and seen.read_bytes() == b"after an upgrade", what="it was called")
        following.terminate()
