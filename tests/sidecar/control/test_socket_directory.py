"""The directory of a control socket: closed to others, the socket's alone, and served by one sidecar."""

import os
import socket
import stat

import pytest

from configstore import __version__
from configstore.errors import RefusedError
from sidecar.control.socket_directory import CLIENT, listen


@pytest.fixture
def path(tmp_path):
    """Return where the socket is to be, in a directory that is not there yet."""
    return tmp_path / "shared" / "control.sock"


@pytest.fixture
def made(path):
    """Return a socket that listens there."""
    made = listen(str(path), None)
    yield made
    made.listener.close()
    made.remove()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_socket_and_client_are_for_the_owner_alone(made, path):
    assert made.is_there()
    assert (mode(path.parent), mode(path), mode(path.parent / CLIENT)) == (0o700, 0o600, 0o700)
    assert f'VERSION = "{__version__}"' in (path.parent / CLIENT).read_text()
    assert sorted(os.listdir(path.parent)) == sorted([CLIENT, path.name])


def test_a_socket_that_is_served_is_not_taken(made, path):
    with pytest.raises(RefusedError, match="another sidecar serves this socket"):
        listen(str(path), None)
    assert made.is_there()


def test_the_socket_of_one_that_was_killed_is_replaced(path):
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    made = listen(str(path), None)
    assert made.is_there()
    made.listener.close()
    made.remove()
    assert not path.exists()


def test_what_took_its_place_is_not_removed(path):
    made = listen(str(path), None)
    path.unlink()
    path.write_text("another's")
    assert not made.is_there()
    made.listener.close()
    made.remove()
    assert path.read_text() == "another's"


@pytest.mark.parametrize(
    ("lay", "words"),
    [
        (lambda path: path.write_text("a file"), "something else than a socket is there; remove it"),
        (lambda path: (path.parent / "other").write_text(""), "other lies there, too"),
        (lambda path: path.parent.chmod(0o777), "everybody may write there"),
    ],
    ids=["a file", "a directory with something else", "everybody's directory"],
)
def test_where_no_socket_may_be_it_is_refused(path, lay, words):
    path.parent.mkdir(mode=0o755)
    lay(path)
    with pytest.raises(RefusedError, match=words):
        listen(str(path), None)
