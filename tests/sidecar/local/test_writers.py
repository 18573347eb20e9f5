"""No file is taken while somebody writes to it, be it that the kernel may be asked or that it may not."""

import os

import pytest

from tests.harness.waiting import wait_until
from tests.sidecar.local.named import Mirrored, a_file, as_nobody


@pytest.fixture
def watched(theirs, woken):
    """Return a watched directory of another user's, scanned by him; the files in it are ours."""
    with as_nobody():
        here = Mirrored(theirs, watch=woken.watch)
        here.scan()
        here.scanner.scan(None, here.known)
    if os.geteuid() != 0:
        pytest.fail("this test writes files as another user, which needs root", pytrace=False)
    yield here
    here.close()


def scan_as_other(here):
    """Look as somebody who may not ask the kernel who writes to our files."""
    with as_nobody():
        return here.scan()


def write_half(path, content="half"):
    file = path.open("w")
    file.write(content)
    file.flush()
    return file


def test_another_users_file_is_unstable_from_its_first_change_to_its_closing(watched):
    (watched.path / "conf").write_text("whole")
    scan_as_other(watched)
    with write_half(watched.path / "conf") as file:
        for _ in range(3):
            found = scan_as_other(watched)
            assert (found.unstable, found.changed) == ({"conf"}, {})
        file.write(" and whole")
    assert scan_as_other(watched).changed["conf"].entry.sha256 == a_file("half and whole").sha256
    assert "LEASE" in watched.scanner.limitation


def test_a_new_file_of_another_user_is_unstable_until_it_is_closed(watched):
    with write_half(watched.path / "conf"):
        assert scan_as_other(watched).unstable == {"conf"}
    assert "conf" in scan_as_other(watched).changed


def test_a_change_while_the_file_is_read_is_seen_even_if_no_time_stamp_moved(watched, monkeypatch):
    (watched.path / "conf").write_text("whole")
    (watched.path / "conf").chmod(0o666)
    read = os.pread

    def meanwhile(*args):
        piece = read(*args)
        with open(watched.path / "conf", "r+") as file:
            file.write("WHOLE")
            file.flush()
            monkeypatch.setattr(os, "pread", read)
            unclosed.append(os.dup(file.fileno()))
        return piece

    unclosed = []
    monkeypatch.setattr(os, "pread", meanwhile)
    monkeypatch.setattr("configstore.files.reading.signature", lambda _: None)  # as for a clock that stands still
    assert scan_as_other(watched).unstable == {"conf"}
    os.close(*unclosed)


def test_a_file_that_is_renamed_while_it_is_written_stays_unstable(watched):
    with write_half(watched.path / "new"):
        (watched.path / "new").rename(watched.path / "conf")
        assert scan_as_other(watched).unstable == {"conf"}
    assert "conf" in scan_as_other(watched).changed


def test_a_file_whose_directory_is_renamed_while_it_is_written_stays_unstable(watched):
    (watched.path / "a").mkdir(mode=0o755)
    scan_as_other(watched)
    with write_half(watched.path / "a" / "conf"):
        assert scan_as_other(watched).unstable == {"a/conf"}
        (watched.path / "a").rename(watched.path / "b")
        assert scan_as_other(watched).unstable == {"b/conf"}
    assert "b/conf" in scan_as_other(watched).changed


def test_the_end_of_an_unlinked_file_is_not_that_of_one_by_the_same_name(watched):
    old = write_half(watched.path / "conf")
    (watched.path / "conf").unlink()
    with write_half(watched.path / "conf"):
        old.close()
        assert scan_as_other(watched).unstable == {"conf"}


def test_a_file_put_in_the_place_of_one_being_written_is_stable(watched):
    with write_half(watched.path / "conf"):
        (watched.path / "new").write_text("whole")
        (watched.path / "new").rename(watched.path / "conf")
        assert scan_as_other(watched).changed["conf"].entry.sha256 == a_file("whole").sha256


def test_the_kernels_answer_wins_where_it_may_be_asked(watched, woken):
    (watched.path / "conf").write_text("content")
    watched.scan()
    for size in (4, 2):  # by its name: nobody ever closes it
        woken.news()
        woken.directories.clear()
        os.truncate(watched.path / "conf", size)
        wait_until(lambda: woken.says(""))
        found = watched.scan("")
        assert (found.unstable, found.changed["conf"].entry.size) == (set(), size)
    assert watched.scanner.limitation is None


def test_who_is_known_to_be_writing_wakes_nobody_by_going_on(watched, woken):
    (watched.path / "large").write_text("old")
    with write_half(watched.path / "large") as file:
        wait_until(lambda: woken.says(""))
        wakes = woken.wakes
        for _ in range(200):
            file.write("x" * 4096)
            file.flush()
        os.mkdir(watched.path / "mark")
        wait_until(lambda: woken.wakes > wakes)
        assert woken.wakes <= wakes + 1
        assert woken.watch.writing("large")
    wait_until(lambda: not woken.watch.writing("large"))
