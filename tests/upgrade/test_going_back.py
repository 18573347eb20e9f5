"""From today's version back to 0.1.0, and forward again."""

import json

import pytest

from tests.harness.trees import look
from tests.harness.waiting import wait_until
from tests.upgrade.kept import BINARY, LARGE
from tests.upgrade.versions import QUICK


@pytest.fixture
def one(etcd, kv_root, new, make):
    """Return a replica of today, all of whose files are in the store."""
    replica = make("one", etcd, kv_root, "", QUICK).start().ready()
    (replica.folder / "d").mkdir(mode=0o750)
    for name, content in {"a": b"a", "b": b"b", "c": b"c", "d/e": b"e", "large": LARGE, "binary": BINARY}.items():
        (replica.folder / name).write_bytes(content)
    (replica.folder / "d" / "link").symlink_to("../a")
    (replica.folder / "gone").write_bytes(b"gone")
    wait_until(lambda: len(paths(new)) == 9, what="all is sent")
    new("rm", "data/gone")
    wait_until(lambda: not (replica.folder / "gone").exists(), what="the delete is here")
    new("flush", "data")
    wait_until(replica.has_agreed, what="agreement")
    return replica


def paths(command):
    """Return the revision of each record by path."""
    return {row["path"]: row["revision"] for row in json.loads(command("ls", "-R", "--json", "data"))}


def contents(replica):
    """Return what is in the files of a replica."""
    return {
        name: (replica.folder / name).read_bytes() for name, found in replica.tree().items() if found[0] == "file"
    }


def test_0_1_0_reads_what_today_wrote(one, new, old, tmp_path):
    new("put", "data/a", content=b"a, changed")
    old("export", "data", str(tmp_path / "out"))
    wait_until(lambda: (one.folder / "a").read_bytes() == b"a, changed", what="the change is here")
    assert {name: look(tmp_path / "out" / name) for name in one.tree()} == one.tree()
    assert old("get", "data/large") == LARGE
    revisions = [each["revision"] for each in json.loads(new("history", "data/a", "--json"))]
    assert old("get", "data/a", "--revision", str(revisions[-1])) == b"a"
    assert old.run("get", "data/gone", code=1).stdout == b""


def test_what_is_flushed_stays_as_it_is(one, new, make):
    before, files = paths(new), one.tree()
    assert one.end() == 0
    one.run_by("0.1.0").start().ready()
    new("put", "data/z", content=b"z")
    wait_until((one.folder / "z").exists, what="it mirrors")
    assert {path: at for path, at in paths(new).items() if path != "data/z"} == before
    assert {path: found for path, found in one.tree().items() if path != "z"} == files
    assert new("conflicts") == b""


def test_without_a_flush_nothing_is_deleted_and_what_loses_is_kept(one, new):
    one.end()
    (one.folder / "a").write_bytes(b"edited meanwhile")
    (one.folder / "b").unlink()
    (one.folder / "made").write_bytes(b"made meanwhile")
    new("rm", "data/c")
    one.run_by("0.1.0").start().ready()
    wait_until(lambda: {"data/made", "data/c"} <= paths(new).keys(), what="what was made here is sent")
    here = contents(one)
    assert (here["a"], here["b"], here["c"], here["made"]) == (b"a", b"b", b"c", b"made meanwhile")
    (loser,) = json.loads(new("conflicts", "--json"))
    assert new("conflicts", "data/a", "--show", loser["id"]) == b"edited meanwhile"


def test_forward_again_is_an_upgrade_again(one, new):
    one.end()
    one.run_by("0.1.0").start().ready()
    (one.folder / "a").write_bytes(b"written beside 0.1.0")
    (one.folder / "b").unlink()
    wait_until(lambda: "data/b" not in paths(new), what="the delete is sent")
    wait_until(lambda: new("get", "data/a") == b"written beside 0.1.0", what="the edit is sent")
    one.end()
    (one.folder / "d" / "e").write_bytes(b"edited meanwhile")
    (one.folder / "binary").unlink()
    one.run_by("").start().ready()
    wait_until(lambda: "data/binary" not in paths(new), what="what was deleted meanwhile is deleted")
    assert new("get", "data/d/e") == b"edited meanwhile"
    assert contents(one) == {"a": b"written beside 0.1.0", "c": b"c", "d/e": b"edited meanwhile", "large": LARGE}
    assert new("conflicts") == b""
