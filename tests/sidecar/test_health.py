"""What probes are answered."""

import http.client
import time

import pytest

from configstore.store.api import Contact
from sidecar.health import HealthServer
from sidecar.status import Status

FINE = Contact(connected=True, last=1764340786.5)
SILENT = Contact(connected=False, last=1764340786.5, silent=12.4, reason="http://h:1: refused")
NEVER = Contact(connected=False, last=0.0, silent=3.0, reason="not connected yet")


@pytest.fixture
def asked_of():
    """Return a function that asks a server of one mapping, given its status and the contact with the store."""

    def ask(method, path, status=None, contact=FINE):
        statuses = [status or Status(mapping="data")]
        server = HealthServer("127.0.0.1:0", lambda: statuses, time.monotonic, contact=lambda: contact)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Length"), answer.read()
        finally:
            connection.close()
            server.close()

    return ask


@pytest.mark.parametrize(
    ("path", "expected"), [("/livez", 200), ("/readyz", 503), ("/metrics", 200), ("/elsewhere", 404)]
)
def test_head_is_answered_as_get_without_the_content(asked_of, path, expected):
    status, length, content = asked_of("GET", path)
    assert (status, length) == (expected, str(len(content)))
    assert asked_of("HEAD", path) == (status, length, b"")


def test_anything_else_is_refused(asked_of):
    assert asked_of("POST", "/livez")[0] == 501


@pytest.mark.parametrize(
    ("contact", "line"),
    [
        (FINE, "data: ok: ready"),
        (
            SILENT,
            "data: ok: ready; the store has not answered since 2025-11-28T14:39:46Z (12 s): http://h:1: refused",
        ),
        (NEVER, "data: ok: ready; the store has not answered yet (3 s): not connected yet"),
    ],
)
def test_a_silent_store_is_told_beside_being_ready(asked_of, contact, line):
    status, _, content = asked_of("GET", "/readyz", Status(mapping="data", ready=True), contact)
    assert (status, content.decode()) == (200, line + "\n")


@pytest.mark.parametrize(
    ("contact", "connected", "last"),
    [(FINE, "1", "1764340786.500"), (SILENT, "0", "1764340786.500"), (NEVER, "0", "0.000")],
)
def test_metrics_tell_the_contact_once_for_the_process(asked_of, contact, connected, last):
    lines = asked_of("GET", "/metrics", contact=contact)[2].decode().splitlines()
    figures = [line for line in lines if "contact" in line or "connected" in line]
    assert [line for line in figures if not line.startswith("#")] == [
        f"configstore_connected {connected}",
        f"configstore_last_contact_timestamp_seconds {last}",
    ]
