"""The replica's own bad days under a real sidecar: full, over-mounted, read-only, out of descriptors."""

import contextlib
import os
import resource
import secrets
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.harness.waiting import freeze, wait_until


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def content_of(path):
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()


def test_a_full_tmpfs_keeps_the_old_file_whole_names_the_path_and_the_rest_goes_on(replica, configstore, on_tmpfs):
    one = replica("one")
    on_tmpfs(one.folder, "size=128k")
    configstore("put", "data/large", content=b"old")
    one.start().ready()
    large = secrets.token_bytes(300_000)
    configstore("put", "data/large", content=large)
    configstore("put", "data/small", content=b"small")
    wait_until(lambda: content_of(one.folder / "small") == b"small")
    wait_until(lambda: one.metric("problems") == 1)
    assert (one.folder / "large").read_bytes() == b"old"
    assert "no space left" in one.words()
    remount(one.folder, "size=4m")
    wait_until(lambda: content_of(one.folder / "large") == large, 15)
    wait_until(lambda: one.metric("problems") == 0)


def test_a_mount_over_the_directory_is_filled_and_deletes_nothing(replica, configstore, on_tmpfs):
    one = replica("one")
    on_tmpfs(one.folder, "size=4m")
    for name in "abc":
        configstore("put", f"data/{name}", content=name.encode())
    one.start().ready()
    wait_until(lambda: one.tree().keys() == set("abc"))
    on_tmpfs(one.folder, "size=4m")
    wait_until(lambda: one.tree().keys() == set("abc"), 15)  # in the new mount
    subprocess.run(["umount", str(one.folder)], check=False)
    assert configstore("ls", "data").split() == [b"a", b"b", b"c"]
    configstore("put", "data/d", content=b"d")
    wait_until(lambda: (one.folder / "d").exists() or one.metric("waiting") == 1, 15)


def test_a_read_only_mount_is_refused_with_the_mend(replica, on_tmpfs):
    """A remount under a running sidecar is refused by the kernel: its baseline is open for writing."""
    one = replica("one")
    on_tmpfs(one.folder, "size=4m", "ro")
    done = one.command("init")
    assert (done.returncode, "mount it writable" in done.stderr) == (5, True)


def test_without_descriptors_nothing_is_lost_and_it_goes_on_when_there_are_some(replica, configstore):
    one = replica("one").start().ready()
    (one.folder / "a").write_bytes(b"a")
    wait_until(lambda: one.metric("paths") == 1)
    pid = one.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
    for number in range(20):
        configstore("put", f"data/theirs-{number}", content=b"x")
        (one.folder / f"mine-{number}").write_bytes(b"x")
    (one.folder / "a").write_bytes(b"edited")
    wait_until(lambda: "too many open files" in one.words().lower() or "emfile" in one.words().lower(), 15)
    assert configstore("get", "data/a") in {b"a", b"edited"}
    assert b"gone" not in configstore("ls", "-l", "--all", "data")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    wait_until(lambda: len(one.tree()) == 41, 20, what=one.words()[-3000:])
    wait_until(lambda: len(configstore("ls", "data").split()) == 41, 20, what=one.words()[-3000:])
    assert configstore("get", "data/a") == b"edited"
    assert one.process.poll() is None


def test_a_queue_of_sixteen_events_loses_no_file(replica, configstore):
    knob = Path("/proc/sys/fs/inotify/max_queued_events")
    before = knob.read_text()
    try:
        knob.write_text("16")
    except OSError as error:
        pytest.fail(f"{knob} cannot be set, which needs root on a host of one's own: {error}")
    try:
        one = replica("one").start().ready()
    finally:
        knob.write_text(before)
    freeze(one.process)
    for number in range(500):
        (one.folder / str(number)).write_bytes(b"x")
    one.process.send_signal(signal.SIGCONT)
    wait_until(lambda: one.metric("paths") == 500, 20)
    assert len(configstore("ls", "data").split()) == 500


def test_a_file_that_never_stops_growing_holds_up_nobody_and_is_never_pushed_in_part(replica, configstore):
    one = replica("one").start().ready()
    stop = threading.Event()

    def grow():
        with (one.folder / "growing").open("wb", buffering=0) as file:
            while not stop.wait(0.003):
                file.write(b"x" * 100)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        wait_until((one.folder / "growing").exists)
        (one.folder / "other").write_bytes(b"whole")
        wait_until(lambda: b"other" in configstore("ls", "data"), 15)
        assert b"growing" not in configstore("ls", "data")
    finally:
        stop.set()
        writer.join()
    wait_until(lambda: b"growing" in configstore("ls", "data"), 15)
    assert configstore("get", "data/growing") == (one.folder / "growing").read_bytes()
