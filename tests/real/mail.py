"""A real POP3 server, an SMTP sink that counts, and the command line by which Mailu calls fetchmail."""

import contextlib
import http.server
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
from collections import Counter
from pathlib import Path

from configstore.embedded import LOOPBACK, free_ports
from tests.harness.waiting import wait_until

NOBODY = 65534  # Dovecot serves no mail to root
PASSWORD = "of-the-test"

_DOVECOT = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = pop3
listen = {host}
ssl = no
disable_plaintext_auth = no
mail_location = maildir:{folder}/mail/%u
pop3_uidl_format = %08Xu%08Xv
mail_max_userip_connections = 100
first_valid_uid = 1
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={folder}/mail/%u
}}
service anvil {{
  client_limit = 200
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
"""


class Mailboxes:
    """Dovecot with the mailboxes of some users; every message stays on the server."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="cs-mail-"))
        self.folder.chmod(0o755)
        self.port = free_ports(1)[0]
        self.messages = Counter()

    def deliver(self, user, count):
        """Put more messages into a user's mailbox."""
        box = self.folder / "mail" / user
        for name in ("cur", "new", "tmp"):
            (box / name).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            self.messages[user] += 1
            number = self.messages[user]
            text = (
                f"From: a@b\r\nTo: {user}@c\r\nSubject: {number}\r\nMessage-ID: <{user}-{number}@b>\r\n\r\nHi.\r\n"
            )
            (box / "new" / f"{number:06d}.x.b").write_text(text)
        for path in [box.parent, box, *box.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)

    def __enter__(self):
        program = shutil.which("dovecot", path="/usr/sbin:/usr/bin")
        assert program, "Dovecot is not installed: tests/get-services"
        configuration = self.folder / "dovecot.conf"
        configuration.write_text(self.configuration())
        self.process = subprocess.Popen([program, "-F", "-c", str(configuration)])
        wait_until(self.answers, 20, what=f"Dovecot to answer; {self.log()}")
        return self

    def configuration(self):
        """Return the text of its configuration file."""
        return _DOVECOT.format(folder=self.folder, host=LOOPBACK, port=self.port, password=PASSWORD, uid=NOBODY)

    def answers(self):
        """Tell whether it serves."""
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), 1) as connection:
            return connection.recv(3) == b"+OK"
        return False

    def log(self):
        """Return what it has said."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(90)
        shutil.rmtree(self.folder)


class Sink(socketserver.ThreadingTCPServer):
    """An SMTP server that counts messages by their id. After `pause_after` of them it waits for `go_on`."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self):
        super().__init__((LOOPBACK, 0), _Smtp)
        self.port = self.server_address[1]
        self.received = Counter()
        self.pause_after = None
        self.paused, self.go_on = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def take(self, message):
        """Count a message."""
        with self.lock:
            self.received[re.search(rb"(?im)^message-id: *<(.*?)>", message)[1].decode()] += 1
            pausing = self.pause_after is not None and self.received.total() >= self.pause_after
        if pausing:
            self.paused.set()
            self.go_on.wait(60)

    def duplicates(self):
        """Return how many messages came more often than once, counted as often as they did."""
        return self.received.total() - len(self.received)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.go_on.set()
        self.shutdown()
        self.server_close()


class _Smtp(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self):
        with contextlib.suppress(OSError):
            self.serve()

    def serve(self):
        self.say("220 sink")
        while line := self.read():
            verb = line.strip().upper()[:4]
            if verb == b"DATA":
                self.say("354 go on")
                message = b""
                while (line := self.read()) not in (b".\r\n", b""):
                    message += line
                if not line:
                    return  # it broke off, so it is not delivered
                self.server.take(message)
            self.say("221 bye" if verb == b"QUIT" else "250 ok")
            if verb == b"QUIT":
                return

    def read(self):
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # else 40 ms a message
        return self.rfile.readline()

    def say(self, words):
        self.wfile.write(words.encode() + b"\r\n")


FETCHMAIL_PY = """#!/usr/bin/env python3
# Does what Mailu's optional/fetchmail/fetchmail.py does (2.0 to 2024.06), in its order, with urllib for requests.
import json, os, pwd, shlex, subprocess, tempfile, time, traceback, urllib.request
from pathlib import Path

ADMIN = "http://" + os.environ["ADMIN_ADDRESS"]


def ask(path, data=None):
    asked = urllib.request.Request(ADMIN + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return answer.read()


def poll(rc):
    with tempfile.NamedTemporaryFile() as file:
        file.write(rc.encode())
        file.flush()
        options = "-N --idfile /data/fetchids --uidl --pidfile /tmp/fetchmail.pid --sslcertck"
        return subprocess.check_output(f"fetchmail {options} -f {shlex.quote(file.name)}", shell=True)


def run(debug):
    try:
        for fetch in json.loads(ask("/internal/fetch")):
            try:
                print(poll(fetch["rc"]))
                error_message = ""
            except subprocess.CalledProcessError as error:
                error_message = error.output.decode()
                if not error_message.startswith("fetchmail: No mail"):
                    print(error_message)
            finally:
                ask(f"/internal/fetch/{fetch['id']}", json.dumps(error_message.split("\\n")[0]).encode())
    except Exception:
        traceback.print_exc()


if __name__ == "__main__":
    user = pwd.getpwnam("fetchmail")
    Path("/data/fetchids").touch()
    os.chown("/data/fetchids", user.pw_uid, user.pw_gid)
    os.chown("/data/", user.pw_uid, user.pw_gid)
    os.chmod("/data/fetchids", 0o700)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ["HOME"] = "/tmp"
    while True:
        time.sleep(int(os.environ.get("FETCHMAIL_DELAY", 60)))
        run(False)
"""


class Admin(http.server.ThreadingHTTPServer):
    """What fetchmail.py asks of Mailu's admin. Each replica has its own address: whose report it is.

    reports: of each, the replica, the account, and what the account's owner is shown.
    """

    daemon_threads = True

    def __init__(self, mailboxes, sink, users):
        super().__init__((LOOPBACK, 0), _Asked)
        self.reports = []
        self.accounts = [
            {"id": user, "rc": account(mailboxes, sink, user).replace("uidl\n", "\n")} for user in users
        ]
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def address(self, replica):
        """Return the address by which a replica finds it."""
        return f"{LOOPBACK}:{self.server_address[1]}/{replica}"

    def of(self, replica):
        """Return what a replica has reported, by account."""
        return [report[1:] for report in self.reports if report[0] == replica]

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class _Asked(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(json.dumps(self.server.accounts).encode())

    def do_POST(self):
        _, replica, *_, account = self.path.split("/")
        words = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.reports.append((replica, account, words))
        self.answer(b"")

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def account(mailboxes, sink, user):
    """Return fetchmail's settings for one account, as Mailu makes them: POP3, messages kept."""
    return (
        f'set no bouncemail\npoll "{LOOPBACK}" proto POP3 service {mailboxes.port} uidl\n'
        f'  user "{user}" password "{PASSWORD}" is "{user}@c" here\n'
        f'  smtphost "{LOOPBACK}/{sink.port}" smtpname "{user}@c" keep sslproto ""\n'
    )


def fetchmail(folder, idfile, mailboxes, sink, user="user"):
    """Return the arguments of one poll as Mailu makes it: POP3, messages kept, ids in a file.

    It ends with 0 when there was mail and with 1 when there was none.
    """
    assert shutil.which("fetchmail"), "fetchmail is not installed: tests/get-services"
    folder.mkdir(exist_ok=True)
    rc = folder / "fetchmailrc"
    rc.write_text(f'set idfile "{idfile}"\n{account(mailboxes, sink, user)}')
    rc.chmod(0o600)
    return ["env", f"FETCHMAILHOME={folder}", "fetchmail", "-N", "-s", "-f", str(rc), "--pidfile", f"{folder}/pid"]
