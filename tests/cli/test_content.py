"""`put` and `get`."""

import os
import stat

import pytest

from configstore.model.keys import Keys
from configstore.model.record import MAX_SIZE
from configstore.store.api import Delete, ModRevision, Put
from tests.harness.named import a_file, a_link, a_write, put
from tests.harness.servers import run_etcdctl

BYTES = bytes(range(256)) * 3


def revision(run, path):
    return run("stat", path, "--json").json()["revision"]


def test_what_was_put_from_stdin_comes_back_byte_for_byte(run):
    assert run("put", "dkim/a.key", stdin=BYTES).code == 0
    done = run("get", "dkim/a.key")
    assert (done.code, done.out, done.err) == (0, BYTES, "")


def test_put_takes_a_file_before_or_behind_its_options(run, tmp_path):
    (tmp_path / "f").write_bytes(BYTES)
    assert run("put", "a", str(tmp_path / "f"), "--create").code == 0
    assert run("put", "b", "--create", str(tmp_path / "f")).code == 0
    assert run("put", "c", "-", stdin=BYTES).code == 0
    assert {run("get", path).out for path in "abc"} == {BYTES}


def test_content_larger_than_a_record_travels_in_chunks(run):
    content = os.urandom(1_300_000)
    assert run("put", "big", stdin=content).code == 0
    assert run("get", "big").out == content


def test_more_than_the_largest_size_is_refused(run, tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    done = run("put", "huge", str(tmp_path / "huge"))
    assert (done.code, str(MAX_SIZE) in done.err) == (5, True)
    assert run("get", "huge").code == 1


def test_a_missing_local_file_is_named(run):
    done = run("put", "a", "/nowhere/f")
    assert (done.code, "/nowhere/f" in done.err, "Traceback" in done.err) == (1, True, False)


def test_a_new_file_is_private_and_an_existing_one_keeps_its_mode(run):
    run("put", "a", stdin=b"1")
    assert run("stat", "a", "--json").json()["mode"] == "0600"
    run("put", "a", "--mode", "0644", stdin=b"2")
    run("put", "a", stdin=b"3")
    assert run("stat", "a", "--json").json()["mode"] == "0644"


def test_an_existing_file_keeps_its_owner(run, tree):
    put(tree, {"a": (a_file(b"x", 0o640, uid=7, gid=8, user="u", group="g"), b"x")})
    run("put", "a", stdin=b"yy")
    found = run("stat", "a", "--json").json()
    assert (found["uid"], found["gid"], found["user"], found["group"]) == (7, 8, "u", "g")


@pytest.mark.parametrize("mode", ["4755", "01777", "2755", "888", "rw", "", "-1", "0o600"])
def test_a_mode_beyond_permission_bits_is_refused(run, mode):
    assert run("put", "a", f"--mode={mode}", stdin=b"x").code == 2
    assert run("stat", "a").code == 1


def test_create_writes_only_what_is_not_there(run):
    assert run("put", "a", "--create", stdin=b"1").code == 0
    done = run("put", "a", "--create", stdin=b"2")
    assert (done.code, "there already" in done.err) == (3, True)
    assert run("get", "a").out == b"1"


def test_a_deleted_path_can_be_created_again(run):
    run("put", "a", stdin=b"1")
    run("rm", "a")
    assert run("put", "a", "--create", stdin=b"2").code == 0
    run("rm", "a")
    assert run("put", "a", stdin=b"3").code == 0
    assert run("get", "a").out == b"3"


def test_if_revision_writes_only_over_what_was_seen(run):
    assert run("put", "a", "--if-revision", "0", stdin=b"1").code == 0
    seen = revision(run, "a")
    assert run("put", "a", "--if-revision", str(seen), stdin=b"2").code == 0
    done = run("put", "a", "--if-revision", str(seen), stdin=b"3")
    assert (done.code, f"not {seen}" in done.err) == (3, True)
    assert run("put", "a", "--if-revision", "0", stdin=b"4").code == 3
    assert run("get", "a").out == b"2"


@pytest.mark.parametrize("wrong", ["-1", "x", "1.5", "9" * 30])
def test_what_is_no_revision_is_a_usage_error(run, wrong):
    assert run("put", "a", f"--if-revision={wrong}").code == 2
    assert run("get", "a", f"--revision={wrong}").code == 2


def test_a_directory_is_no_place_for_content(run):
    run("mkdir", "explicit")
    run("put", "implicit/a", stdin=b"1")
    for path in ("explicit", "implicit"):
        done = run("put", path, stdin=b"x")
        assert (done.code, f"{path}: is a directory" in done.err) == (3, True)
        assert run("get", path).code == 1


def test_nothing_is_put_below_a_file(run):
    run("put", "a", stdin=b"1")
    done = run("put", "a/b/c", stdin=b"2")
    assert (done.code, "a is a file" in done.err) == (3, True)
    assert run("get", "a/b/c").code == 1


def test_a_symlink_is_named_with_its_target_and_not_followed(run, tree):
    tree.commit([a_write("l", a_link("../x\x1b"))], retention=60)
    for done, code in ((run("get", "l"), 1), (run("put", "l", stdin=b"x"), 3)):
        assert (done.code, "symlink to ../x\\x1b" in done.err) == (code, True)


def test_get_of_nothing_says_so(run):
    done = run("get", "nope")
    assert (done.code, done.out) == (1, b"")
    run("put", "a", stdin=b"1")
    run("rm", "a")
    assert "deleted at revision" in run("get", "a").err


def test_get_reads_what_a_path_was_at_a_revision(run):
    run("put", "a", stdin=b"old")
    old = revision(run, "a")
    run("put", "b", stdin=b"")
    between = revision(run, "b")
    run("put", "a", stdin=b"new")
    assert run("get", "a", "--revision", str(old)).out == b"old"
    assert run("get", "a", "--revision", str(between)).out == b"old"
    assert run("get", "a").out == b"new"
    assert run("get", "a", "--revision", str(old - 1)).code == 1
    future = run("get", "a", "--revision", str(10**9))
    assert (future.code, "no revision" in future.err) == (1, True)


def test_get_reads_large_content_of_then(run):
    content = os.urandom(700_000)
    run("put", "a", stdin=content)
    old = revision(run, "a")
    run("put", "a", stdin=b"new")
    assert run("get", "a", "--revision", str(old)).out == content


def test_an_unreadable_record_is_reported_and_can_be_replaced_on_purpose(run, kv, kv_root):
    key = Keys(kv_root).file("a")
    at = kv.txn([ModRevision(key, 0)], [Put(key, b"secret rubbish")]).revision
    for words in (("get", "a"), ("put", "a"), ("stat", "a")):
        done = run(*words)
        assert (done.code, "unreadable" in done.err, "rubbish" in done.err) == (1, True, False)
    assert run("put", "a", "--if-revision", str(at), stdin=b"good").code == 0
    assert run("get", "a").out == b"good"


def test_content_whose_chunk_is_missing_is_an_error_and_no_half_file(run, kv, tree, tmp_path):
    run("put", "a", stdin=os.urandom(700_000))
    chunk = tree.keys.chunk("a", tree.read("a").record.chunks[0])
    kv.txn([ModRevision(chunk, kv.range(chunk).items[0].mod_revision)], [Delete(chunk)])
    done = run("get", "a", "-o", str(tmp_path / "out"))
    assert (done.code, "missing in the store" in done.err, os.listdir(tmp_path)) == (1, True, [])


def test_output_replaces_a_file_as_a_whole_with_the_records_mode(run, tmp_path):
    out = tmp_path / "out"
    out.write_bytes(b"old")
    before = out.stat().st_ino
    run("put", "a", "--mode", "0640", stdin=BYTES)
    assert run("get", "a", "-o", str(out)).code == 0
    assert (out.read_bytes(), stat.S_IMODE(out.stat().st_mode)) == (BYTES, 0o640)
    assert out.stat().st_ino != before
    assert os.listdir(tmp_path) == ["out"]


def test_output_to_what_is_no_file_is_refused(run, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    run("put", "a", stdin=b"1")
    assert run("get", "a", "-o", str(tmp_path / "fifo")).code == 5
    assert run("get", "a", "-o", "/dev/null").code == 5
    assert run("get", "a", "-o", str(tmp_path)).code == 5
    assert run("get", "a", "-o", str(tmp_path / "nowhere" / "x")).code == 1
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_of_many_that_create_at_once_one_wins(start, run):
    racers = {str(number).encode(): start("put", "a", "--create") for number in range(6)}
    for content, process in racers.items():
        process.stdin.write(content)
    for process in racers.values():
        process.stdin.close()
    codes = {content: process.wait(60) for content, process in racers.items()}
    (winner,) = [content for content, code in codes.items() if code == 0]
    assert sorted(codes.values()) == [0, 3, 3, 3, 3, 3]
    assert run("get", "a").out == winner


def test_many_that_put_at_once_all_write(start, tree):
    racers = [start("put", "a", "/etc/hostname") for _ in range(6)]
    assert [process.wait(60) for process in racers] == [0] * 6
    assert tree.kv.range(tree.keys.file("a")).items[0].version == 6


def remove(tree, key):
    """Remove a key, as the end of its retention does."""
    (item,) = tree.kv.range(key).items
    assert tree.kv.txn((ModRevision(key, item.mod_revision),), (Delete(key),)).succeeded


def test_a_compacted_revision_is_read_as_long_as_the_answer_is_certain(run, tree, etcd):
    run("put", "a", stdin=b"1")
    first = revision(run, "a")
    run("put", "a", stdin=b"2")
    second = revision(run, "a")
    run("put", "b", stdin=b"")
    between = revision(run, "b")
    run("put", "a", stdin=b"3")
    run("put", "stays", stdin=b"same")
    stays = revision(run, "stays")
    run("put", "b", stdin=b"later")
    run_etcdctl(etcd.endpoint, "compact", str(revision(run, "b")))
    assert run("get", "stays", "--revision", str(stays)).out == b"same"  # not changed since
    assert run("get", "a", "--revision", str(first)).out == b"1"  # kept in past/
    assert run("get", "a", "--revision", str(between)).out == b"2"  # as it was then, though written before
    remove(tree, tree.keys.past("a", second))
    gone = run("get", "a", "--revision", str(between))
    assert (gone.code, gone.out, "compacted" in gone.err) == (1, b"", True)
