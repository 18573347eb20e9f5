"""`history`, `diff`, `restore`: what a path was, and bringing it back, with etcd compacted or not."""

import pytest

from configstore.store.api import CreateRevision, Put
from configstore.store.retention import PRUNE_EVERY
from configstore.store.tree import Tree
from tests.harness import named
from tests.harness.named import GONE, a_dir, a_file, a_link, a_tree

MONTH = 30 * 86400
LARGE = bytes(range(256)) * 1000


@pytest.fixture
def put(run, tree):
    """Return a function that puts a file and returns its revision."""

    def put(path, content, *options):
        assert run("put", path, "-", *options, stdin=content).code == 0
        return tree.read(path).mod_revision

    return put


def forget_past_of_etcd(tree):
    tree.kv.compact(tree.kv.status().revision)


def test_history_lists_the_newest_first_and_marks_the_current(run, put):
    one, two = put("a", b"1"), put("a", b"22")
    header, *lines = run("history", "a").out.decode().splitlines()
    assert header.split() == ["KIND", "MODE", "OWNER", "SIZE", "REVISION", "CHANGED", "BY", "STATE"]
    assert lines[0].endswith("Z (now)  cli@" + lines[0].split("@")[-1])
    assert [(str(two) in lines[0], "current" in lines[0]), (str(one) in lines[1], "current" in lines[1])] == [
        (True, True),
        (True, False),
    ]
    rows = run("history", "a", "--json").json()
    assert [(row["revision"], row["size"], row["current"]) for row in rows] == [(two, 2, True), (one, 1, False)]


def test_a_delete_and_its_return_are_in_the_history(run, put):
    put("a", b"1")
    assert run("rm", "a").code == 0
    assert [row["kind"] for row in run("history", "a", "--json").json()] == ["gone", "file"]
    put("a", b"2")
    assert [row["kind"] for row in run("history", "a", "--json").json()] == ["file", "gone", "file"]


def test_of_what_was_never_there_nothing_is_known(run):
    for words in (["history", "a"], ["diff", "a"], ["restore", "a", "--revision", "1"]):
        done = run(*words)
        assert (done.code, "a: was never there" in done.err) == (1, True)


def test_a_directory_may_be_written_with_a_slash(run, put):
    put("d/a", b"1")
    assert run("mkdir", "d").code == 0
    assert run("history", "d/").out == run("history", "d").out != b""
    assert run("diff", "d/").err == run("diff", "d").err
    done = run("get", "d/")
    assert (done.code, "d: is a directory" in done.err) == (1, True)
    for words in (("get", "/"), ("history", "/"), ("diff", "/")):
        done = run(*words)
        assert (done.code, "whole tree" in done.err) == (1, True)


def test_diff_shows_lines_and_metadata_and_says_whether_they_differ(run, put):
    put("a", b"one\ntwo\n")
    put("a", b"one\nthree\n", "--mode", "0640")
    done = run("diff", "a")
    assert done.code == 1
    assert {"-two", "+three", "-mode: 0600", "+mode: 0640"} <= set(done.out.decode().splitlines())


def test_diff_of_equal_records_is_empty(run, put):
    revision = put("a", b"same")
    done = run("diff", "a", str(revision))
    assert (done.code, done.out) == (0, b"")


def test_diff_shows_no_bytes_of_binary_content(run, put):
    put("a", LARGE)
    put("a", LARGE + b"\xff")
    out = run("diff", "a").out
    assert b"binary, 256001 bytes" in out
    assert b"\xff" not in out


@pytest.mark.parametrize("content", [b"old", b"", LARGE], ids=["small", "empty", "in chunks"])
def test_a_file_comes_back_after_etcd_forgot_it(run, put, tree, content):
    first = put("a", content, "--mode", "0640")
    put("a", b"new", "--mode", "0600")
    assert run("rm", "a").code == 0
    forget_past_of_etcd(tree)
    done = run("restore", "a", "--revision", str(first))
    assert (done.code, f"restored as of revision {first}" in done.err) == (0, True)
    found = tree.read("a")
    assert (found.entry.mode, tree.content(found)) == (0o640, content)
    assert [row["kind"] for row in run("history", "a", "--json").json()] == ["file", "gone", "file", "file"]


def test_what_is_the_same_still_is_not_written_again(run, put, tree):
    revision = put("a", b"1")
    done = run("restore", "a", "--revision", str(revision))
    assert (done.code, "nothing to do" in done.err) == (0, True)
    assert tree.read("a").mod_revision == revision


def test_a_directory_comes_back_as_it_was(run, put, tree):
    assert run("mkdir", "d").code == 0
    put("d/a", b"a")
    put("d/gone", b"was deleted")
    then = put("d/b/c", b"c")
    put("d/a", b"changed")
    assert run("rm", "d/gone").code == 0
    put("d/new", b"made later")
    put("beside", b"not touched")
    forget_past_of_etcd(tree)
    done = run("restore", "d", "-r", "--revision", str(then))
    assert done.code == 0, done.err
    living = {path: found for path, found in tree.list("d").records.items() if not found.gone}
    assert {path: found.record.content for path, found in living.items()} == {
        "d": None,
        "d/a": b"a",
        "d/gone": b"was deleted",
        "d/b/c": b"c",
    }
    assert "d/new: was deleted" in done.err
    assert tree.read("beside").record.content == b"not touched"


def test_a_dry_run_changes_nothing(run, put, tree):
    first = put("d/a", b"1")
    put("d/a", b"2")
    put("d/b", b"2")
    revision = tree.kv.status().revision
    done = run("restore", "d", "-r", "-n", "--revision", str(first))
    assert (done.code, "d/a: would be restored" in done.err, "d/b: would be deleted" in done.err) == (
        0,
        True,
        True,
    )
    assert tree.kv.status().revision == revision


def test_a_directory_is_restored_only_when_asked_for_all_of_it(run, put):
    assert run("mkdir", "d").code == 0
    revision = put("d/a", b"1")
    done = run("restore", "d", "--revision", str(revision))
    assert (done.code, "-r restores it" in done.err) == (5, True)
    assert run("restore", "/", "--revision", str(revision)).code == 5


def test_a_kind_comes_back_with_the_rest(run, tree):
    named.put(tree, {"d": a_dir(0o700), "d/link": a_link("a")})
    then = named.put(tree, {"d/a": (a_file(b"1", uid=7, gid=8), b"1")})
    named.put(tree, {"d/link": b"2", "d/a": GONE})
    assert run("restore", "d", "-r", "--revision", str(then)).code == 0
    assert tree.read("d/link").entry.target == "a"
    assert (tree.read("d/a").entry.uid, tree.read("d/a").record.content) == (7, b"1")


def test_a_time_means_what_was_written_until_then(run, kv, kv_root, tree):
    revisions = {}
    for hour in (1, 3):
        at = a_tree(kv, kv_root, now=f"2026-01-01T0{hour}:00:00.000Z")
        revisions[hour] = named.put(at, {"a": b"%d" % hour}, retention=MONTH)
    assert run("restore", "a", "--at", "2026-01-01T02:00Z").code == 0
    assert tree.read("a").record.content == b"1"
    assert "nothing is known of it at that time" in run("restore", "a", "--at", "2025-01-01").err
    assert run("restore", "a", "--at", "1h", "-n").code == 0


def test_of_an_unreadable_record_nobody_knows_that_it_was_not_there_at_a_time(run, put, tree):
    put("d/a", b"1")
    key = tree.keys.file("d/x")
    at = tree.kv.txn((CreateRevision(key, 0),), (Put(key, b"junk"),)).revision
    done = run("restore", "d", "-r", "--at", "0s")
    assert (done.code, "nothing to do" in done.err, "d/x: stays as it is" in done.err) == (1, True, True)
    assert run("restore", "d/x", "--at", "0s").code == 1
    assert run("restore", "d", "-r", "--revision", str(at)).code == 0
    put("d/a", b"2")
    assert run("restore", "d", "-r", "--at", "0s").code == 1
    assert tree.kv.range(key).items[0].value == b"junk"
    assert tree.read("d/a").record.content == b"2"
    assert run("restore", "d", "-r", "--revision", str(at - 1)).code == 0
    assert tree.read("d/x").gone
    assert tree.read("d/a").record.content == b"1"


@pytest.mark.parametrize("when", [["--at", "yesterday"], ["--revision", "0"], ["--revision", "x"], []])
def test_a_time_or_revision_that_is_none_is_a_usage_error(run, when):
    assert run("restore", "a", *when).code == 2


def test_what_is_not_kept_any_more_is_named_and_nothing_is_changed(run, tree):
    first = revision = 0
    for number in range(2 * PRUNE_EVERY + 1):
        revision = named.put(tree, {"d/a": b"%d" % number}, retention=MONTH, keep=1)
        first = first or revision
    done = run("restore", "d", "-r", "--revision", str(first))
    assert (done.code, "d/a" in done.err, "not kept any more; nothing was changed" in done.err) == (1, True, True)
    assert tree.read("d/a").mod_revision == revision
    assert run("diff", "d/a", str(first)).code == 1


def test_an_unreadable_superseded_record_is_named_and_the_rest_listed(run, put, tree):
    put("a", b"1")
    two = put("a", b"2")
    tree.kv.txn((CreateRevision(tree.keys.past("a", 1), 0),), (Put(tree.keys.past("a", 1), b"junk"),))
    done = run("history", "a")
    assert (done.code, "unreadable record at revision 1" in done.err) == (1, True)
    assert str(two) in done.out.decode()


def test_a_change_in_between_is_a_conflict_and_the_rest_stays(run, put, tree, monkeypatch):
    first = put("a", b"1")
    put("a", b"2")
    real = Tree.commit

    def overtaken(self, writes, **how):
        monkeypatch.setattr(Tree, "commit", real)
        named.put(self, {"a": b"3"})
        return self.commit(writes, **how)

    monkeypatch.setattr(Tree, "commit", overtaken)
    done = run("restore", "a", "--revision", str(first))
    assert (done.code, "changed meanwhile" in done.err) == (3, True)
    assert tree.read("a").record.content == b"3"


@pytest.mark.parametrize("path", ["../a", "/a", "a//b", "a\nb"])
def test_an_unsafe_path_is_refused(run, path):
    for command in (["history"], ["diff"], ["restore", "--revision", "1"]):
        assert run(*command, path).code == 5
