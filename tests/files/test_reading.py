"""Reading files that somebody may be writing: whole and quiet, or not at all."""

import fcntl
import os
import signal

import pytest

from configstore.files import reading
from configstore.files.reading import UnstableError, digest_stable, signature, stable_pieces
from configstore.model.record import CHUNK_SIZE
from tests.sidecar.local.named import NOBODY, as_nobody


@pytest.fixture
def path(tmp_path):
    """Return a file of some content."""
    (tmp_path / "file").write_text("content")
    return tmp_path / "file"


def read(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return b"".join(stable_pieces(descriptor))
    finally:
        os.close(descriptor)


def test_a_quiet_file_is_read_whole(path):
    path.write_bytes(os.urandom(300_000))
    assert read(path) == path.read_bytes()


def test_an_empty_file_is_read(path):
    path.write_bytes(b"")
    assert read(path) == b""


@pytest.mark.parametrize("mode", ["ab", "r+b"])
def test_a_file_open_for_writing_is_unstable(path, mode):
    with path.open(mode), pytest.raises(UnstableError):
        read(path)
    assert read(path) == b"content"


def test_a_file_open_for_reading_is_stable(path):
    with path.open("rb"):
        assert read(path) == b"content"


def test_no_lease_is_left_behind(path):
    descriptor = os.open(path, os.O_RDONLY)
    digest_stable(descriptor)
    assert fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_UNLCK
    os.close(descriptor)


def test_a_writer_that_comes_while_we_ask_does_not_kill_us():
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL  # whose default is to be ignored; SIGIO's is to kill


@pytest.mark.parametrize("change", ["grow", "shrink", "replace", "touch"])
def test_a_file_that_changes_while_it_is_read_is_unstable(path, change, monkeypatch):
    pread = os.pread

    def meddle(*args):
        part = pread(*args)
        if change == "grow":
            path.write_text("content, and more")
        elif change == "shrink":
            path.write_text("con")
        elif change == "replace":
            path.write_text("CONTENT")
        else:
            os.utime(path, ns=(1, 1))
        return part

    monkeypatch.setattr(reading.os, "pread", meddle)
    with pytest.raises(UnstableError):
        read(path)


def test_another_users_file_is_read_without_a_lease(theirs):
    if os.geteuid() != 0:
        pytest.fail("this test reads another user's file, which needs root", pytrace=False)
    (theirs / "file").write_text("content")
    (theirs / "file").chmod(0o644)
    with as_nobody():
        assert read(theirs / "file") == b"content"


def test_a_signature_tells_every_change_of_a_file(path):
    seen = {signature(path.stat())}
    path.chmod(0o600)
    seen.add(signature(path.stat()))
    os.utime(path, ns=(0, 5))
    seen.add(signature(path.stat()))
    path.write_text("longer content")
    seen.add(signature(path.stat()))
    if os.geteuid() == 0:
        os.chown(path, NOBODY, -1)
        seen.add(signature(path.stat()))
        os.chown(path, -1, NOBODY)
    seen.add(signature(path.stat()))
    assert len(seen) == (6 if os.geteuid() == 0 else 4)


def test_a_directorys_signature_does_not_speak_of_what_is_in_it(tmp_path):
    before = signature(tmp_path.stat())
    (tmp_path / "file").write_text("content")
    assert signature(tmp_path.stat()) == before
    tmp_path.chmod(0o711)
    assert signature(tmp_path.stat()) != before


def test_content_comes_in_pieces_of_one_size(path):
    path.write_bytes(os.urandom(2 * CHUNK_SIZE + 7))
    descriptor = os.open(path, os.O_RDONLY)
    pieces = list(stable_pieces(descriptor))
    os.close(descriptor)
    assert [len(piece) for piece in pieces] == [CHUNK_SIZE, CHUNK_SIZE, 7]
    assert b"".join(pieces) == path.read_bytes()


def test_a_change_between_two_pieces_shows_at_the_end(path):
    path.write_bytes(os.urandom(2 * CHUNK_SIZE))
    descriptor = os.open(path, os.O_RDONLY)
    pieces = stable_pieces(descriptor)
    next(pieces)
    with path.open("r+b") as file:
        file.write(b"another first piece")
    with pytest.raises(UnstableError):
        list(pieces)
    os.close(descriptor)
