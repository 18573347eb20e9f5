"""A sidecar that is a stranger's: whatever it answers, the drop-in client says so in time and in plain words."""

import http.server
import json
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from configstore import client
from configstore.client import ClientError, Hold, Sidecar
from tests.harness.replica import CLIENTS_PYTHON

HELD = {"event": "held", "id": "abc", "ttl": 29, "token": 7, "unfinished": None}
DEEP = b'{"x":' + b"[" * 5000


class Lying(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A server on a Unix socket that answers each path with bytes of the test's own choice."""

    daemon_threads = True

    def __init__(self, path, answers):
        self.answers, self.drips = answers, {}
        super().__init__(str(path), Mouth)


class Mouth(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status, body = self.server.answers.get(self.path, (404, b"{}"))
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.server.drips.get(self.path):
            self.drip()
        self.wfile.write(body)

    def do_POST(self):
        self.do_GET()

    def drip(self):
        """Send a space every now and then, so that no single read takes long."""
        with suppress(BrokenPipeError):
            while True:
                time.sleep(0.05)  # the attack itself
                self.wfile.write(b" ")

    def log_message(self, *_):
        pass


@pytest.fixture
def lying(tmp_path):
    """Return a function that starts such a server, and returns it with its socket's path."""
    made = []

    def start(**answers):
        server = Lying(tmp_path / "s", {path.replace("_", "/"): answer for path, answer in answers.items()})
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        made.append(server)
        return server, str(tmp_path / "s")

    yield start
    for each in made:
        each.shutdown()
        each.server_close()


def ask(path, *words):
    """Run the client as a process, on the Python that the application's container may have."""
    command = [CLIENTS_PYTHON, client.__file__, "--socket", path, *words]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


ANSWERS = {
    "nested deep": (200, DEEP),
    "nested deep and closed": (200, b'{"x":' + b"[" * 900 + b"]" * 900 + b"}"),
    "a huge number": (200, b'{"revision":' + b"9" * 5000 + b"}"),
    "a million digits": (200, b'{"revision":' + b"9" * 1_000_000 + b"}"),
    "no object": (200, b"[1]"),
    "nothing": (200, b""),
    "another type": (200, b'{"revision": "\x1b[2J"}'),
    "a truth value": (200, b'{"revision": true}'),
    "a negative number": (200, b'{"revision": -1}'),
    "infinity": (200, b'{"revision": Infinity}'),
    "bad UTF-8": (200, b'{"revision": "\xff"}'),
    "too much": (200, b'{"revision": 1, "x": "' + b"y" * (client.MAX_ANSWER + 1) + b'"}'),
    "a refusal without words": (500, b"{}"),
    "a refusal that is no object": (500, b"[[]]"),
    "a refusal nested deep": (500, DEEP),
    "a refusal with another type": (500, b'{"error": ["x"], "code": "0"}'),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_none_is_told_in_one_line(lying, answer):
    _, path = lying(_v1_flush=answer)
    done = ask(path, "flush", "data", "--timeout", "2s")
    assert (done.returncode, done.stdout) == (4, b"")
    (line,) = done.stderr.splitlines()
    assert line.decode().isprintable()
    assert len(line) < 500


def test_a_refusal_never_ends_with_0_and_is_shown_escaped(lying):
    words = "\x1b]0;owned\x07\r\nconfigstore-client: all well\x9b\u202e"
    _, path = lying(_v1_flush=(500, json.dumps({"error": words, "code": 0}).encode()))
    done = ask(path, "flush", "data")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.decode().isprintable()


def test_status_is_shown_escaped(lying):
    _, path = lying(_v1_status=(200, json.dumps({"x\x1b[2J": "\x9b\x7f\u202e"}, ensure_ascii=False).encode()))
    done = ask(path, "status")
    assert json.loads(done.stdout) == {"x\x1b[2J": "\x9b\x7f\u202e"}
    assert done.stdout.replace(b"\n", b"").decode("ascii").isprintable()


def test_an_answer_that_drips_ends_with_the_time_allowed_for_all_of_it(lying):
    server, path = lying(_v1_status=(200, b"{}"))
    server.drips["/v1/status"] = True
    begun = time.monotonic()
    with pytest.raises(ClientError, match="broke off") as caught:
        Sidecar(path).ask("GET", "/v1/status", timeout=0.5)
    assert (caught.value.code, time.monotonic() - begun < 5) == (4, True)


HOLDS = {
    "no id": {**HELD, "id": None},
    "an id that is a path": {**HELD, "id": "../../v1/flush"},
    "an id with a line end": {**HELD, "id": "x\r\nHost: y"},
    "no ttl": {**HELD, "ttl": "long"},
    "a ttl without end": {**HELD, "ttl": 1e12},
    "no token": {**HELD, "token": None},
}


@pytest.mark.parametrize("held", HOLDS.values(), ids=HOLDS)
def test_a_lease_that_is_none_starts_no_command(lying, held, tmp_path):
    _, path = lying(_v1_hold=(200, json.dumps(held).encode() + b"\n"))
    done = ask(path, "hold", "--wait", "1s", "x", "--", "touch", str(tmp_path / "ran"))
    assert (done.returncode, (tmp_path / "ran").exists()) == (4, False)
    assert b"Traceback" not in done.stderr


def test_what_did_not_end_is_handed_to_the_command_without_a_nul(lying):
    held = {**HELD, "unfinished": "certbot\0\x1b[2J"}
    server, path = lying(_v1_hold=(200, json.dumps(held).encode() + b"\n"))
    server.answers |= {"/v1/hold/abc": (200, b'{"left": 28.5}'), "/v1/hold/abc/release": (200, b'{"revision": 1}')}
    show = "import os; print(os.environ['CONFIGSTORE_UNFINISHED'])"
    done = ask(path, "hold", "x", "--", sys.executable, "-c", show)
    assert (done.returncode, done.stdout) == (0, b"certbot\\x00\\x1b[2J\n"), done.stderr


def test_a_lease_is_never_longer_than_its_ttl(lying):
    server, path = lying()
    server.answers["/v1/hold/abc"] = (200, b'{"left": 1e9}')
    guard = Hold(Sidecar(path), "x", HELD)
    assert guard.left() <= 0
    assert "cannot be used" in guard.doubt


def test_waiting_for_the_same_holder_is_told_once(lying):
    line = json.dumps({"event": "waiting", "holder": "a\x1b[2J on b", "ahead": 1}).encode() + b"\n"
    _, path = lying(_v1_hold=(200, line * 1000))
    done = ask(path, "hold", "--wait", "1s", "x", "--", "true")
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 2
    assert done.stderr.replace(b"\n", b"").decode().isprintable()
