"""A store that is sealed, and programs of 0.1.0: refused in words, and nothing is lost."""

import json
from functools import partial

import pytest

from configstore.cli import main, seal_keys, seal_rotate
from configstore.store.report_feed import ask_reports
from tests.harness.replica import ENVIRONMENT
from tests.harness.waiting import wait_until
from tests.upgrade.versions import QUICK, Command

FILES = {"edited": b"edited", "deleted": b"deleted", "kept": b"kept"}


@pytest.fixture
def sealing(etcd, kv_root, new, tmp_path):
    """Return today's command with a master, on the same root."""
    new("seal", "keygen", "--out", str(tmp_path / "keys"), "--subtree", "data")
    environment = {**ENVIRONMENT, "CONFIGSTORE_SEAL_KEYRING": str(tmp_path / "keys/master")}
    return Command(etcd.endpoint, kv_root, environment)


@pytest.fixture
def one(etcd, kv_root, new, make):
    """Return a replica of 0.1.0 whose files are in the store."""
    replica = make("one", etcd, kv_root, "0.1.0", QUICK).start().ready()
    for name, content in FILES.items():
        (replica.folder / name).write_bytes(content)
    wait_until(lambda: set(new("ls", "data").decode().split()) == FILES.keys(), what="its files are sent")
    return replica


def test_0_1_0_keeps_a_store_from_being_sealed_and_leaves_what_it_has_on_a_sealed_one(
    one, sealing, old, new, make, etcd, kv_root, monkeypatch, tmp_path, capfd
):
    monkeypatch.setattr(seal_rotate, "PATIENCE", 0)
    monkeypatch.setattr(seal_keys, "ask_reports", partial(ask_reports, patience=0.1))
    assert main([*new.words, "seal", "rotate", "--seal-keyring", str(tmp_path / "keys/master")]) == 5
    assert "data: one on" in (refused := capfd.readouterr().err)
    assert "does not have the key" in refused
    assert all(new("get", f"data/{name}") == content for name, content in FILES.items())
    sealing("seal", "rotate", "--anyway")
    before = records(new)
    words = "header version 2; this configstore reads 1: upgrade it"
    for verb, content in (("get", b""), ("put", b"of 0.1.0")):
        assert words in old.run(verb, "data/kept", content=content, code=1).stderr.decode()
    assert words in make("empty", etcd, kv_root, "0.1.0").command("init", "--timeout", "5s").stderr
    wait_until(lambda: all(f'"data/{name}","reason":"{words}"' in one.words() for name in FILES), what="its words")
    (one.folder / "edited").write_bytes(b"meanwhile")
    (one.folder / "deleted").unlink()
    (one.folder / "made").write_bytes(b"made")
    wait_until(lambda: "data/made" in records(new), what="what was made is sent, in plain")
    assert {path: record for path, record in records(new).items() if path != "data/made"} == before
    assert (one.folder / "kept").read_bytes() == b"kept"
    sealing("seal", "rotate", "--unseal")
    wait_until((one.folder / "deleted").exists, what="what was deleted is back")
    assert new("get", "data/deleted") == b"deleted"
    wait_until(lambda: new("get", "data/edited") == (one.folder / "edited").read_bytes(), what="one content")
    kept = [new("get", "data/edited"), *_losing_sides(new)]
    assert b"meanwhile" in kept


def records(command):
    """Return the records by path, all that is known of each."""
    return {row["path"]: row for row in json.loads(command("ls", "--json", "data"))}


def _losing_sides(command):
    rows = command("conflicts").decode().splitlines()[1:]
    return [command("conflicts", row.split()[-1], "--show", row.split()[0]) for row in rows]
