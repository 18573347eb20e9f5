"""The example that mails, run as `on_problem` runs it."""

import email
import socket
import threading

import pytest

from configstore.model.problem import Problem
from sidecar.programs.on_problem import OnProblem
from sidecar.reporting.status import Status
from tests.harness.waiting import wait_until
from tests.monitoring.conftest import PAGES
from tests.sidecar.planner.named import a_mapping

SCRIPT = str(PAGES / "mail-on-problem")
DEGRADED = Status(mapping="m", ready=True, problems=(Problem(path="key", reason="no space\nleft for it"),))


@pytest.fixture
def mailed(monkeypatch):
    """Return a function that has a script tell of a problem; returns what it failed with, or None."""
    monkeypatch.setattr("sidecar.programs.on_problem.MOMENT", 0.0)
    made = []

    def tell(*arguments):
        made.append(OnProblem(a_mapping(on_problem=(SCRIPT, *arguments), settle=0.0), lambda: None))
        made[-1].start()
        made[-1].seen(DEGRADED)
        return made[-1]

    yield tell
    for each in made:
        each.close()


def checked(raw, to):
    mail = email.message_from_bytes(raw)
    assert mail["Subject"] == f"configstore: certs on {socket.gethostname()} is degraded"
    assert (mail["To"], mail["From"]) == (to, to.partition(",")[0])
    assert "key: no space\\nleft for it" in mail.get_payload(decode=True).decode()


class MailServer:
    """As much of SMTP as takes one mail."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.content = b""
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 here\r\n")
            for line in map(bytes.upper, lines):
                if line.startswith(b"DATA"):
                    connection.sendall(b"354 go on\r\n")
                    self.content = b"".join(iter(lines.readline, b".\r\n"))
                connection.sendall(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 well\r\n")


def test_it_mails_through_a_server(mailed):
    server = MailServer()
    try:
        mailed("--host", f"127.0.0.1:{server.port}", "postmaster@example.org", "second@example.org")
        server.thread.join(20)
        checked(server.content, "postmaster@example.org, second@example.org")
    finally:
        server.listener.close()


def test_it_mails_through_sendmail(mailed, monkeypatch, tmp_path):
    program = tmp_path / "sendmail"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/mail\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    mailed("postmaster@example.org")
    wait_until((tmp_path / "mail").exists)
    checked((tmp_path / "mail").read_bytes(), "postmaster@example.org")


def test_a_mail_that_could_not_be_handed_over_is_a_failure(mailed):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    alarm = mailed("--host", f"127.0.0.1:{port}", "postmaster@example.org")
    wait_until(lambda: alarm.failure)
    assert "Connection refused" in alarm.failure
