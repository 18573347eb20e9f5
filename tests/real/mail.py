"""A real POP3 server, an SMTP sink that counts, and the command line by which Mailu calls fetchmail."""

import contextlib
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
from tests.waiting import wait_until

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
        self.process.wait(20)
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


def fetchmail(folder, idfile, mailboxes, sink, user="user"):
    """Return the arguments of one poll as Mailu makes it: POP3, messages kept, ids in a file.

    It ends with 0 when there was mail and with 1 when there was none.
    """
    assert shutil.which("fetchmail"), "fetchmail is not installed: tests/get-services"
    folder.mkdir(exist_ok=True)
    rc = folder / "fetchmailrc"
    rc.write_text(
        f'set idfile "{idfile}"\nset no bouncemail\n'
        f'poll "{LOOPBACK}" proto POP3 service {mailboxes.port} uidl\n'
        f'  user "{user}" password "{PASSWORD}" is "{user}@c" here\n'
        f'  smtphost "{LOOPBACK}/{sink.port}" smtpname "{user}@c" keep sslproto ""\n'
    )
    rc.chmod(0o600)
    return ["env", f"FETCHMAILHOME={folder}", "fetchmail", "-N", "-s", "-f", str(rc), "--pidfile", f"{folder}/pid"]
