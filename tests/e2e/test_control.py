"""The control socket under clients that are strangers, slow, many, or talk nonsense; and who may enter."""

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys

import pytest

from configstore.client import Sidecar
from configstore.model.keys import Keys
from configstore.store.lease_queue import queue
from configstore.store.store import Store
from sidecar.reporting import http
from tests.harness.replica import ENVIRONMENT
from tests.harness.waiting import wait_until

NOBODY = 65534


@pytest.fixture
def one(replica):
    """Return a running replica."""
    return replica("one", 'lease = "job"').start().ready()


def connected(one):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(one.shared / "control.sock"))
    return connection


def answer(one, text):
    """Return all that is answered to some bytes; what they cannot be sent for is nothing."""
    with connected(one) as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found
    return b""


def works(one):
    return Sidecar(str(one.shared / "control.sock")).ask("GET", "/v1/status")["replica"] == "one"


def post(path, body, length=None):
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", b""),
        (b"\0\xff\x16\x03\x01 garbage\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /v1/../../etc/passwd HTTP/1.1\r\n\r\n", b"400"),
        (b"BREW /v1/status HTTP/1.1\r\n\r\n", b"501"),
        (b"GET /v1/status HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n", b"431"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b""),
        (post("/v1/flush", b"", "lots"), b"400"),
        (post("/v1/flush", b"", 10**12), b"400"),
        (post("/v1/flush", b"", -1), b"400"),
        (post("/v1/flush", b"{}"), b"400"),
        (post("/v1/flush", b"\xff"), b"400"),
        (post("/v1/flush", b'{"mapping":"data","more":1}'), b"400"),
        (post("/v1/flush", b'{"mapping":"data","timeout":1e9}'), b"400"),
        (post("/v1/flush", b'{"mapping":"nobodys"}'), b"400"),
        (post("/v1/wait", b'{"mapping":"data","applied":"some"}'), b"400"),
        (post("/v1/hold", b'{"lease":"job","ttl":0.001}'), b"400"),
        (post("/v1/hold", b'{"lease":"../../x"}'), b"400"),
        (post("/v1/hold/nonsense/release", b'{"exit":0}'), b"404"),
        (post("/v1/hold/nonsense/release", b'{"exit":-9}'), b"400"),
        (post("/v1/flush", b"[" * 16_000), b"400"),
    ],
)
def test_nonsense_is_refused_and_costs_nothing(one, text, expected):
    found = answer(one, text)
    assert expected in found
    assert works(one)


def test_clients_that_never_finish_are_cut_off_and_do_not_keep_others_out(one):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(one)) for _ in range(http.CONNECTIONS // 2)]
        for each in slow:
            each.sendall(b"POST /v1/flush HTTP/1.1\r\n")
        assert works(one)

        def cut(each):
            each.settimeout(0.01)
            try:
                each.sendall(b"X")  # one byte more, again and again
                each.recv(4096)
            except TimeoutError:
                return False
            except OSError:
                pass
            return True

        wait_until(lambda: all(cut(each) for each in slow), 4 * http.ARRIVAL, what="slow clients to be cut off")
        assert works(one)


def test_a_hold_whose_client_dies_while_it_waits_leaves_the_queue(one, kv, kv_root):
    first = one.client("hold", "job", "--", "sleep", "60")
    keys = Keys(kv_root)
    wait_until(lambda: len(queue(Store(kv, keys), "job")) == 1)
    waiting = one.client("hold", "job", "--", "true")
    wait_until(lambda: len(queue(Store(kv, keys), "job")) == 2)
    waiting.kill()
    waiting.communicate()
    wait_until(lambda: len(queue(Store(kv, keys), "job")) == 1)
    first.terminate()
    first.communicate(timeout=90)


def as_nobody(one, *groups):
    """Ask for the status as another user; returns exit code and complaints."""
    script = (
        "import encodings.idna, os, sys\n"  # before the right to read the modules is given up
        "from configstore.client import ClientError, Sidecar\n"
        f"os.setgroups({list(groups)!r}); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try:\n"
        f"    Sidecar({str(one.shared / 'control.sock')!r}).ask('GET', '/v1/status')\n"
        "except ClientError as failure:\n"
        "    print(failure, file=sys.stderr)\n"
        "    sys.exit(failure.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    return done.returncode, done.stderr


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@needs_root
def test_a_stranger_is_refused_even_where_the_directory_lets_him_in(one):
    assert stat.S_IMODE(one.shared.stat().st_mode) == 0o700
    assert as_nobody(one)[0] == 4
    one.shared.chmod(0o755)
    (one.shared / "control.sock").chmod(0o666)  # as a volume of the wrong kind may do
    assert as_nobody(one)[0] == 4
    wait_until(lambda: any(line.get("uid") == NOBODY for line in one.lines()))


@needs_root
def test_a_member_of_the_group_may_enter(replica):
    two = replica("two", "", "")
    text = two.settings.read_text().replace("[health]", "group = 4242\n[health]")
    two.settings.write_text(text)
    two.start().ready()
    assert stat.S_IMODE(two.shared.stat().st_mode) == 0o750
    assert stat.S_IMODE((two.shared / "control.sock").stat().st_mode) == 0o660
    assert as_nobody(two, 4242) == (0, "")
    assert as_nobody(two)[0] == 4


def test_the_client_beside_the_socket_is_whole_and_of_this_version(one):
    placed = one.shared / "configstore-client"
    assert stat.S_IMODE(placed.stat().st_mode) == 0o700
    done = subprocess.run([sys.executable, str(placed), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1] != "unplaced"


def test_another_sidecar_at_the_same_socket_is_refused_and_a_dead_ones_is_taken_over(one, replica):
    two = replica("two")
    two.settings.write_text(two.settings.read_text().replace(str(two.shared), str(one.shared)))
    two.start()
    assert two.process.wait(90) == 5
    two.process = None
    assert "another sidecar serves this socket" in two.words()
    one.end(9)
    two.start().ready()
    assert json.loads(one.client("status").communicate()[0])["replica"] == "two"


def test_a_removed_socket_directory_is_made_again_and_an_open_hold_goes_on(one, tmp_path, configstore):
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    script = f"touch {begun}; while ! [ -e {go_on} ]; do sleep 0.05; done; echo held > {one.folder}/under-it"
    holding = one.client("hold", "job", "--", "sh", "-c", script)
    wait_until(begun.exists, what="the command")
    shutil.rmtree(one.shared)
    wait_until((one.shared / "control.sock").exists, what="the socket")
    assert works(one)
    assert one.client("flush", "data").communicate(timeout=60)
    go_on.touch()
    assert holding.communicate(timeout=60)
    assert (holding.returncode, configstore("get", "data/under-it")) == (0, b"held\n")


def test_a_directory_in_which_others_have_files_is_not_closed_to_them(replica):
    two = replica("two")
    two.shared.chmod(0o1777)
    (two.shared / "of somebody else").touch()
    two.start()
    assert two.process.wait(90) == 5
    two.process = None
    assert "of somebody else lies there, too" in two.words()
    assert stat.S_IMODE(two.shared.stat().st_mode) == 0o1777


def test_without_a_sidecar_behind_its_socket_a_command_speaks_with_etcd_itself(one, etcd, kv_root):
    path = one.shared / "control.sock"
    one.end(9)
    assert path.exists()
    settings = {"ENDPOINTS": etcd.endpoint, "ROOT": kv_root, "CONTROL_SOCKET": str(path)}
    done = subprocess.run(
        [sys.executable, "-m", "configstore", "run", "--lease", "other", "--", "echo", "done"],
        env=ENVIRONMENT | {f"CONFIGSTORE_{name}": value for name, value in settings.items()},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
    one.start().ready().end()
    assert not path.exists()


def test_a_client_that_never_asks_is_told_that_its_lease_is_lost(one):
    with connected(one) as connection, connection.makefile() as lines:
        connection.sendall(post("/v1/hold", b'{"lease": "job", "ttl": 2}'))
        events = (json.loads(line) for line in lines if line.startswith("{"))
        assert next(events)["event"] == "held"
        lost = next(events)
        assert (lost["event"], lost["code"]) == ("lost", 3)
        assert "its client was silent" in lost["error"]
