"""The watch says where to look, and misses nothing; what is true is scanned."""

import errno
import os
import subprocess
import sys
import threading

import inotify_simple
import pytest
from inotify_simple import INotify

from configstore.errors import RefusedError
from configstore.mapping_settings import WatchMode
from configstore.model.path import StorePath
from sidecar.local import inotify
from sidecar.local.inotify import InotifyWatch
from sidecar.local.mirrored_directory import MirroredDirectory
from sidecar.local.polling import POLL_DEPTH, PollWatch
from sidecar.local.rename import place
from sidecar.local.start_watch import start_watch
from sidecar.local.watch import Moves
from tests.harness.waiting import wait_until
from tests.sidecar.local.named import Mirrored, Woken, kernel_watches, open_descriptors, unmount, write


@pytest.fixture
def watched(tmp_path, woken):
    """Return a mirrored directory with a directory `a` in it, scanned once and watched."""
    (tmp_path / "top" / "a").mkdir(parents=True)
    here = Mirrored(tmp_path / "top", watch=woken.watch)
    here.scan()
    wait_until(lambda: quiet(woken))
    yield here
    here.close()


def quiet(woken):
    """Tell whether the watch has nothing to say, and forget what it said."""
    woken.news()
    said, woken.directories = woken.directories, set()
    return not said


def follow(here, woken, until):
    """Scan where the watch points, as the engine does, until a condition holds; never everywhere."""

    def look():
        news = woken.news()
        directories, news.directories = news.directories, set()
        if directories:
            here.scan(*directories)
        assert not news.everything
        return until()

    wait_until(look, what=f"what is known to be right; it is {sorted(here.known)}")


def test_a_file_written_in_place_is_told_when_it_is_closed(watched, woken):
    with (watched.path / "a" / "file").open("w") as file:
        wait_until(lambda: woken.says("a"))  # its creation
        assert wait_until(lambda: quiet(woken))
        file.write("content")
        file.flush()
        assert not woken.says("a")
    wait_until(lambda: woken.says("a"))


@pytest.mark.parametrize("change", ["rename", "unlink", "chmod", "link", "mkdir", "rmdir", "fifo"])
def test_every_kind_of_change_wakes(watched, woken, change):
    directory, file = watched.path / "a", watched.path / "a" / "file"
    write(file, "content")
    (directory / "empty").mkdir()
    follow(watched, woken, lambda: {"a/file", "a/empty"} <= watched.known.keys())
    wait_until(lambda: quiet(woken))
    wakes = woken.wakes
    {
        "rename": lambda: file.rename(directory / "other"),
        "unlink": file.unlink,
        "chmod": lambda: file.chmod(0o600),
        "link": lambda: (directory / "link").symlink_to("file"),
        "mkdir": (directory / "new").mkdir,
        "rmdir": (directory / "empty").rmdir,
        "fifo": lambda: os.mkfifo(directory / "fifo"),
    }[change]()
    wait_until(lambda: woken.wakes > wakes)
    wait_until(lambda: woken.says("a"))


def told_until_marked(watched, woken, name):
    """Return where the watch points for all that happened so far: events come in order, and this is the last."""
    (watched.path / name).mkdir()
    wait_until(lambda: woken.says(""))
    said, woken.directories = woken.directories, set()
    return said


def test_reading_wakes_nobody(watched, woken):
    write(watched.path / "a" / "file", "content")
    assert told_until_marked(watched, woken, "one") == {"", "a"}
    (watched.path / "a" / "file").read_text()
    watched.scan(rehash=True)
    assert told_until_marked(watched, woken, "two") == {""}


def test_our_own_directory_wakes_nobody(watched, woken):
    (watched.path / ".configstore" / "baseline").write_text("ours")
    (watched.path / ".configstore").chmod(0o700)
    (watched.path / "a" / "marker").mkdir()
    wait_until(lambda: woken.says("a"))
    assert "" not in woken.directories


def test_news_are_told_once(watched, woken):
    (watched.path / "a" / "marker").mkdir()
    wait_until(lambda: woken.says("a"))
    assert wait_until(lambda: quiet(woken))


def test_a_deep_tree_made_at_once_is_found_whole(watched, woken):
    """Files made in a new directory before it is watched give no event: it is listed after the watch is set."""
    expected = set()

    def make():
        for number in range(40):
            write(watched.path / f"new{number}" / "b" / "c" / "file", "content")

    for number in range(40):
        expected |= {f"new{number}", f"new{number}/b", f"new{number}/b/c", f"new{number}/b/c/file"}
    maker = threading.Thread(target=make)
    maker.start()
    follow(watched, woken, lambda: expected <= watched.known.keys())
    maker.join()


def test_a_directory_that_was_applied_is_watched(watched, woken):
    watched.apply(watched.file("new/file", "content"))
    follow(watched, woken, lambda: "new" in watched.known)
    wait_until(lambda: quiet(woken))
    write(watched.path / "new" / "other", "content")
    follow(watched, woken, lambda: "new/other" in watched.known)


def test_a_directory_moved_away_and_back_is_watched_again(watched, woken):
    write(watched.path / "a" / "b" / "file", "content")
    follow(watched, woken, lambda: "a/b/file" in watched.known)
    for _ in range(3):
        (watched.path / "a").rename(watched.path.parent / "away")
        follow(watched, woken, lambda: not watched.known)
        (watched.path.parent / "away").rename(watched.path / "a")
        follow(watched, woken, lambda: "a/b/file" in watched.known)
    write(watched.path / "a" / "b" / "other", "content")
    follow(watched, woken, lambda: "a/b/other" in watched.known)


def test_a_directory_moved_within_is_watched_under_its_new_name(watched, woken):
    write(watched.path / "a" / "b" / "file", "content")
    follow(watched, woken, lambda: "a/b/file" in watched.known)
    (watched.path / "a").rename(watched.path / "z")
    follow(watched, woken, lambda: watched.known.keys() == {"z", "z/b", "z/b/file"})
    write(watched.path / "z" / "b" / "other", "content")
    follow(watched, woken, lambda: "z/b/other" in watched.known)


def test_a_directory_moved_back_before_anybody_looked_is_still_watched(watched, woken):
    (watched.path / "a").rename(watched.path.parent / "away")
    (watched.path.parent / "away").rename(watched.path / "a")
    write(watched.path / "a" / "file", "content")
    follow(watched, woken, lambda: "a/file" in watched.known)


def test_two_directories_that_swapped_names_are_told_apart(watched, woken):
    write(watched.path / "a" / "x" / "one", "content")
    write(watched.path / "b" / "x" / "two", "content")
    follow(watched, woken, lambda: {"a/x/one", "b/x/two"} <= watched.known.keys())
    (watched.path / "a").rename(watched.path / "c")
    (watched.path / "b").rename(watched.path / "a")
    (watched.path / "c").rename(watched.path / "b")
    swapped = {"a", "a/x", "a/x/two", "b", "b/x", "b/x/one"}
    follow(watched, woken, lambda: watched.known.keys() == swapped)
    write(watched.path / "a" / "x" / "three", "content")
    write(watched.path / "b" / "x" / "four", "content")
    follow(watched, woken, lambda: watched.known.keys() == {*swapped, "a/x/three", "b/x/four"})


def test_a_directory_removed_and_made_again_is_watched(watched, woken):
    for number in range(5):
        (watched.path / "a").rmdir()
        (watched.path / "a").mkdir()
        write(watched.path / "a" / f"file{number}", "content")
        follow(watched, woken, lambda number=number: f"a/file{number}" in watched.known)
        (watched.path / "a" / f"file{number}").unlink()


def test_events_the_kernel_dropped_mean_looking_everywhere(watched, woken):
    files = [watched.path / "a" / "one", watched.path / "a" / "two"]
    for file in files:
        write(file, "content")
    with open("/proc/sys/fs/inotify/max_queued_events") as limit:
        queue = int(limit.read())
    with woken.watch._lock:  # without it nothing is read
        for number in range(queue + 2):  # equal events in a row are one
            files[number % 2].chmod(0o600)
    wait_until(lambda: woken.news().everything)


def test_a_directory_that_goes_is_told_even_where_only_it_is_watched(tmp_path, woken):
    (tmp_path / "a" / "b").mkdir(parents=True)
    descriptor = os.open(tmp_path / "a" / "b", os.O_RDONLY)
    woken.watch.ensure(StorePath("a/b"), descriptor)
    os.close(descriptor)
    (tmp_path / "a" / "b").rename(tmp_path / "b")
    wait_until(lambda: woken.says("a"))


def test_directories_that_come_and_go_leave_no_watch_behind(watched, woken):
    def held():
        return sum(len(each) for each in vars(woken.watch).values() if isinstance(each, dict)), kernel_watches()

    watched.scan()
    before = held()
    for number in range(5):
        write(watched.path / f"d{number}" / "sub" / "file", "content")
        follow(watched, woken, lambda number=number: f"d{number}/sub/file" in watched.known)
        (watched.path / f"d{number}").rename(watched.path / f"moved{number}")
        follow(watched, woken, lambda number=number: f"moved{number}/sub/file" in watched.known)
        (watched.path / f"moved{number}").rename(watched.path.parent / f"away{number}")
        follow(watched, woken, lambda number=number: f"moved{number}" not in watched.known)
        write(watched.path / "d" / "sub" / "one", "content")
        follow(watched, woken, lambda: "d/sub/one" in watched.known)
        (watched.path / "d").rename(watched.path.parent / f"d{number}")
        write(watched.path / "d" / "sub" / "two", "content")
        follow(watched, woken, lambda: "d/sub/one" not in watched.known and "d/sub/two" in watched.known)
        (watched.path / "d").rename(watched.path.parent / f"again{number}")
        follow(watched, woken, lambda: "d" not in watched.known)
        write(watched.path / "gone" / "sub" / "file", "content")
        follow(watched, woken, lambda: "gone/sub/file" in watched.known)
        for path in ("gone/sub/file", "gone/sub", "gone"):
            (watched.path / path).unlink() if path.endswith("file") else (watched.path / path).rmdir()
        follow(watched, woken, lambda: "gone" not in watched.known)
    assert held() == before == (4, 2)


def test_an_unmount_wakes(tmpfs, woken):
    mounted = tmpfs()
    here = Mirrored(mounted, watch=woken.watch)
    here.scan()
    here.close()
    woken.news()
    unmount(mounted)
    wait_until(lambda: woken.says(""))


def test_no_watches_left_is_said_once_and_is_no_error(watched, woken, caplog, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(INotify, "add_watch", full)
    write(watched.path / "b" / "c" / "file", "content")
    assert "b/c/file" in watched.scan("").changed
    assert [record.reason for record in caplog.records] == ["raise fs.inotify.max_user_watches"]
    assert ": / and 2 more: raise fs.inotify.max_user_watches" in woken.watch.limitation
    monkeypatch.undo()
    watched.scan()
    assert woken.watch.limitation is None


def test_a_directory_that_could_not_be_watched_is_no_trouble_once_it_is_gone(watched, woken, monkeypatch):
    monkeypatch.setattr(INotify, "add_watch", lambda *_: no_inotify())
    (watched.path / "a" / "b").mkdir()
    watched.scan("a")
    assert ": a and 1 more:" in woken.watch.limitation
    (watched.path / "a" / "b").rmdir()
    watched.scan("a")
    assert ": a: Too many" in woken.watch.limitation


def exchanged(here, name):
    """Let a file change places with one in the staging directory, as a set's are."""
    write(here.path / ".configstore" / "staging" / "0", "new")
    descriptor = here.root.open_directory(StorePath("a"))
    assert place(here.root.staging_fd, "0", descriptor, name, replace=True)
    os.close(descriptor)


@pytest.mark.parametrize("wakes", [True, False])
def test_moves_of_our_own_wake_nobody(watched, woken, wakes):
    for name in ("one", "two", "gone"):
        write(watched.path / "a" / name, "old")
    wait_until(lambda: woken.says("a"))
    wait_until(lambda: quiet(woken))
    before = woken.wakes
    woken.watch.hold()
    exchanged(watched, "one")
    exchanged(watched, "two")
    os.rename(watched.path / "a" / "gone", watched.path / ".configstore" / "staging" / "1")
    moves = {"a/one": Moves(1, 1), "a/two": Moves(1, 1), "a/gone": Moves(0, 1)}
    woken.watch.release({} if wakes else moves, lambda _: True)
    assert (woken.wakes > before) is wakes
    assert woken.says("a") is wakes


OTHERS = {
    "writes into it": lambda file: file.write_text("edited"),
    "removes it": lambda file: file.unlink(),
    "moves it away": lambda file: file.rename(file.with_name("away")),
    "moves another onto it": lambda file: file.with_name("two").rename(file),
    "changes its mode": lambda file: file.chmod(0o640),
    "was at another": lambda file: file.with_name("two").write_text("edited"),
}


@pytest.mark.parametrize("does", OTHERS)
def test_what_somebody_else_does_beside_our_moves_is_told(watched, woken, does):
    for name in ("one", "two"):
        write(watched.path / "a" / name, "old")
    wait_until(lambda: woken.says("a"))
    wait_until(lambda: quiet(woken))
    woken.watch.hold()
    exchanged(watched, "one")
    OTHERS[does](watched.path / "a" / "one")
    woken.watch.release({"a/one": Moves(1, 1)}, lambda _: True)
    assert woken.says("a")


def test_a_move_that_the_kernel_tells_in_one_event_with_ours_is_seen(watched, woken, tmp_path):
    write(watched.path / "a" / "two", "old")
    write(tmp_path / "outside", "edited")
    wait_until(lambda: woken.says("a"))
    wait_until(lambda: quiet(woken))
    descriptor = watched.root.open_directory(StorePath("a"))
    woken.watch.hold()
    write(watched.path / ".configstore" / "staging" / "0", "new")
    place(watched.root.staging_fd, "0", descriptor, "one", replace=False)
    left = os.stat(watched.path / "a" / "one")
    (tmp_path / "outside").rename(watched.path / "a" / "one")
    woken.watch.release({"a/one": Moves(1, 0)}, lambda _: os.stat(watched.path / "a" / "one") == left)
    os.close(descriptor)
    assert woken.says("a")


@pytest.mark.parametrize("edited", [True, False])
def test_an_edit_after_the_last_look_at_a_set_is_told(watched, woken, tmp_path, monkeypatch, edited):
    write(watched.path / "a" / "two", "old")
    write(tmp_path / "outside", "edited")
    wait_until(lambda: woken.says("a"))
    watched.scan()
    wait_until(lambda: quiet(woken))
    release = woken.watch.release

    def at_the_last_moment(*given):
        if edited:
            (tmp_path / "outside").rename(watched.path / "a" / "one")
        release(*given)

    monkeypatch.setattr(woken.watch, "release", at_the_last_moment)
    watched.apply(watched.file("a/one", "new"))
    assert woken.says("a") is edited


def test_after_our_moves_the_watch_goes_on(watched, woken):
    woken.watch.hold()
    woken.watch.release({}, lambda _: True)
    before = woken.wakes
    write(watched.path / "a" / "file", "content")
    wait_until(lambda: woken.wakes > before)
    assert woken.says("a")


def test_a_closed_watch_leaves_no_descriptor_and_no_thread(tmp_path):
    before = open_descriptors(), threading.active_count()
    for _ in range(3):
        watch = InotifyWatch(lambda: None)
        descriptor = os.open(tmp_path, os.O_RDONLY)
        watch.ensure("", descriptor)
        os.close(descriptor)
        watch.close()
        watch.close()
    assert (open_descriptors(), threading.active_count()) == before


@pytest.mark.parametrize("call", ["os.eventfd", "select.epoll"])
def test_no_descriptor_is_left_when_the_watch_cannot_start(monkeypatch, call):
    def refused(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(f"{inotify.__name__}.{call}", refused)
    before = open_descriptors()
    with pytest.raises(OSError, match="Too many open files"):
        InotifyWatch(lambda: None)
    assert open_descriptors() == before


# Polling


@pytest.fixture
def polled(tmp_path):
    """Return a mirrored directory and a quick poll of it."""
    here = Mirrored(tmp_path / "top")
    woken = Woken(lambda wake: PollWatch(here.root, wake, interval=0.02))
    yield here, woken
    woken.watch.close()
    here.close()


@pytest.mark.parametrize("change", ["new", "edit", "unlink", "deep"])
def test_a_poll_tells_to_look_everywhere(polled, change):
    here, woken = polled
    write(here.path / "file", "content")
    wait_until(lambda: woken.news().everything and woken.wakes)
    woken.everything = False
    wait_until(lambda: not woken.watch.drain().everything)
    {
        "new": lambda: write(here.path / "new", "content"),
        "edit": lambda: write(here.path / "file", "new content"),
        "unlink": (here.path / "file").unlink,
        "deep": lambda: write(here.path / "b" / "c" / "file", "content"),
    }[change]()
    wait_until(lambda: woken.news().everything)


def test_a_poll_does_not_see_our_own_directory(polled):
    here, woken = polled
    for number in range(5):
        (here.path / ".configstore" / f"baseline{number}").write_text("ours")
    snapshots = woken.watch._observer.emitters
    (emitter,) = snapshots
    seen = emitter._snapshot
    wait_until(lambda: emitter._snapshot is not seen)
    after = emitter._snapshot
    wait_until(lambda: emitter._snapshot is not after and woken.watch._observer.event_queue.empty())
    assert not woken.news().everything
    assert woken.wakes == 0


def test_a_poll_is_led_nowhere_by_a_link_and_not_ended_by_depth(polled, tmp_path):
    here, woken = polled
    (tmp_path / "elsewhere").mkdir()
    (here.path / "link").symlink_to(tmp_path / "elsewhere")
    (here.path / "root").symlink_to("/")
    deep = here.path
    for _ in range(900):
        deep = deep / "d"
        deep.mkdir()
    wait_until(lambda: woken.news().everything)
    (emitter,) = woken.watch._observer.emitters
    wait_until(lambda: max(path.count("/d") for path in emitter._snapshot.paths) >= POLL_DEPTH)
    woken.everything = False
    (tmp_path / "elsewhere/file").write_text("x")
    write(here.path / "file", "content")
    wait_until(lambda: woken.news().everything)
    seen = [path for path in emitter._snapshot.paths if "/link/" in path or "/root/" in path]
    assert not seen
    assert emitter.is_alive()


def test_a_closed_poll_leaves_no_thread(polled):
    here, _ = polled
    before = threading.active_count()
    PollWatch(here.root, lambda: None, interval=0.02).close()
    assert threading.active_count() == before


# The choice


@pytest.fixture
def root(tmp_path):
    """Return an open directory to watch."""
    root = MirroredDirectory(str(tmp_path))
    yield root
    root.close()


def no_inotify():
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(WatchMode.AUTO, InotifyWatch), (WatchMode.INOTIFY, InotifyWatch), (WatchMode.POLL, PollWatch)],
)
def test_inotify_is_taken_unless_polling_is_asked_for(root, mode, expected):
    watch = start_watch(mode, root, lambda: None)
    watch.close()
    assert type(watch) is expected
    assert watch.limitation is None


def test_polling_is_taken_by_itself_where_there_is_no_inotify(root, monkeypatch, caplog):
    monkeypatch.setattr(inotify_simple, "INotify", no_inotify)
    watch = start_watch(WatchMode.AUTO, root, lambda: None)
    watch.close()
    assert type(watch) is PollWatch
    assert "polling" in caplog.text
    assert "raise fs.inotify.max_user_instances" in watch.limitation


def test_inotify_demanded_and_not_to_be_had_is_refused_with_the_mend(root, monkeypatch):
    monkeypatch.setattr(inotify_simple, "INotify", no_inotify)
    with pytest.raises(RefusedError, match='set watch = "poll"'):
        start_watch(WatchMode.INOTIFY, root, lambda: None)


FINDING = """
import inotify_simple
from sidecar.local.inotify import InotifyWatch
asked = []
inotify_simple.find_library = asked.append
{use}.close()
print(asked)
"""


@pytest.mark.parametrize(
    ("use", "asked"), [("inotify_simple.INotify()", "['c']"), ("InotifyWatch(lambda: None)", "[]")]
)
def test_inotify_simple_still_starts_a_program_to_find_the_c_library_unless_it_is_given(use, asked):
    """Without the first, `inotify` need not give it."""
    done = subprocess.run(
        [sys.executable, "-c", FINDING.format(use=use)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == asked
