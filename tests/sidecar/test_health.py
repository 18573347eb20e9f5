"""What probes are answered."""

import http.client
import time

import pytest

from sidecar.health import HealthServer
from sidecar.status import Status


@pytest.fixture
def ask():
    """Return a function that asks a server of one mapping that is not ready yet."""
    server = HealthServer("127.0.0.1:0", lambda: [Status(mapping="data")], time.monotonic)

    def ask(method, path):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Length"), answer.read()
        finally:
            connection.close()

    yield ask
    server.close()


@pytest.mark.parametrize(
    ("path", "expected"), [("/livez", 200), ("/readyz", 503), ("/metrics", 200), ("/elsewhere", 404)]
)
def test_head_is_answered_as_get_without_the_content(ask, path, expected):
    status, length, content = ask("GET", path)
    assert (status, length) == (expected, str(len(content)))
    assert ask("HEAD", path) == (status, length, b"")


def test_anything_else_is_refused(ask):
    assert ask("POST", "/livez")[0] == 501
