"""What hostile or broken records in the store do to a running sidecar: each is a problem, and nothing else."""

import json
import os
import stat

import pytest

from configstore.client import Sidecar
from configstore.model.record import sha256
from configstore.store.api import Put
from tests.harness.waiting import wait_until


def record(content=b"evil", **fields):
    """Return a record as it lies in the store, with header fields of one's own."""
    header = {
        "v": 1,
        "kind": "file",
        "mode": "0600",
        "size": len(content),
        "sha256": sha256(content),
        "write_id": "x",
    } | fields
    return json.dumps(header).encode() + b"\n" + content


def link(target):
    return record(b"", kind="symlink", target=target, size=0, sha256="", mode=None)


HOSTILE = {
    "a parent": (b"../outside", record()),
    "a parent in the middle": (b"a/../../outside", record()),
    "an empty component": (b"a//b", record()),
    "an absolute path": (b"/etc/evil", record()),
    "a trailing slash": (b"a/", record()),
    "a dot": (b"./a", record()),
    "a NUL": (b"a\0b", record()),
    "a newline": (b"a\nb", record()),
    "an escape": (b"\x1b[2Ja", record()),
    "no UTF-8": (b"\xff\xfe", record()),
    "a component that is too long": (b"x" * 300, record()),
    "a path that is too long": (b"x/" * 1500 + b"x", record()),
    "our own directory": (b".configstore/baseline", record()),
    "our own directory below": (b"a/.configstore/x", record()),
    "garbage": (b"garbage", b"\xff\x00garbage"),
    "no header": (b"empty", b""),
    "a header that is no object": (b"list", b"[1]\n"),
    "a later version": (b"later", record(v=2)),
    "an unknown kind": (b"device", record(kind="device")),
    "a negative owner": (b"owner", record(uid=-1)),
    "an owner that is too large": (b"nobody", record(uid=2**32 - 1)),
    "a wrong size": (b"size", record(size=5)),
    "a wrong digest": (b"digest", record(sha256="0" * 64)),
    "a missing chunk": (b"chunks", record(b"", size=600_000, sha256="1" * 64, chunks=["2" * 64, "3" * 64])),
    "a digest that is a path": (b"chunk", record(b"", size=600_000, sha256="1" * 64, chunks=["../../x", "y"])),
    "a link to an absolute path": (b"absolute", link("/etc/passwd")),
    "a link out of the root": (b"out", link("../../etc/passwd")),
    "a link out of the root from below": (b"deep/out", link("../../x")),
    "a link that is too long": (b"long", link("x" * 5000)),
}


SHOWN = {  # where the key itself cannot be printed or is cut
    "a NUL": "a\\x00b",
    "a newline": "a\\nb",
    "an escape": "[2Ja",
    "no UTF-8": "\\xff\\xfe",
    "a component that is too long": "x" * 60,
    "a path that is too long": "x/x/x",
    "an empty component": "a//b",
}


def below(folder):
    """Return all that lies below a folder, as paths."""
    return {os.path.join(where, name) for where, folders, files in os.walk(folder) for name in folders + files}


@pytest.fixture
def met(replica, configstore, kv, kv_root, tmp_path):
    """Return a running sidecar that has met all of HOSTILE, half of it at its start."""
    prefix = f"{kv_root}/files/data/".encode()
    cases = list(HOSTILE.values())
    before = below(tmp_path)
    for key, value in cases[::2]:
        kv.txn([], [Put(prefix + key, value)])
    one = replica("one").start()
    for key, value in cases[1::2]:
        kv.txn([], [Put(prefix + key, value)])
    configstore("put", "data/good/file", content=b"good")
    wait_until((one.folder / "good/file").exists, 20)
    wait_until(lambda: one.metric("problems") == len(HOSTILE), what=one.words())
    return one, below(tmp_path) - before - below(one.folder)


def test_each_hostile_record_is_a_problem_that_names_its_path_and_the_rest_goes_on(met):
    one, outside = met
    said = Sidecar(str(one.shared / "control.sock")).ask("GET", "/v1/status")
    named = [problem["path"] for problem in said["mappings"][0]["problems"]]
    for name, (key, _) in HOSTILE.items():
        shown = SHOWN.get(name, key.decode("utf-8", "replace").rstrip("/"))
        assert any(shown in path for path in named), f"{name}: {shown!r} is not in {named}"
    assert one.tree().keys() == {"good", "good/file"}
    assert one.ask("/readyz")[0] == 503, "a record that was never applied is missing, whatever it holds"
    state = {path for path in outside if "/one-state" in path}
    assert {os.path.basename(path) for path in outside - state} == {"one", "one.toml", "one.log"}
    assert {os.path.basename(path) for path in state if os.path.isfile(path)} == {"baseline", "intent"}


def test_hostile_records_hinder_neither_edits_nor_a_restart(met, configstore):
    one, _ = met
    (one.folder / "good/file").write_bytes(b"edited")
    wait_until(lambda: configstore("get", "data/good/file") == b"edited")
    one.end()
    done = one.command("init")
    assert done.returncode == 1
    assert "incomplete" in done.stderr
    one.start()
    (one.folder / "good/file").write_bytes(b"edited again")
    wait_until(lambda: configstore("get", "data/good/file") == b"edited again", 20)


def test_a_record_that_becomes_unreadable_leaves_a_ready_sidecar_degraded(replica, configstore, kv, kv_root):
    configstore("put", "data/file", content=b"good")
    one = replica("one").start().ready()
    kv.txn([], [Put(f"{kv_root}/files/data/file".encode(), b"no record")])
    wait_until(lambda: one.metric("degraded") == 1)
    status, words = one.ask("/readyz")
    assert (status, one.metric("complete")) == (200, 0)
    assert "degraded" in words
    assert (one.folder / "file").read_bytes() == b"good"


def test_setuid_setgid_and_sticky_bits_never_travel(replica, kv, kv_root):
    kv.txn([], [Put(f"{kv_root}/files/data/tool".encode(), record(mode="07755"))])
    one = replica("one").start()
    wait_until((one.folder / "tool").exists)
    assert stat.S_IMODE((one.folder / "tool").stat().st_mode) == 0o755


def test_a_file_in_the_store_where_a_directory_must_be_hides_nothing(replica, configstore, kv, kv_root):
    one = replica("one").start().ready()
    (one.folder / "d").mkdir()
    (one.folder / "d/child").write_bytes(b"precious")
    wait_until(lambda: kv.range(f"{kv_root}/files/data/d/child".encode()).items)
    kv.txn([], [Put(f"{kv_root}/files/data/d".encode(), record(b"a file"))])
    wait_until(lambda: one.metric("pending") == 0 and one.metric("cycles_total") > 3)
    assert (one.folder / "d/child").read_bytes() == b"precious"
    assert configstore("get", "data/d/child") == b"precious"
