"""Floods, drips and nonsense at the health endpoint and the control socket; tricks in the socket's directory.

Whoever may connect, or may write to the directory, is taken for hostile: an application's container, the network.
"""

import contextlib
import json
import os
import random
import re
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from configstore.client import ClientError, Sidecar
from configstore.errors import RefusedError
from sidecar.control import server, socket_directory
from sidecar.reporting import http
from tests.attacks.application import UID
from tests.e2e import conftest as sidecars
from tests.harness.replica import ENVIRONMENT
from tests.harness.waiting import wait_until

configstore, replica = sidecars.configstore, sidecars.replica

NOBODY = 65534
AS_NOBODY = (
    "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
    "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",  # the interpreter may lie in root's home
)  # fmt: skip

MOST = 16.0
"""MiB by which a sidecar may grow, whatever floods it."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="looks into, or plays, processes of other users")


@pytest.fixture
def one(replica):
    """Return a running replica."""
    one = replica("one", 'lease = "job"')
    one.anew = True  # its memory is looked at
    return one.start().ready()


@pytest.fixture(params=["health", "control"])
def door(one, request):
    """Return a function that connects to one of the two doors."""

    def connect():
        if request.param == "control":
            return dialled(one)
        host, _, port = one.health.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=10)

    connect.path = "/v1/status" if request.param == "control" else "/metrics"
    return connect


def dialled(one):
    """Return a connection to the control socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    try:
        connection.connect(str(one.shared / "control.sock"))
    except BaseException:
        connection.close()
        raise
    return connection


def mib(one, name):
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{one.process.pid}/status").read_text())
    return int(found[1]) / 1024


def descriptors(one):
    return len(os.listdir(f"/proc/{one.process.pid}/fd"))


def works(one):
    """Tell whether both doors answer and the sidecar is as it was."""
    assert one.process.poll() is None
    assert one.ask("/livez") == (200, "ok\n")
    return Sidecar(str(one.shared / "control.sock")).ask("GET", "/v1/status")["replica"] == "one"


def flood(attack, count):
    """Run an attack in some threads at once, until each was cut off or refused; returns how many."""
    ended = []

    def run():
        with contextlib.suppress(OSError):
            attack()
        ended.append(None)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for each in threads:
        each.start()
    wait_until(lambda: len(ended) == count, 60, what=f"the end of {count} attacks, not of {len(ended)}")
    return len(ended)


def grown(one, before, what):
    """Say by how much it grew at its peak, and check it."""
    found = mib(one, "VmHWM") - before
    print(f"{what}: {before:.1f} MiB before, {found:+.1f} MiB at the peak, now {mib(one, 'VmRSS'):.1f} MiB")
    assert found < MOST


def test_fat_headers_are_refused_after_a_few_kilobytes(one, door):
    before = mib(one, "VmHWM")

    def fat():
        with door() as connection:
            connection.sendall(f"GET {door.path} HTTP/1.1\r\n".encode())
            for _ in range(99):
                connection.sendall(b"h: " + b"x" * 65_000 + b"\r\n")
            raise AssertionError("6 MiB of headers were taken")

    flood(fat, 60)
    grown(one, before, "60 × 6 MiB of headers")
    assert works(one)


@needs_root
def test_slow_clients_take_few_descriptors_and_keep_nobody_out(one, door, configstore):
    before, open_before = mib(one, "VmHWM"), descriptors(one)
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            slow = stack.enter_context(door())
            slow.sendall(f"GET {door.path} HTTP/1.1\r\nX: ".encode())
        assert works(one)  # so that all of them were looked at
        assert descriptors(one) <= open_before + http.CONNECTIONS + 1  # one more waits for its place
        configstore("put", "data/made-meanwhile", content=b"x")
        wait_until((one.folder / "made-meanwhile").exists)
    grown(one, before, "300 slow clients")


def test_a_request_that_drips_is_cut_off_in_time(door):
    with door() as slow:
        began = time.monotonic()
        slow.sendall(f"GET {door.path} HTTP/1.1\r\nX: ".encode())
        slow.settimeout(0.05)

        def cut():
            try:
                slow.sendall(b"x")  # one byte more, again and again
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(cut, 3 * http.ARRIVAL, what="a drip to be cut off")
        print(f"cut off after {time.monotonic() - began:.1f} s")


def test_who_takes_no_answers_costs_little_and_keeps_nobody_out(one, door):
    before = mib(one, "VmHWM")
    with contextlib.ExitStack() as stack:
        for _ in range(3 * http.CONNECTIONS):
            deaf = stack.enter_context(door())
            deaf.sendall(f"GET {door.path} HTTP/1.1\r\n\r\n".encode())
        assert works(one)
    grown(one, before, "answers that nobody takes")


def test_no_bytes_end_the_process_or_make_it_stumble(one, door):
    chance = random.Random(11)
    beginnings = [
        b"",
        b"GET /v1/hold/",
        b"POST /v1/hold HTTP/1.1\r\nContent-Length: 40\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n",
    ]
    for number in range(400):
        with door() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(chance.choice(beginnings) + chance.randbytes(chance.randrange(200)))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        assert one.process.poll() is None, f"it died of number {number}"
    assert works(one)
    for line in one.lines():
        assert line["message"] not in {"a thread died; stopping", "a request could not be answered"}


def posted(one, target, **asked):
    """Return a connection over which something was asked."""
    connection = dialled(one)
    body = json.dumps(asked).encode()
    connection.sendall(f"POST {target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def hold(one, **asked):
    return posted(one, "/v1/hold", lease="job", ttl=10, **asked)


def first_line(connection):
    """Return the status of an answer and the first object in it."""
    with connection.makefile("rb") as answer:
        status = int(answer.readline().split()[1])
        return status, next(json.loads(line) for line in answer if line.startswith(b"{"))


def test_waiting_clients_are_few_and_never_keep_a_holder_from_its_lease(one):
    sidecar = Sidecar(str(one.shared / "control.sock"))

    def changes():
        return sidecar.ask("POST", "/v1/changes", {"mapping": "data"})

    before = mib(one, "VmHWM")
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(hold(one))
        held = first_line(holder)[1]
        assert held["event"] == "held"
        waiting = [stack.enter_context(hold(one)) for _ in range(server.HOLDS - 1)]
        answers = [first_line(each) for each in waiting]
        assert {(status, line["event"]) for status, line in answers} == {(200, "waiting")}

        def refused():
            try:
                seen = changes()
            except ClientError as failure:
                return failure
            # One more that waits. A change that comes in answers all of them: then it begins anew.
            stack.enter_context(posted(one, "/v1/changes", mapping="data", after=seen, timeout=60))
            return None

        failure = wait_until(refused, 60, what="the room for those that wait to be full")
        assert failure.code == 4
        assert "no room for more" in str(failure)
        status, line = first_line(stack.enter_context(hold(one)))
        assert (status, line["code"]) == (503, 4)
        assert "hold leases of this sidecar or wait for one" in line["error"]
        assert works(one)
        assert sidecar.ask("GET", f"/v1/hold/{held['id']}")["left"] > 0
        (one.folder / "under the lease").write_text("x")
        assert sidecar.ask("POST", f"/v1/hold/{held['id']}/release", {"exit": 0})["revision"] > 0
    grown(one, before, f"{server.HOLDS} clients at a lease and {server.WAITS} that wait")

    def room_again():
        with contextlib.suppress(ClientError):
            return changes()

    wait_until(room_again, 60, what="room again, when they are gone")


@pytest.mark.parametrize("command", ["a\0b", "two\nlines", "\x1b[2J"])
def test_a_command_that_no_terminal_could_show_is_refused_with_words(one, command):
    with hold(one, command=command) as connection:
        status, answer = first_line(connection)
    assert (status, answer["code"]) == (400, 2)
    assert "control characters" in answer["error"]
    assert works(one)


# The socket's directory


@pytest.fixture
def base(tmp_path):
    """Return a folder with a directory and a file that nobody else has to touch."""
    (tmp_path / "victim").mkdir(mode=0o755)
    (tmp_path / "victim").chmod(0o755)
    (tmp_path / "secret").write_text("of somebody else")
    (tmp_path / "secret").chmod(0o640)
    return tmp_path


@pytest.fixture
def listen():
    """Return a function that opens a door, which is closed again after the test."""
    with contextlib.ExitStack() as stack:

        def listen(path, group=None, folders=()):
            door = socket_directory.listen(str(path), group, folders)
            stack.callback(door.listener.close)
            stack.callback(door.remove)
            return door

        yield listen


def look(path):
    found = os.lstat(path)
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_nlink


@pytest.mark.parametrize("whose", ["the link", "the directory that it lies in"])
def test_a_strangers_link_in_the_way_to_the_directory_is_refused(base, listen, whose):
    before = look(base / "victim")
    (base / "link").symlink_to("victim")
    os.chown(base / "link" if whose == "the link" else base, UID, UID, follow_symlinks=False)
    for path in (base / "link" / "control.sock", base / "link" / "deeper" / "control.sock"):
        with pytest.raises(RefusedError, match="symlink"):
            listen(path)
    assert look(base / "victim") == before
    assert os.listdir(base / "victim") == []


@pytest.mark.parametrize("name", [".control.sock.new", ".configstore-client.new", "configstore-client"])
@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_names_that_lead_elsewhere_are_replaced_and_never_written_through(base, listen, name, make):
    (base / "run").mkdir(mode=0o700)
    make(base / "secret", base / "run" / name)
    before = look(base / "secret")[:3]
    listen(base / "run" / "control.sock", os.getegid())
    assert look(base / "secret")[:3] == before
    assert (base / "secret").read_text() == "of somebody else"
    assert sorted(os.listdir(base / "run")) == ["configstore-client", "control.sock"]


def test_a_socket_beside_the_folders_of_others_leaves_the_way_to_them_open(base, listen):
    run = base / "run"
    for path in ("front/control.sock", "imap/control.sock"):
        listen(run / path)
    run.chmod(0o755)
    with pytest.raises(RefusedError, match="front lies there, too"):
        listen(run / "control.sock")
    listen(run / "control.sock", folders=("front", "imap"))
    assert [stat.S_IMODE((run / name).stat().st_mode) for name in ("", "front", "control.sock")] == [
        0o711, 0o700, 0o600,
    ]  # fmt: skip
    (run / "stranger").mkdir()
    run.chmod(0o755)
    (run / "control.sock").unlink()
    with pytest.raises(RefusedError, match="stranger lies there, too"):
        listen(run / "control.sock", folders=("front", "imap"))


@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_something_else_than_a_socket_is_not_removed(base, listen, make):
    (base / "run").mkdir(mode=0o700)
    make(base / "secret", base / "run" / "control.sock")
    before = look(base / "secret")
    with pytest.raises(RefusedError, match="something else than a socket"):
        listen(base / "run" / "control.sock")
    assert look(base / "secret") == before


def test_a_directory_that_is_swapped_again_and_again_leads_nowhere_else(base):
    (base / "run").mkdir(mode=0o755)
    (base / "link").symlink_to("victim")
    os.chown(base, UID, UID)
    before = look(base / "victim")
    served = refused = 0
    script = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "while True:\n"
        "    libc.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 2)\n"  # RENAME_EXCHANGE
    )
    racer = subprocess.Popen([sys.executable, "-c", script, base / "run", base / "link"])
    try:
        wait_until(lambda: os.path.islink(base / "run"), what="the first swap")
        end = time.monotonic() + 60
        while (served < 5 or refused < 100) and time.monotonic() < end:
            try:
                door = socket_directory.listen(str(base / "run" / "control.sock"), os.getegid())
            except RefusedError:
                refused += 1
                continue
            served += 1
            door.remove()
            door.listener.close()
    finally:
        racer.kill()
        racer.wait()
    print(f"tries against a racer: {served} in the directory, {refused} refused")
    assert look(base / "victim") == before
    assert os.listdir(base / "victim") == []
    assert (served >= 5, refused >= 100) == (True, True)


@needs_root
def test_owner_and_mode_are_set_before_the_socket_has_its_name(base, listen, monkeypatch):
    (base / "run").mkdir(mode=0o700)
    seen = []

    def rename(source, target, src_dir_fd, dst_dir_fd):
        found = os.stat(source, dir_fd=src_dir_fd, follow_symlinks=False)
        seen.append((target, stat.S_IMODE(found.st_mode), found.st_gid))
        os.replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def chown(path, uid, gid):
        seen.append(("born", stat.S_IMODE(os.stat(path).st_mode), os.stat(path).st_gid))
        os.lchown(os.readlink(path), uid, gid)

    monkeypatch.setattr(socket_directory.os, "rename", rename)
    monkeypatch.setattr(socket_directory.os, "chown", chown)
    before = os.umask(0)
    try:
        listen(base / "run" / "control.sock", 4242)
    finally:
        os.umask(before)
    assert seen == [("born", 0o600, 0), ("control.sock", 0o660, 4242), ("configstore-client", 0o750, 4242)]


def test_another_ones_socket_is_not_removed_at_the_end(base):
    path = base / "run" / "control.sock"
    door = socket_directory.listen(str(path), None)
    door.listener.close()
    os.rename(path, base / "run" / "taken")
    path.write_text("another's")
    door.remove()
    assert path.read_text() == "another's"


# Core dumps


@needs_root
def test_a_sidecar_of_any_user_mirrors_and_its_memory_is_nobodys_to_read(replica, configstore):
    one = replica("one")
    one.state.mkdir(mode=0o700)
    for folder in (one.folder, one.shared, one.state):
        os.chown(folder, NOBODY, NOBODY)
    one.under = AS_NOBODY
    one.start().ready()
    configstore("put", "data/pulled", "-", content=b"x")
    wait_until((one.folder / "pulled").exists)
    made = one.folder / "pushed"
    made.write_text("y")
    os.chown(made, NOBODY, NOBODY)
    wait_until(lambda: b"pushed" in configstore("ls", "data"))
    process = Path(f"/proc/{one.process.pid}")
    assert f"Uid:\t{NOBODY}" in (process / "status").read_text()
    assert os.stat(process / "environ").st_uid == 0  # who is not dumpable belongs to root there
    assert re.search(r"Max core file size\s+0\s", (process / "limits").read_text())


@needs_root
def test_a_command_leaves_no_dump_either(etcd, kv_root):
    command = (*AS_NOBODY, sys.executable, "-m", "configstore", "run", "--lease", "x", "--socket", "", "--")
    look = ("sh", "-c", "stat -c %u /proc/$PPID/environ /proc/self/environ; ulimit -S -c")
    settings = {
        "CONFIGSTORE_ENDPOINTS": etcd.endpoint,
        "CONFIGSTORE_ROOT": kv_root,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [*command, *look], env=ENVIRONMENT | settings, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["0", str(NOBODY), "0"], "")
