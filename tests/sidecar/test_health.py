"""What probes are answered."""

import http.client
import socket
import time

import pytest

from sidecar.__main__ import main
from sidecar.health import CONNECTIONS, Figure, HealthServer, ready
from sidecar.status import Status
from tests.waiting import wait_until


@pytest.fixture
def serve():
    """Return a function that makes a server of one mapping that is not ready yet, and one that asks it."""
    made = []

    def serve(listen="127.0.0.1:0", host="127.0.0.1", **sources):
        server = HealthServer(listen, lambda: [Status(mapping="data")], time.monotonic, **sources)
        made.append(server)

        def ask(method, path):
            connection = http.client.HTTPConnection(host, server.port, timeout=5)
            try:
                connection.request(method, path)
                answer = connection.getresponse()
                return answer.status, answer.getheader("Content-Length"), answer.read()
            finally:
                connection.close()

        return ask

    serve.port = lambda: made[-1].port
    yield serve
    for each in made:
        each.close()


@pytest.fixture
def ask(serve):
    return serve()


@pytest.mark.parametrize(
    ("path", "expected"), [("/livez", 200), ("/readyz", 503), ("/metrics", 200), ("/elsewhere", 404)]
)
def test_head_is_answered_as_get_without_the_content(ask, path, expected):
    status, length, content = ask("GET", path)
    assert (status, length) == (expected, str(len(content)))
    assert ask("HEAD", path) == (status, length, b"")


def test_anything_else_is_refused(ask):
    assert ask("POST", "/livez")[0] == 501


@pytest.mark.parametrize("listen", ["[::1]:0", "[::]:0"])
def test_it_listens_on_ipv6(serve, listen):
    assert serve(listen, "::1")("GET", "/livez")[0] == 200


def test_all_addresses_are_those_of_ipv4_too(serve):
    assert serve("[::]:0")("GET", "/livez")[0] == 200


@pytest.mark.parametrize("listen", ["[::1]:{}", "[::]:{}"])
def test_the_health_command_asks_at_an_ipv6_address(monkeypatch, capsys, listen):
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        listen = listen.format(probe.getsockname()[1])
    server = HealthServer(listen, lambda: [Status(mapping="data", ready=True)], time.monotonic)
    try:
        code = main(["health", "--preset", "mailu/front", "--health-listen", listen])
    finally:
        server.close()
    assert (code, capsys.readouterr().out) == (0, "data: ok: ready\n")


def test_an_engine_without_progress_is_not_alive(serve):
    why = []
    ask = serve(alive=lambda: why[0] if why else None)
    assert ask("GET", "/livez")[::2] == (200, b"ok\n")
    why.append("data: one step has taken 46 s")
    assert ask("GET", "/livez")[::2] == (503, b"data: one step has taken 46 s\n")


def test_only_required_mappings_decide_and_all_are_named():
    well = Status(mapping="one", ready=True)
    optional = Status(mapping="two", waiting_for="no such directory", required=False)
    assert ready([well, optional]) == (True, "one: ok: ready\ntwo: not ready, not required: no such directory\n")
    assert not ready([well, Status(mapping="two", waiting_for="no such directory")])[0]
    assert not ready([well, Status(mapping="two", halted="too many", ready=True)])[0]


def test_notes_are_said_and_make_no_difference(serve):
    assert ready([Status(mapping="one", ready=True)], ["replica: doubled"]) == (
        True,
        "one: ok: ready\nreplica: doubled\n",
    )
    assert b"replica: doubled" in serve(notes=lambda: ["replica: doubled"])("GET", "/readyz")[2]


def test_figures_of_the_process_are_among_the_metrics(serve):
    text = serve(figures=lambda: [Figure("log_dropped_total", "counter", "Lines lost", 3)])("GET", "/metrics")[2]
    assert b"# TYPE configstore_log_dropped_total counter\nconfigstore_log_dropped_total 3\n" in text


def test_slow_clients_take_no_more_than_their_share_and_keep_nobody_out(serve):
    ask = serve()
    port = serve.port()
    slow = []
    try:
        for _ in range(3 * CONNECTIONS):
            slow.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            slow[-1].sendall(b"GET /livez HTTP/1.1\r\n")
        assert ask("GET", "/livez")[0] == 200
        wait_until(lambda: sum(is_open(each) for each in slow) <= CONNECTIONS)
    finally:
        for each in slow:
            each.close()


def is_open(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
