"""A log that survives a kill at any moment."""

import errno
import os

import pytest

from sidecar.state.append_log import MAX_FOREIGN, MAX_LINE, AppendLog


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
    assert list(AppendLog(directory, "log").lines()) == [b"one", b"two", b"three"]
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_line_that_a_dead_process_could_not_finish_is_not_there_and_harms_none_after_it(
    log, directory, tmp_path
):
    (tmp_path / "log").write_bytes(b"one\nhalf")
    assert list(log.lines()) == [b"one"]
    log.append([b"two"])
    assert list(log.lines()) == [b"one", b"two"]


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
    assert list(log.lines()) == [b"one", b"four"]


def test_written_anew_it_holds_just_that_and_goes_on(log, tmp_path):
    log.append([b"one", b"two"])
    log.rewrite([b"two"])
    log.append([b"three"])
    assert list(log.lines()) == [b"two", b"three"]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_cleared_it_is_empty_also_of_what_a_dead_process_left(directory, log):
    other = AppendLog(directory, "log")
    other.append([b"left"])
    other.close()
    log.clear()
    assert list(log.lines()) == []


def a_fifo(path):
    os.mkfifo(path)


def a_link(path):
    (path.parent / "elsewhere").write_bytes(b"precious")
    path.symlink_to("elsewhere")


def a_hard_link(path):
    (path.parent / "elsewhere").write_bytes(b"precious\n")
    os.link(path.parent / "elsewhere", path)


def a_full_directory(path):
    (path / "deep").mkdir(parents=True)


def a_file_without_an_end(path):
    with open(path, "wb") as file:
        file.truncate(3 * 2**30)


def an_endless_line(path):
    path.write_bytes(b"x" * (MAX_LINE + 1) + b"\n[]\n")


@pytest.mark.parametrize("name", ["log", "log.new"])
@pytest.mark.parametrize(
    "lay", [a_fifo, a_link, a_hard_link, a_full_directory, a_file_without_an_end, an_endless_line]
)
def test_whatever_a_stranger_lays_in_its_place_is_no_log_and_makes_way(log, tmp_path, name, lay):
    lay(tmp_path / name)
    assert list(log.lines()) == []
    log.rewrite([b"one"])
    log.append([b"two"])
    log.close()
    assert list(log.lines()) == [b"one", b"two"]
    assert not (tmp_path / "elsewhere").exists() or (tmp_path / "elsewhere").read_bytes().strip() == b"precious"


@pytest.mark.parametrize("lay", [a_fifo, a_link, a_hard_link, a_full_directory, a_file_without_an_end])
def test_it_is_begun_anew_where_something_else_lies_in_its_place(log, tmp_path, lay):
    lay(tmp_path / "log")
    log.append([b"one"])
    assert list(log.lines()) == [b"one"]
    assert not (tmp_path / "elsewhere").exists() or (tmp_path / "elsewhere").read_bytes().strip() == b"precious"


@pytest.mark.parametrize("mode", [0o640, 0o602])
def test_one_that_others_could_have_written_is_not_taken_for_ours(directory, tmp_path, mode):
    (tmp_path / "log").write_bytes(b"[]\n")
    (tmp_path / "log").chmod(0o600)
    assert list(AppendLog(directory, "log", exclusive=True).lines()) == [b"[]"]
    (tmp_path / "log").chmod(mode)
    assert list(AppendLog(directory, "log", exclusive=True).lines()) == []


def test_what_may_be_a_strangers_is_bounded(directory, tmp_path):
    (tmp_path / "log").write_bytes(b"[]\n" * (MAX_FOREIGN // 3 + 1))
    (tmp_path / "log").chmod(0o600)
    assert list(AppendLog(directory, "log").lines()) == []
    assert next(AppendLog(directory, "log", exclusive=True).lines()) == b"[]"
