"""A directory that a sidecar cannot take: the others work, it is named, and taken once it can be."""

import os
import subprocess

import pytest

from tests.harness.waiting import wait_until


@pytest.fixture
def two_mappings(replica, configstore, tmp_path):
    """Return a replica whose first mapping's directory is one that the test makes, beside one that works."""
    configstore("mkdir", "other")
    configstore("put", "data/a", content=b"x")
    configstore("put", "other/b", content=b"y")
    good = tmp_path / "other"
    good.mkdir()
    broken = tmp_path / "above" / "data"

    def make(policy=""):
        one = replica("one", policy, f'[[mapping]]\nname = "other"\npath = "{good}"\n')
        one.settings.write_text(one.settings.read_text().replace(f'path = "{one.folder}"', f'path = "{broken}"'))
        return one

    return make, broken, good


def not_there(broken):
    return broken.parent.mkdir


def a_file_in_its_place(broken):
    broken.parent.mkdir()
    broken.write_text("")
    return broken.unlink


def a_link_in_place_of_our_own(broken):
    broken.mkdir(parents=True)
    (broken / ".configstore").symlink_to("/tmp")
    return (broken / ".configstore").unlink


def read_only(broken):
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    broken.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(broken)], check=True)
    return lambda: subprocess.run(["mount", "-o", "remount,rw", str(broken)], check=True)


WAYS = {
    not_there: "cannot be mirrored: the directory above it does not exist: mount or make it",
    a_file_in_its_place: "cannot be mirrored: it is not a directory",
    a_link_in_place_of_our_own: ".configstore in it is a symlink or a file: remove it",
    read_only: "cannot be mirrored: it is read-only: mount it writable for the sidecar",
}


@pytest.fixture
def unmounted(two_mappings):
    yield
    subprocess.run(["umount", "-l", str(two_mappings[1])], check=False, capture_output=True)


@pytest.mark.usefixtures("unmounted")
@pytest.mark.parametrize(("make_unusable", "reason"), WAYS.items(), ids=[way.__name__ for way in WAYS])
def test_it_is_named_and_tried_again_while_the_others_work(two_mappings, configstore, make_unusable, reason):
    make, broken, good = two_mappings
    mend = make_unusable(broken)
    one = make().start()
    wait_until((good / "b").exists, 20)
    wait_until(lambda: f"data: not ready: {broken}: {reason}" in one.ask("/readyz")[1], 20)
    assert one.ask("/readyz")[0] == 503
    wait_until(lambda: f"waiting: {broken}: {reason}" in configstore("status").decode(), 20)
    (good / "c").write_text("z")
    wait_until(lambda: configstore("ls", "other").decode().split() == ["b", "c"], 20)
    mend()
    one.ready()
    assert (broken / "a").read_text() == "x"
    (broken / "d").write_text("w")
    wait_until(lambda: b"d" in configstore("ls", "data"), 20)
    assert one.end() == 0
    assert sum(line["message"] == "waiting" and reason in str(line["reason"]) for line in one.lines()) == 1


def test_one_that_is_not_required_leaves_the_sidecar_ready(two_mappings):
    make, broken, _ = two_mappings
    one = make("required = false").start()
    wait_until(lambda: one.ask("/readyz")[0] == 200, 20)
    assert f"data: not ready, not required: {broken}: cannot be mirrored" in one.ask("/readyz")[1]
    assert one.end() == 1
    (line,) = [line for line in one.lines() if "could not be sent" in line["message"]]
    assert (line["mapping"], line["path"]) == ("data", str(broken))


def test_one_that_was_taken_and_is_lost_is_not_shown_as_ready(replica, configstore):
    one = replica("one").start().ready()
    aside = one.folder.with_name("aside")
    one.folder.rename(aside)
    one.folder.write_text("in the way")
    configstore("put", "data/a", content=b"x")
    wait_until(lambda: one.ask("/readyz")[0] == 503, 20)
    wait_until(lambda: b"it is not a directory" in configstore("status"), 20)
    one.folder.unlink()
    one.ready()
    wait_until((one.folder / "a").exists)


def test_what_no_directory_can_mend_ends_the_start(two_mappings):
    make, broken, good = two_mappings
    one = make(f'path = "{good}"\n')
    one.settings.write_text(one.settings.read_text().replace(f'path = "{broken}"\n', ""))
    done = one.command("run")
    assert done.returncode == 2
    assert "both mirror" in done.stderr
