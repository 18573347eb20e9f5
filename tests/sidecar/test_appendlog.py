"""A log that survives a kill at any moment."""

import errno
import os

import pytest

from sidecar.appendlog import AppendLog


@pytest.fixture
def directory(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def log(directory):
    one = AppendLog(directory, "log")
    yield one
    one.close()


def test_what_was_appended_is_there_for_the_next_process(log, directory, tmp_path):
    log.append([b"one", b"two"])
    log.append([b"three"])
    assert AppendLog(directory, "log").lines() == [b"one", b"two", b"three"]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_line_that_a_dead_process_could_not_finish_is_not_there_and_harms_none_after_it(
    log, directory, tmp_path
):
    (tmp_path / "log").write_bytes(b"one\nhalf")
    assert log.lines() == [b"one"]
    log.append([b"two"])
    assert log.lines() == [b"one", b"two"]


def test_what_has_no_room_is_not_there_in_part(log, monkeypatch):
    log.append([b"one"])
    real = os.write
    room = [3]

    def write(descriptor, content):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(descriptor, content[: room[0]])
        room[0] = 0
        return written

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space"):
            log.append([b"two", b"three"])
    log.append([b"four"])
    assert log.lines() == [b"one", b"four"]


def test_written_anew_it_holds_just_that_and_goes_on(log, tmp_path):
    log.append([b"one", b"two"])
    log.rewrite([b"two"])
    log.append([b"three"])
    assert log.lines() == [b"two", b"three"]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_cleared_it_is_empty_also_of_what_a_dead_process_left(directory, log):
    other = AppendLog(directory, "log")
    other.append([b"left"])
    other.close()
    log.clear()
    assert log.lines() == []


def test_a_fifo_in_its_place_never_hangs_it(log, tmp_path):
    os.mkfifo(tmp_path / "log")
    assert log.lines() == []


def test_a_link_in_its_place_is_not_followed(log, tmp_path):
    (tmp_path / "log").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        log.lines()
