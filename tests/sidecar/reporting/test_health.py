"""What probes are answered."""

import http.client
import os
import re
import socket

import msgspec
import pytest

from configstore.model.problem import Problem
from configstore.store.api import Contact
from sidecar.__main__ import main
from sidecar.reporting.health import HealthServer, HealthSources, ready
from sidecar.reporting.http import CONNECTIONS
from sidecar.reporting.metrics import Sample
from sidecar.reporting.status import Status
from tests.harness.waiting import wait_until

FINE = Contact(connected=True, last=1764340786.5)
SILENT = Contact(connected=False, last=1764340786.5, silent=12.4, reason="http://h:1: refused")
NEVER = Contact(connected=False, last=0.0, silent=3.0, reason="not connected yet")


@pytest.fixture
def serve():
    """Return a function that makes a server of one mapping that is not ready yet, and one that asks it."""
    made = []

    def serve(listen="127.0.0.1:0", host="127.0.0.1", status=None, contact=FINE, statuses=None, **sources):
        statuses = statuses or [status or Status(mapping="data")]
        sources = HealthSources(statuses=lambda: statuses, contact=lambda: contact, **sources)
        server = HealthServer(listen, sources)
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
def test_a_silent_store_is_told_beside_being_ready(serve, contact, line):
    status, _, content = serve(status=Status(mapping="data", ready=True), contact=contact)("GET", "/readyz")
    assert (status, content.decode()) == (200, line + "\n")


@pytest.mark.parametrize(
    ("contact", "connected", "last"),
    [(FINE, "1", "1764340786.5"), (SILENT, "0", "1764340786.5"), (NEVER, "0", "0")],
)
def test_metrics_tell_the_contact_once_for_the_process(serve, contact, connected, last):
    lines = serve(contact=contact)("GET", "/metrics")[2].decode().splitlines()
    figures = [line for line in lines if "contact" in line or "connected" in line]
    assert [line for line in figures if not line.startswith("#")] == [
        f"configstore_connected {connected}",
        f"configstore_last_contact_timestamp_seconds {last}",
    ]


def test_anything_else_is_refused(ask):
    assert ask("POST", "/livez")[0] == 501


@pytest.mark.parametrize("listen", ["[::1]:0", "[::]:0"])
def test_it_listens_on_ipv6(serve, listen):
    assert serve(listen, "::1")("GET", "/livez")[0] == 200


def test_all_addresses_are_those_of_ipv4_too(serve):
    assert serve("[::]:0")("GET", "/livez")[0] == 200


@pytest.mark.parametrize("listen", ["[::1]:{}", "[::]:{}"])
def test_the_health_command_asks_at_an_ipv6_address(monkeypatch, capsys, listen):
    monkeypatch.delenv("CONFIGSTORE_TEST_ETCD", raising=False)  # of the tests alone; it is no setting
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        listen = listen.format(probe.getsockname()[1])
    fine = [Status(mapping="data", ready=True)]
    server = HealthServer(listen, HealthSources(statuses=lambda: fine, contact=lambda: FINE))
    try:
        code = main(["health", "--preset", "mailu/front", "--health-listen", listen])
    finally:
        server.close()
    assert (code, capsys.readouterr().out) == (0, "data: ok: ready\n")


def test_an_engine_without_progress_is_not_alive(serve):
    why = []
    ask = serve(stuck=lambda: why[0] if why else None)
    assert ask("GET", "/livez")[::2] == (200, b"ok\n")
    why.append("data: one step has taken 46 s")
    assert ask("GET", "/livez")[::2] == (503, b"data: one step has taken 46 s\n")


def test_only_required_mappings_decide_and_all_are_named():
    well = Status(mapping="one", ready=True)
    optional = Status(mapping="two", waiting_for="no such directory", required=False)
    assert ready([well, optional], FINE) == (
        True,
        "one: ok: ready\ntwo: not ready, not required: no such directory\n",
    )
    assert not ready([well, Status(mapping="two", waiting_for="no such directory")], FINE)[0]
    assert not ready([well, Status(mapping="two", halted="too many", ready=True)], FINE)[0]


def test_notes_are_said_and_make_no_difference(serve):
    assert ready([Status(mapping="one", ready=True)], FINE, ["replica: doubled"]) == (
        True,
        "one: ok: ready\nreplica: doubled\n",
    )
    assert b"replica: doubled" in serve(notes=lambda: ["replica: doubled"])("GET", "/readyz")[2]


def test_figures_of_the_process_are_among_the_metrics(serve):
    text = serve(samples=lambda: [Sample("log_dropped_total", (), 3)])("GET", "/metrics")[2]
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


def test_a_silent_store_does_not_hide_that_a_mapping_is_degraded():
    found = Status(mapping="data", ready=True, complete=True, problems=(Problem(path="a", reason="why"),))
    silent = Contact(connected=False, last=1.0, silent=9.0, reason="refused")
    fine, words = ready([msgspec.structs.replace(found, waiting_for="the store")], silent)
    assert fine
    assert re.match(r"data: ok: degraded: 1 problems, such as a: why; the store has not answered", words)


def test_one_service_is_asked_for_alone_and_unknown_ones_are_named(serve):
    statuses = [Status(mapping="certs", ready=True), Status(mapping="dkim"), Status(mapping="own")]
    ask = serve(statuses=statuses, services={"certs": "front", "dkim": "admin"})
    status, _, text = ask("GET", "/readyz")
    assert (status, text.decode().splitlines()) == (
        503,
        [f"{name}: {how}" for name, how in (
            ("certs (front)", "ok: ready"),
            ("dkim (admin)", "not ready: first cycle under way"),
            ("own", "not ready: first cycle under way"),
        )],
    )  # fmt: skip
    assert ask("GET", "/readyz?service=front")[::2] == (200, b"certs: ok: ready\n")
    assert ask("GET", "/readyz?service=admin")[::2] == (503, b"dkim: not ready: first cycle under way\n")
    status, _, text = ask("GET", "/readyz?service=fronts")
    assert (status, text) == (404, b"no mapping here is of that service; there are: admin, front\n")


def test_the_health_command_asks_for_one_service_or_only_for_life(serve, monkeypatch):
    statuses = [Status(mapping="certs", ready=True), Status(mapping="dkim")]
    serve(statuses=statuses, services={"certs": "front", "dkim": "admin"})
    monkeypatch.setattr(os, "environ", {"CONFIGSTORE_HEALTH_LISTEN": f"127.0.0.1:{serve.port()}"})
    asked = ["health", "--preset", "mailu/front"]
    assert (main(asked), main([*asked, "--live"])) == (1, 0)
    assert (main([*asked, "--service", "front"]), main([*asked, "--service", "admin"])) == (0, 1)
    assert (main([*asked, "--service", "imap"]), main([*asked, "--service", "a b"])) == (1, 2)
    with pytest.raises(SystemExit, match="2"):  # the process has one life, whatever its services
        main([*asked, "--live", "--service", "front"])
