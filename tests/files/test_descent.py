"""A directory is opened through nothing that a stranger could have put in the way."""

import os

import pytest

from configstore.errors import RefusedError
from configstore.files import descent

STRANGER = 12345


@pytest.fixture
def top(tmp_path):
    """Return a directory of ours with another one in it."""
    (tmp_path / "real" / "deep").mkdir(parents=True)
    return tmp_path


def opened(path):
    descriptor = descent.descend(str(path))
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def test_a_plain_path_is_opened(top):
    assert opened(top / "real/deep") == str(top / "real/deep")
    assert opened(f"{top}//real/./deep/") == str(top / "real/deep")


@pytest.mark.parametrize("target", ["real", "../{name}/real", "{top}/real", "other"])
def test_links_of_our_own_are_followed(top, target):
    (top / "other").symlink_to("real")
    (top / "link").symlink_to(target.format(top=top, name=top.name))
    assert opened(top / "link/deep") == str(top / "real/deep")


def test_a_strangers_link_is_refused_by_its_name(top):
    (top / "link").symlink_to("real")
    os.chown(top / "link", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(RefusedError, match="is reached through the symlink link, which another user can make"):
        opened(top / "link/deep")


@pytest.mark.parametrize("how", ["owned", "for a group", "for all"])
def test_a_link_in_a_directory_that_a_stranger_may_change_is_refused(top, how):
    (top / "link").symlink_to("real")
    if how == "owned":
        os.chown(top, STRANGER, STRANGER)
    else:
        os.chown(top, -1, STRANGER)
        top.chmod(0o770 if how == "for a group" else 0o707)
    with pytest.raises(RefusedError, match="symlink link"):
        opened(top / "link/deep")


def test_in_a_sticky_directory_of_ours_a_link_of_ours_stays(top):
    (top / "link").symlink_to("real")
    top.chmod(0o1777)
    assert opened(top / "link/deep") == str(top / "real/deep")


def test_links_in_a_circle_end(top):
    (top / "one").symlink_to("two")
    (top / "two").symlink_to("one")
    with pytest.raises(OSError, match="Too many levels"):
        opened(top / "one")


def test_what_is_no_directory_is_none(top):
    (top / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        opened(top / "file")
    with pytest.raises(FileNotFoundError):
        opened(top / "none")


def test_no_descriptor_stays_open(top):
    (top / "link").symlink_to("none")
    before = len(os.listdir("/proc/self/fd"))
    opened(top / "real/deep")
    for path in ("link", "none", "link/deep"):
        with pytest.raises(OSError):  # noqa: PT011  # which one does not matter here
            opened(top / path)
    assert len(os.listdir("/proc/self/fd")) == before


def put_in_its_place(monkeypatch, top):
    """Have another directory, a private one, take the place of a new one at once."""
    (top / "roots").mkdir(mode=0o700)
    (top / "roots/key").write_text("SECRET")
    real = descent.enter

    def exchanged(directory, name):
        if name == "new":
            (top / name).rmdir()
            (top / "roots").rename(top / name)
        return real(directory, name)

    monkeypatch.setattr(descent, "enter", exchanged)


def test_a_new_directory_is_made_for_its_owner(top):
    owner = os.stat_result((0, 0, 0, 0, STRANGER, STRANGER, 0, 0, 0, 0))
    above = os.open(top, os.O_RDONLY)
    os.close(descent.make(above, "mine", owner))
    os.close(above)
    assert (top / "mine").stat().st_uid == STRANGER


@pytest.mark.parametrize("owner", [None, os.stat_result((0, 0, 0, 0, STRANGER, STRANGER, 0, 0, 0, 0))])
def test_what_is_put_in_the_place_of_a_new_directory_is_not_taken_for_it(top, monkeypatch, owner):
    above = os.open(top, os.O_RDONLY)
    put_in_its_place(monkeypatch, top)
    with pytest.raises(OSError, match="Stale file handle"):
        descent.make(above, "new", owner)
    os.close(above)
    found = (top / "new").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o700)


def test_a_missing_directory_is_made_and_its_mode_is_no_others(top, monkeypatch):
    descriptor, made = descent.open_or_make(str(top / "fresh"), 0o755)
    os.close(descriptor)
    assert (made, (top / "fresh").stat().st_mode & 0o777) == (True, 0o755)
    descriptor, made = descent.open_or_make(str(top / "fresh"), 0o700)
    os.close(descriptor)
    assert (made, (top / "fresh").stat().st_mode & 0o777) == (False, 0o755)
    put_in_its_place(monkeypatch, top)
    with pytest.raises(OSError, match="Stale file handle"):
        descent.open_or_make(str(top / "new"), 0o755)
    assert (top / "new").stat().st_mode & 0o777 == 0o700


def test_what_a_stranger_would_own_anyway_is_made_for_it(top):
    os.chown(top / "real", STRANGER, STRANGER)
    descriptor, _ = descent.open_or_make(str(top / "real/new"), for_stranger=True)
    os.close(descriptor)
    assert (top / "real/new").stat().st_uid == STRANGER


def test_a_mount_is_told_by_its_descriptor(tmpfs, top):
    descriptors = [os.open(path, os.O_PATH) for path in (tmpfs(top / "mounted"), top / "real")]
    assert [descent.is_mount(each) for each in descriptors] == [True, False]
    for each in descriptors:
        os.close(each)
