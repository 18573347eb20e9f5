"""Two real replicas of one subtree: whatever a program does to a file in one is so in the other."""

import os
import secrets
import signal
import stat
import subprocess
import threading

import pytest

from configstore.model.keys import Keys, prefix_end
from configstore.store.api import Delete, range_all
from tests.e2e.conftest import equal
from tests.harness.trees import look
from tests.harness.waiting import freeze, wait_until


def both(one, two, path, wanted):
    """Wait until a path looks so on both."""
    wait_until(lambda: look(two.folder / path) == wanted and look(one.folder / path) == wanted, what=path)


@pytest.mark.parametrize(
    "content",
    [b"", b"text\n", bytes(range(256)), secrets.token_bytes(5 << 20)],
    ids=["empty", "text", "binary", "5M"],
)
def test_a_file_crosses_both_ways(pair, content):
    one, two = pair
    (one.folder / "a").write_bytes(content)
    (two.folder / "b").write_bytes(content)
    wait_until(lambda: {"a", "b"} <= equal(one, two).keys())
    assert (two.folder / "a").read_bytes() == (one.folder / "b").read_bytes() == content


def test_an_edit_in_place_and_one_by_rename_cross(pair):
    one, two = pair
    (one.folder / "a").write_bytes(b"first")
    wait_until((two.folder / "a").exists)
    with open(two.folder / "a", "r+b") as file:
        file.write(b"2")
    wait_until(lambda: (one.folder / "a").read_bytes() == b"2irst")
    (one.folder / ".a.new").write_bytes(b"third")
    (one.folder / ".a.new").rename(one.folder / "a")
    wait_until(lambda: (two.folder / "a").read_bytes() == b"third")
    assert equal(one, two).keys() == {"a"}


def test_directories_links_and_modes_cross(pair):
    one, two = pair
    (one.folder / "empty").mkdir(mode=0o755)
    (one.folder / "private").mkdir(mode=0o700)
    (one.folder / "private/key").write_bytes(b"k")
    (one.folder / "private/key").chmod(0o600)
    (one.folder / "link").symlink_to("private/key")
    wait_until(lambda: len(equal(one, two)) == 4)
    assert look(two.folder / "empty")[:2] == ("dir", 0o755)
    assert look(two.folder / "private")[:2] == ("dir", 0o700)
    assert os.readlink(two.folder / "link") == "private/key"
    (two.folder / "private/key").chmod(0o640)
    both(one, two, "private/key", look(two.folder / "private/key"))
    assert look(one.folder / "private/key")[1] == 0o640


def test_a_renamed_directory_moves_at_once_and_with_everything_in_it(pair):
    one, two = pair
    (one.folder / "old/deep").mkdir(parents=True)
    for number in range(20):
        (one.folder / f"old/deep/{number}").write_bytes(b"%d" % number)
    wait_until(lambda: len(equal(one, two)) == 22)
    (two.folder / "old").rename(two.folder / "new")
    wait_until(lambda: (one.folder / "new/deep/19").exists() and not (one.folder / "old").exists())
    assert len(equal(one, two)) == 22


def test_a_delete_crosses_and_stays_readable_in_the_past(pair, kv, kv_root):
    one, two = pair
    (one.folder / "a").write_bytes(b"precious")
    wait_until((two.folder / "a").exists)
    (two.folder / "a").unlink()
    wait_until(lambda: not (one.folder / "a").exists())
    past = kv.range(f"{kv_root}/past/data/a//".encode(), f"{kv_root}/past/data/a/0".encode()).items
    assert past[-1].value.endswith(b"\nprecious")


def test_a_file_becomes_a_directory_and_back(pair):
    one, two = pair
    (one.folder / "a").write_bytes(b"file")
    wait_until((two.folder / "a").exists)
    (one.folder / "a").unlink()
    (one.folder / "a").mkdir()
    (one.folder / "a/b").write_bytes(b"below")
    wait_until((two.folder / "a/b").exists)
    (two.folder / "a/b").unlink()
    (two.folder / "a").rmdir()
    (two.folder / "a").symlink_to("elsewhere")
    wait_until((one.folder / "a").is_symlink)
    equal(one, two)


def written(kv, root):
    """Return what lies below a root, and since which revisions; other tests share the etcd."""
    top = f"{root}/".encode()
    pages = range_all(kv, top, prefix_end(top), keys_only=True)
    return {item.key: item.mod_revision for page in pages for item in page.items}


def test_three_thousand_files_at_once_arrive_and_then_nothing_is_written(pair, kv, kv_root):
    one, two = pair
    for number in range(3000):
        folder = one.folder / f"d{number % 30}"
        folder.mkdir(exist_ok=True)
        (folder / str(number)).write_bytes(secrets.token_bytes(200))
    wait_until(lambda: len(two.tree()) == 3030, 60)
    equal(one, two)
    wait_until(lambda: one.metric("pending") == two.metric("pending") == 0)

    def done():
        return written(kv, kv_root), one.metric("cycles_total"), two.metric("cycles_total")

    def nothing_happens():
        before = done()
        one.process.send_signal(signal.SIGCONT)  # harmless; nothing may come of it
        threading.Event().wait(2.0)  # that nothing happens can only be seen by waiting; `make soak` waits a minute
        return done() == before

    wait_until(nothing_happens, what="the last look at what was sent, and the last report of it, to be over")


@pytest.mark.soak
def test_a_quiet_minute_writes_nothing(pair, kv, kv_root):
    one, two = pair
    for number in range(1000):
        (one.folder / str(number)).write_bytes(b"x")
    wait_until(lambda: len(two.tree()) == 1000, 60)
    wait_until(lambda: one.metric("pending") == two.metric("pending") == 0)
    before = written(kv, kv_root)
    threading.Event().wait(75)  # longer than a full re-scan's period
    assert written(kv, kv_root) == before


def test_edits_of_both_sides_at_once_end_equal_with_the_loser_kept(pair, kv, kv_root):
    one, two = pair
    (one.folder / "a").write_bytes(b"base")
    wait_until((two.folder / "a").exists)
    freeze(two.process)
    (one.folder / "a").write_bytes(b"from one")
    (two.folder / "a").write_bytes(b"from two")
    keys = Keys(kv_root)
    wait_until(lambda: kv.range(keys.file("data/a")).items[0].value.endswith(b"from one"))
    two.process.send_signal(signal.SIGCONT)
    wait_until(lambda: (two.folder / "a").read_bytes() == b"from one")
    kept = kv.range(f"{kv_root}/conflicts/".encode(), f"{kv_root}/conflicts0".encode()).items
    assert [item.value.partition(b"\n")[2] for item in kept] == [b"from two"]
    assert b'"replica":"two"' in kept[0].value
    assert equal(one, two).keys() == {"a"}


def test_equal_edits_of_both_sides_are_no_conflict(pair, kv, kv_root):
    one, two = pair
    freeze(two.process)
    for each in pair:
        (each.folder / "a").write_bytes(b"same")
    wait_until(lambda: kv.range(Keys(kv_root).file("data/a")).items)
    two.process.send_signal(signal.SIGCONT)
    wait_until(lambda: two.metric("paths") == one.metric("paths") == 1)
    assert not kv.range(f"{kv_root}/conflicts/".encode(), f"{kv_root}/conflicts0".encode()).items


def test_a_record_that_vanished_by_a_raw_delete_deletes_no_file(pair, kv, kv_root):
    one, two = pair
    (one.folder / "a").write_bytes(b"precious")
    wait_until((two.folder / "a").exists)
    kv.txn([], [Delete(Keys(kv_root).file("data/a"))])
    for each in pair:
        wait_until(lambda each=each: each.metric("problems") == 1)
        assert (each.folder / "a").read_bytes() == b"precious"
        wait_until(lambda each=each: "vanished" in each.words())  # a figure is there before its line of the log


def test_a_mass_delete_halts_and_changes_nothing(pair):
    one, two = pair
    for number in range(40):
        (one.folder / str(number)).write_bytes(b"x")
    wait_until(lambda: len(equal(one, two)) == 40)
    for number in range(30):
        (one.folder / str(number)).unlink()
    wait_until(lambda: one.metric("halted") == 1)
    status, text = one.ask("/readyz")
    assert status == 503
    assert "refused to delete 30 of 40 paths" in text
    assert len(two.tree()) == 40
    for number in range(30):
        (one.folder / str(number)).write_bytes(b"x")
    wait_until(lambda: one.metric("halted") == 0)


def test_an_emptied_directory_is_filled_again_and_deletes_nothing(pair):
    one, two = pair
    for number in range(5):
        (one.folder / str(number)).write_bytes(b"x")
    wait_until(lambda: len(equal(one, two)) == 5)
    subprocess.run(["find", str(one.folder), "-mindepth", "1", "-delete"], check=True)
    wait_until(lambda: len(one.tree()) == 5, 15)
    assert len(two.tree()) == 5


def test_a_replica_that_was_killed_and_emptied_pulls_and_deletes_nothing(pair):
    one, two = pair
    for number in range(5):
        (one.folder / str(number)).write_bytes(b"x")
    wait_until(lambda: len(equal(one, two)) == 5)
    two.end(signal.SIGKILL)
    subprocess.run(["find", str(two.folder), "-mindepth", "1", "-delete"], check=True)
    (one.folder / "new").write_bytes(b"while two was dead")
    two.start().ready()
    assert len(equal(one, two)) == 6


def test_edits_made_while_a_replica_was_dead_travel_at_its_start(pair):
    one, two = pair
    (one.folder / "a").write_bytes(b"x")
    (one.folder / "b").write_bytes(b"x")
    wait_until(lambda: len(equal(one, two)) == 2 and two.has_agreed())
    two.end(signal.SIGKILL)
    (two.folder / "a").unlink()
    (two.folder / "b").write_bytes(b"edited")
    two.start().ready()
    wait_until(lambda: one.tree() == two.tree() and (one.folder / "b").read_bytes() == b"edited")
    assert equal(one, two).keys() == {"b"}


def test_sigterm_sends_what_is_under_way_and_exits_0(replica):
    one, two = replica("one", 'settle = "30s"').start(), replica("two").start()
    one.ready(), two.ready()
    (one.folder / "a").write_bytes(b"last words")
    assert one.end(signal.SIGTERM) == 0
    wait_until((two.folder / "a").exists)


def test_no_content_is_ever_logged(pair):
    one, two = pair
    secret = b"hunter2-" + secrets.token_hex(8).encode()
    (one.folder / "a").write_bytes(secret)
    wait_until((two.folder / "a").exists)
    for each in pair:
        (each.folder / "a").write_bytes(secret + each.name.encode())
    equal(one, two)
    for each in pair:
        each.end()
        assert secret.decode() not in each.words()
        assert each.lines()


def test_a_private_file_is_never_readable_by_others_for_an_instant(pair):
    one, two = pair
    os.umask(0o022)
    seen = set()
    stop = threading.Event()

    def spy():
        while not stop.is_set():
            for folder in (two.folder, two.folder / ".configstore/staging"):
                for name in os.listdir(folder):
                    found = os.lstat(folder / name)
                    if stat.S_ISREG(found.st_mode):
                        seen.add(stat.S_IMODE(found.st_mode))

    watcher = threading.Thread(target=_until_it_works, args=(spy, stop))
    watcher.start()
    try:
        for number in range(50):
            descriptor = os.open(one.folder / f"key{number}", os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(descriptor, b"k" * 5000)
            os.close(descriptor)
        wait_until(lambda: len(two.tree()) == 50)
    finally:
        stop.set()
        watcher.join()
    assert seen == {0o600}


def _until_it_works(spy, stop):
    while not stop.is_set():
        try:
            spy()
        except FileNotFoundError:
            continue  # it was renamed while it was looked at
