"""A store and replicas as 0.1.0 left them, and today's command and sidecar."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from configstore.embedded import free_ports
from configstore.model.keys import Keys
from configstore.model.replica import decode_request
from configstore.model.untrusted import UntrustedError
from configstore.store.replicas import everyone
from configstore.store.store import Store
from tests.harness import zygote
from tests.harness.replica import ENVIRONMENT
from tests.harness.servers import connect
from tests.harness.trees import look
from tests.harness.waiting import wait_until
from tests.upgrade.kept import FINAL, GONE, LARGE, LOST, ROOT, STORE, VERSIONS, replicas_of_old
from tests.upgrade.versions import QUICK, Command, owner


def today(server):
    return Command(server.endpoint, ROOT, ENVIRONMENT)


def records(command):
    """Return the revision of each record of the subtree, by path, tombstones left out."""
    rows = json.loads(command("ls", "-R", "--json", "data"))
    return {row["path"].removeprefix("data/"): row["revision"] for row in rows}


def check_tree(folder, changed=()):
    """Fail when something but `changed` is not as 0.1.0 left it: kind, mode, owner, content."""
    for name, (kind, mode, who, content) in FINAL.items():
        if name in changed:
            continue
        path = folder / name
        found = look(path)
        assert found, f"{name} is gone"
        assert (found[0], found[1], owner(path)) == (kind, mode, who), name
        if kind == "file":
            assert path.read_bytes() == content, name
        elif kind == "symlink":
            assert os.readlink(path) == content.decode()
    assert not any((folder / name).exists() for name in GONE if name not in changed)


def test_every_path_reads_back_with_mode_and_owner(old_store, tmp_path):
    command = today(old_store)
    command("export", "data", str(tmp_path / "out"))
    check_tree(tmp_path / "out")
    assert records(command).keys() == FINAL.keys()
    assert command("get", "data/binary") == FINAL["binary"][3]
    assert all(command.run("get", f"data/{name}", code=1).stdout == b"" for name in GONE)


def test_every_version_of_the_past_reads_back(old_store):
    command = today(old_store)
    found = json.loads(command("history", "data/app.ini", "--json"))
    contents = [command("get", "data/app.ini", "--revision", str(each["revision"])) for each in found]
    assert contents == list(reversed(VERSIONS))
    before = json.loads(command("history", "data/long/large", "--json"))[-1]
    assert command("get", "data/long/large", "--revision", str(before["revision"])) == LARGE
    assert [each["kind"] for each in json.loads(command("history", "data/removed", "--json"))] == ["gone", "file"]


def test_the_losing_side_of_a_conflict_can_be_looked_at(old_store):
    command = today(old_store)
    (loser,) = json.loads(command("conflicts", "--json"))
    assert loser["path"] == "data/disputed"
    assert command("conflicts", "data/disputed", "--show", loser["id"]) == LOST


def test_what_0_1_0_says_of_itself_is_understood(old_store):
    command = today(old_store)
    (lease,) = json.loads(command("leases", "--json"))
    assert (lease["lease"], lease["holder"]["replica"], lease["begun"][:10]) == (
        "letsencrypt",
        "cli",
        "sh, begun ",
    )
    with connect(old_store.endpoint) as kv:
        found = everyone(Store(kv, Keys(ROOT)))
    assert [report.replica for report, _ in found.live.values()] == ["one", "two"]
    assert not found.unread
    assert "plain: 19" in command.run("seal", "status").stderr.decode()


def test_versions_and_losing_sides_of_0_1_0_come_back(own_old_store):
    command = today(own_old_store)
    first = json.loads(command("history", "data/app.ini", "--json"))[-1]["revision"]
    command("restore", "data/app.ini", "--revision", str(first))
    assert command("get", "data/app.ini") == VERSIONS[0]
    deleted = json.loads(command("history", "data/removed", "--json"))[-1]["revision"]
    command("restore", "data/removed", "--revision", str(deleted))
    assert command("get", "data/removed") == b"soon gone\n"
    (loser,) = json.loads(command("conflicts", "--json"))
    command("resolve", "data/disputed", "--take", loser["id"])
    assert command("get", "data/disputed") == LOST
    assert json.loads(command("conflicts", "--json")) == []


def test_what_0_1_0_asks_is_no_request_of_today():
    lines = [json.loads(line) for line in STORE.read_text().splitlines()]
    asked = [
        value for line in lines for key, value, _ in line.get("put", ()) if key.startswith(f"{ROOT}/requests/")
    ]
    assert {json.loads(value)["verb"] for value in asked} == {"flush", "report"}
    for value in asked:
        with pytest.raises(UntrustedError):
            decode_request(value.encode())


def resumed(server, make, tmp_path, prepare):
    """Start today's sidecars where 0.1.0's were killed; `prepare` does what happened meanwhile."""
    one, two = make("one", server, ROOT, "", QUICK), make("two", server, ROOT, "", QUICK)
    replicas_of_old(tmp_path)
    prepare(one, two)
    one.start()
    two.start()
    one.ready()
    two.ready()
    wait_until(lambda: one.tree() == two.tree(), what="equal trees")
    return one, two


def change(one, _two=None):
    """Do what an application does while no sidecar runs."""
    (one.folder / "disputed").write_bytes(b"edited meanwhile")
    (one.folder / "made").write_bytes(b"made meanwhile")
    (one.folder / "run.sh").unlink()


def test_a_replica_goes_on_where_0_1_0_left_it(own_old_store, make, tmp_path):
    command = today(own_old_store)
    before = records(command)
    one, two = resumed(own_old_store, make, tmp_path, change)
    wait_until(lambda: "run.sh" not in records(command), what="the delete is sent")
    wait_until(lambda: one.tree() == two.tree(), what="equal trees")
    after = records(command)
    check_tree(two.folder, changed={"disputed", "run.sh"})
    assert command("get", "data/disputed") == (two.folder / "disputed").read_bytes() == b"edited meanwhile"
    assert command("get", "data/made") == b"made meanwhile"
    assert {path for path in before | after if before.get(path) != after.get(path)} == {
        "disputed",
        "made",
        "run.sh",
    }
    assert len(json.loads(command("conflicts", "--json"))) == 1  # that of before
    assert not (one.private / "baseline").exists()
    assert list(one.state.glob("*/baseline"))


def open_to_others(one, two):
    change(one)
    one.private.chmod(0o755)
    two.private.chmod(0o755)


def given_to_the_application(one, two):
    change(one)
    os.chown(one.private, 4321, 4321)
    os.chown(two.private, 4321, 4321)


@pytest.mark.parametrize("reach", [open_to_others, given_to_the_application])
def test_what_another_could_have_written_counts_for_nothing_and_nothing_is_lost(
    own_old_store, make, tmp_path, reach
):
    command = today(own_old_store)
    before = records(command)
    one, two = resumed(own_old_store, make, tmp_path, reach)
    wait_until((two.folder / "made").exists, what="what was made is sent")
    wait_until((one.folder / "removed-later").exists, what="what was deleted in the store comes back")
    check_tree(one.folder, changed={"removed-later"})
    check_tree(two.folder, changed={"removed-later"})
    new = {"made", "removed-later"}
    assert {path: at for path, at in records(command).items() if path not in new} == before
    losers = json.loads(command("conflicts", "--json"))
    kept = {command("conflicts", each["path"], "--show", each["id"]) for each in losers}
    assert {LOST, b"edited meanwhile"} <= kept


def test_a_set_in_whose_middle_0_1_0_was_killed_is_finished_without_etcd(new, etcd, kv_root, make, tmp_path):
    strace = shutil.which("strace")
    assert strace, "strace is not installed: apt-get install strace"
    one = make("one", etcd, kv_root, "0.1.0")
    for number in b"1", b"2":
        pair = tmp_path / f"pair {number.decode()}"
        pair.mkdir()
        for name in ("cert", "key"):
            (pair / name).write_bytes(number)
        new("import", str(pair), "data")
        if number == b"1":
            assert one.command("init").returncode == 0
    kill = ["-e", "trace=renameat2", "-e", "inject=renameat2:signal=KILL:when=2"]
    command = [strace, "-f", "-qq", "-o", "/dev/null", *kill]
    command += [sys.executable, "-m", "sidecar", "init", "--config", str(one.settings)]
    assert subprocess.run(command, env=one.environment, capture_output=True, check=False).returncode != 0
    assert (one.private / "intent").stat().st_size, "it was killed in the middle"
    one.run_by("")
    away = one.settings.read_text().replace(etcd.endpoint, f"http://127.0.0.1:{free_ports(1)[0]}")
    (tmp_path / "away.toml").write_text(away.replace('timeout = "3s"', 'timeout = "50ms"'))
    words = ["init", "--config", str(tmp_path / "away.toml"), "--timeout", "0s"]
    assert zygote.run_text("sidecar", words, ENVIRONMENT).returncode == 4
    assert (one.folder / "cert").read_bytes() == (one.folder / "key").read_bytes()
    assert one.command("init").returncode == 0
    assert (one.folder / "cert").read_bytes() == (one.folder / "key").read_bytes() == b"2"
